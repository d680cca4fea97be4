"""The asset ``training_run``: a model for each subset, scale and seed, trained with the same compute."""

from __future__ import annotations

import math
from dataclasses import asdict
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from dqe_assets.core.checks import finite, unique
from dqe_assets.core.stage import TRAINING_RUNS, Stage, stage
from dqe_assets.core.work import Check, CheckResult, Work, with_facts
from dqe_assets.training import metadata
from dqe_assets.training.checkpoints import checkpoint_path, weights_digest
from dqe_assets.training.data import open_data
from dqe_assets.training.data_assets import DATA_PREFIX, data_digest
from dqe_assets.training.device import THIS_PROCESS, chosen_device, gpus_here
from dqe_assets.training.loader import load_examples
from dqe_assets.training.loop import train
from dqe_assets.training.loss_log import read_log
from dqe_assets.training.open_clip_run import peak_gpu_memory, train_with_open_clip
from dqe_assets.training.run_folder import architecture_of, configuration_of, prepare, run_folder, start_state
from dqe_assets.training.schedule import learning_rates
from dqe_assets.training.tables import TRAINING_RUN
from dqe_assets.training.views import RELATIONS
from dqe_resources.cache import data_directory, in_data_directory
from dqe_resources.locks import folder_alone

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from dqe_assets.training.data import TrainingData
    from dqe_assets.training.device import Device
    from dqe_assets.training.loss_log import LogLine
    from dqe_assets.training.settings import Run, Training


def training_run_of(data: Iterable[str]) -> Stage:
    """The asset ``training_run``.

    Args:
        data: names of what the runs are trained on.
    """

    def specification(work: Work, training: Training) -> Any:
        run = training.run(work.partition or "")
        return [run.key, run.subset, run.captions, run.scale.model_dump(mode="json"), run.seed, start_state(run)]

    @stage(
        kinds={"parquet", "torch", "open_clip"},
        code_version="1",
        schema=TRAINING_RUN,
        relations=RELATIONS,
        unpartitioned_inputs=[f"{DATA_PREFIX}{name}" for name in dict.fromkeys(data)],
        partition_set=TRAINING_RUNS,
        # What is made again with the same samples in it is no reason to train again.
        depends=lambda work, training: data_digest(work, training.run(work.partition or "").data),
        checks=[
            unique("run", "checkpoint"),
            finite("loss", 0),
            Check(
                "checkpoints_there", "The checkpoint of every row is there, with the weights of its digest.", _are_there
            ),
            Check("learns", "In the end, the loss is below that of a guess.", _learns, blocking=False),
        ],
        metadata=metadata.training_run,
        signature=specification,
        is_valid=lambda _, stamp: all(in_data_directory(path).is_file() for path in stamp.facts["checkpoints"]),
        pool="training",
    )
    def training_run(work: Work, training: Training) -> pa.Table:
        """A model trained on a subset with the samples seen, model and hyperparameters of its scale.

        A killed run goes on from its last checkpoint if its configuration, the versions of packages and its data are
        the same. A toy scale is trained in this process, any other by open_clip_train on the GPUs of this machine.
        """
        run = training.run(work.partition or "")
        shards = open_data(run.data)
        with folder_alone(run_folder(run.key)):
            return trained(work, run, shards, training)

    return training_run


def trained(work: Work, run: Run, shards: TrainingData, training: Training) -> pa.Table:
    """Train a run to its end; returns its rows, with its configuration as facts."""
    architecture = architecture_of(run)
    device = chosen_device(run, architecture, training, gpus_here())
    configuration = configuration_of(run, shards, device)
    folder = prepare(run, configuration, work.log, again=work.force)
    progress = _Progress(work, device.steps(run.scale) * run.scale.batch_size)
    if device.trainer == THIS_PROCESS:
        train(
            load_examples(shards, architecture, run.captions),
            architecture,
            folder,
            scale=run.scale,
            seed=run.seed,
            start=run.start,
            log_every=training.log_every,
            report=progress.report,
        )
    else:
        train_with_open_clip(
            run, shards, architecture, folder, device, log_every=training.log_every, report=progress.report
        )
    table = checkpoint_table(run, shards.samples, folder, device, training.hour_price(device.gpus))
    peak = peak_gpu_memory(folder)
    facts = {
        "configuration": configuration,
        "checkpoints": table["path"].to_pylist(),
        **({"peak_gpu_memory_mib": peak} if peak else {}),
    }
    return with_facts(table, facts)


