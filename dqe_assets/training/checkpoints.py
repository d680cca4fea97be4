"""Checkpoints on disk, in open_clip_train's form: written whole, found again, and told apart by their weights."""

from __future__ import annotations

import hashlib
import pickle
import re
from typing import TYPE_CHECKING, Any

from dqe_resources.errors import DataQualityError, one_line
from dqe_resources.store import replace_file

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

_NO_CHECKPOINT = (
    *(OSError, RuntimeError, ValueError, EOFError, pickle.UnpicklingError),
    *(AttributeError, IndexError, KeyError, TypeError),
)
"""What reading a file that is none ends in: what is in it is read as a program."""

_NUMBERED = re.compile(r"epoch_(\d+)\.pt")


class CheckpointError(DataQualityError):
    """A checkpoint cannot be read: says which."""


def checkpoint_path(folder: Path, number: int) -> Path:
    """Path of a checkpoint of a run, from 1."""
    return folder / "checkpoints" / f"epoch_{number}.pt"


def checkpoints(folder: Path) -> dict[int, Path]:
    """The checkpoints of a run that are there, by number."""
    found = ((_NUMBERED.fullmatch(path.name), path) for path in (folder / "checkpoints").glob("epoch_*.pt"))
    return {int(match[1]): path for match, path in sorted(found, key=lambda one: str(one[1])) if match}


def write_checkpoint(path: Path, state: Mapping[str, Any]) -> None:
    """Write a checkpoint whole or not at all."""
    import torch

    replace_file(path, lambda target: torch.save(dict(state), target))


def read_checkpoint(path: Path) -> dict[str, Any]:
    """A checkpoint, on the CPU. Bare weights count as one, with the key ``state_dict`` alone.

    Raises:
        CheckpointError: it is not there, or no checkpoint.
    """
    import torch

    try:
        found = torch.load(path, map_location="cpu", weights_only=True)
    except _NO_CHECKPOINT as error:
        raise CheckpointError(f"{path}: cannot be read as a checkpoint ({one_line(error)[:200]})") from error
    if not isinstance(found, dict):
        raise CheckpointError(f"{path}: holds {type(found).__name__}, not the weights of a model")
    state = found if "state_dict" in found else {"state_dict": found}
    weights = {name.removeprefix("module."): value for name, value in state["state_dict"].items()}
    return {**state, "state_dict": weights}


def weights_digest(path: Path) -> str:
    """Hex SHA-256 of the weights of a checkpoint, whatever else is in its file.

    Raises:
        CheckpointError: it cannot be read.
    """
    import torch

    digest = hashlib.sha256()
    for name, value in sorted(read_checkpoint(path)["state_dict"].items()):
        digest.update(f"{name} {value.dtype} {list(value.shape)}".encode())
        digest.update(value.contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
