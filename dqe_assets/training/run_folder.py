"""The folder of a run, and its configuration: by that, a killed run knows that what is there is its own."""

from __future__ import annotations

from functools import lru_cache
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from dqe_assets.training.checkpoints import CheckpointError, weights_digest
from dqe_assets.training.data import empty
from dqe_assets.training.reshard import read_record, write_record
from dqe_resources.cache import data_directory
from dqe_resources.models.packages import package_version

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from dqe_assets.training.data import TrainingData
    from dqe_assets.training.device import Device
    from dqe_assets.training.settings import Run

RUN = "run.json"

_PACKAGES = ("numpy", "open-clip-torch", "pillow", "timm", "torch", "torchvision", "webdataset")
"""Whose versions may change what comes out of a training."""


def run_folder(key: str) -> Path:
    """Where the checkpoints of a run are."""
    return data_directory() / "training" / key


def architecture_of(run: Run) -> str:
    """open_clip's name of a run's model, or the path of its configuration, which is written if it is not there."""
    if isinstance(run.scale.model, str):
        return run.scale.model
    path = run_folder(run.key) / f"{run.key}.json"
    if read_record(path) != run.scale.model:
        write_record(path, run.scale.model)
    return str(path)


def configuration_of(run: Run, data: TrainingData, device: Device) -> dict[str, Any]:
    """Everything that decides what a run becomes.

    Raises:
        CheckpointError: the checkpoint that it starts from is not there.
        PackageError: a package that it needs is not installed.
    """
    return {
        "run": run.key,
        "subset": run.subset,
        "captions": dict(run.captions),
        "data": {"name": run.data, "samples": data.samples, "digest": data.digest},
        "scale": {"name": run.scale_name, **run.scale.model_dump(mode="json")},
        "seed": run.seed,
        "start": {"path": str(run.start), "sha256": _start_digest(run.start)} if run.start else None,
        "device": {"trainer": device.trainer, "gpus": device.gpus, "workers": device.workers},
        "versions": {name: package_version(name) for name in _PACKAGES}
        | {"data-quality-engine": version("data-quality-engine")},
    }


def start_state(run: Run) -> str | None:
    """Digest of the weights that a run starts from; None if they are random, or not there yet."""
    return _start_digest(run.start) if run.start is not None and run.start.is_file() else None


def _start_digest(path: Path) -> str:
    if not path.is_file():
        raise CheckpointError(
            f"{path}: a run starts from this checkpoint, and it is not there; list the run that makes it earlier, or "
            "correct the path"
        )
    return _digest(path, path.stat().st_mtime_ns)


@lru_cache(maxsize=32)
def _digest(path: Path, _changed: int) -> str:
    return weights_digest(path)


def prepare(run: Run, configuration: dict[str, Any], log: Callable[[str], None], *, again: bool = False) -> Path:
    """The folder of a run, held by this process, with what was done of this very configuration and of no other.

    Args:
        run: the run.
        configuration: everything that decides what it becomes.
        log: is told why what is there is not gone on with.
        again: begin anew in any case.
    """
    folder = run_folder(run.key)
    there = read_record(folder / RUN)
    if there is not None and (again or there != configuration):
        changed = [name for name in configuration if there.get(name) != configuration[name]]
        log(f"{run.key}: begins anew" + (f", as it has another {', '.join(changed)} than before" if changed else ""))
    if there is None or again or there != configuration:
        empty(folder)
        write_record(folder / RUN, configuration)
    architecture_of(run)
    return folder