class _Progress:
    """Says how far a training is: samples, loss, rate, and the time that remains."""

    def __init__(self, work: Work, total: int) -> None:
        self._meter, self._total = work.meter(total), total
        self._before = 0

    def report(self, line: LogLine) -> None:
        """Tell a line of the log."""
        if self._before:
            rate = (line.samples_seen - self._before) / max(line.seconds, 1e-9)
            remaining = timedelta(seconds=round((self._total - line.samples_seen) / max(rate, 1e-9)))
            note = f"loss {line.loss:.3f}, {rate:,.0f} samples/s, {remaining} left"
        else:
            # The first line after a start may have waited for loaders and compilers.
            note = f"loss {line.loss:.3f}"
        self._before = line.samples_seen
        self._meter.update(line.samples_seen, note)


def checkpoint_table(run: Run, samples: int, folder: Path, device: Device, price: float | None) -> pa.Table:
    """The rows of a finished run, in the schema ``TRAINING_RUN``.

    Args:
        run: the run.
        samples: how many it is trained on.
        folder: with its checkpoints and its log.
        device: what it was trained on.
        price: of an hour of what it was trained on.
    """
    steps, lines = device.steps_per_checkpoint(run.scale), read_log(folder)
    rates = learning_rates(run.scale, device.steps(run.scale))
    architecture = run.scale.model if isinstance(run.scale.model, str) else _relative(folder / f"{run.key}.json")
    rows = []
    for number in range(1, run.scale.checkpoints + 1):
        path, end = checkpoint_path(folder, number), number * steps
        since = [line for line in lines if end - steps < line.step <= end]
        seconds = math.fsum(line.seconds for line in since)
        rows.append(
            {
                "run": run.key,
                "subset": run.subset,
                "captions": captions_text(run.captions),
                "data": run.data,
                "data_size": samples,
                "scale": run.scale_name,
                "seed": run.seed,
                "start": _relative(run.start) if run.start else None,
                "schedule": run.scale.schedule,
                "checkpoint": number,
                "is_final": number == run.scale.checkpoints,
                "step": end,
                "samples_seen": end * run.scale.batch_size,
                "loss": _mean_loss(since, end - steps),
                "learning_rate": float(rates[end - 1]),
                "logit_scale": since[-1].logit_scale if since else None,
                "architecture": architecture,
                "path": _relative(path),
                "sha256": weights_digest(path),
                "seconds": seconds,
                "waited": math.fsum(line.waited for line in since),
                "samples_per_second": steps * run.scale.batch_size / seconds if seconds else None,
                "gpus": device.gpus,
                "cost": None if price is None else price * seconds / 3600,
                "log": [asdict(line) for line in since],
            }
        )
    return pa.Table.from_pylist(rows, TRAINING_RUN)


def captions_text(captions: Iterable[tuple[str, float]]) -> str:
    """Which captions are trained with, in words: ``original``, or ``labels 1, original 3``."""
    named = list(captions)
    return named[0][0] if len(named) == 1 else ", ".join(f"{kind} {weight:g}" for kind, weight in named)


def _mean_loss(lines: Sequence[LogLine], begin: int) -> float | None:
    """The mean of the losses, each for the steps since the line before."""
    steps = [line.step - before for line, before in zip(lines, [begin, *(line.step for line in lines)], strict=False)]
    return math.fsum(line.loss * n for line, n in zip(lines, steps, strict=True)) / sum(steps) if lines else None


def _relative(path: Path) -> str:
    """A path from the data folder; one that is elsewhere as it is."""
    return str(path.relative_to(data_directory())) if path.is_relative_to(data_directory()) else str(path)


def _are_there(_: Work, table: pa.Table) -> CheckResult:
    wrong = [
        path
        for path, digest in zip(table["path"].to_pylist(), table["sha256"].to_pylist(), strict=True)
        if not in_data_directory(path).is_file() or weights_digest(in_data_directory(path)) != digest
    ]
    return CheckResult(
        not wrong,
        f"{table.num_rows} checkpoints; not there, or with other weights: {', '.join(wrong) or 'none'}",
        {"wrong": len(wrong)},
    )


def _learns(work: Work, table: pa.Table, training: Training) -> CheckResult:
    guess = math.log(training.run(work.partition or "").scale.batch_size)
    loss = table["loss"].to_pylist()[-1]
    return CheckResult(
        loss < guess, f"the loss is {loss:.3f} in the end, {guess:.3f} for a guess", {"loss": loss, "guess": guess}
    )
