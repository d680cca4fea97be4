"""Training on GPUs: open_clip_train as a process of its own, every flag given, its log read as it comes."""

from __future__ import annotations

import json
import math
import os
import re
import signal
import subprocess
import sys
from collections import deque
from pathlib import Path
from typing import TYPE_CHECKING

from dqe_assets.training.checkpoints import checkpoints
from dqe_assets.training.launcher import TOLD
from dqe_assets.training.loop import TrainingError, unstable
from dqe_assets.training.loss_log import LogLine, append_line, keep_log
from dqe_assets.training.reshard import read_record
from dqe_assets.training.schedule import learning_rates
from dqe_resources.models.open_clip_loading import import_open_clip

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from dqe_assets.training.data import TrainingData
    from dqe_assets.training.device import Device
    from dqe_assets.training.scales import Scale
    from dqe_assets.training.settings import Run

_LINE = re.compile(
    r"Train Epoch: (?P<epoch>\d+) \[ *(?P<samples>\d+)/\d+ .*?Data \(t\): (?P<data>[\d.]+) "
    r"Batch \(t\): (?P<batch>[\d.]+), .*?Logit Scale: (?P<scale>[\d.naif]+) .*?\bLoss: (?P<loss>[\d.e+naif-]+) \("
)
_LOST = re.compile(r"Handling webdataset error \((?P<error>FileNotFoundError.*|ReadError.*)\)\. Ignoring")
_LAST_LINES = 30
_ONE_THREAD = {"OMP_NUM_THREADS": "1"}
"""Two threads are slower at the scales that a CPU trains."""

_ENDS_WITHIN_SECONDS = 20.0
_MEMORY = "memory.json"
_PACKAGE_FOLDER = Path(__file__).parents[2]


def train_with_open_clip(
    run: Run,
    data: TrainingData,
    architecture: str,
    folder: Path,
    device: Device,
    *,
    log_every: int,
    report: Callable[[LogLine], None],
) -> None:
    """Train to the end, from the folder's last checkpoint.

    Args:
        run: what to train.
        data: the shards, all of them there.
        architecture: open_clip's name of the model, or the path of a configuration.
        folder: for the checkpoints and the log; what is there is of this very run.
        device: what to train on.
        log_every: steps between two lines of the log.
        report: is told each line.

    Raises:
        TrainingError: open_clip_train fails, the loss is no number any more, or a shard cannot be read.
    """
    for torn in (folder / "checkpoints").glob("*.tmp"):
        torn.unlink()
    done = max(checkpoints(folder), default=0)
    keep_log(folder, done * device.steps_per_checkpoint(run.scale))
    if done == run.scale.checkpoints:
        return
    program = [sys.executable, "-u"]
    if device.gpus > 1:
        program += ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={device.gpus}"]
    command = [
        *program,
        "-m",
        "dqe_assets.training.launcher",
        *flags(run, data, architecture, folder, device, log_every),
    ]
    told = {
        "configuration": architecture if architecture.endswith(".json") else None,
        "captions": dict(run.captions),
        "memory": str(folder / _MEMORY),
    }
    path = os.pathsep.join(filter(None, [str(_PACKAGE_FOLDER), os.environ.get("PYTHONPATH")]))
    # Shards are named from their folder: open_clip expands braces, which a path may have too.
    with subprocess.Popen(  # noqa: S603 - our own words
        command,
        cwd=data.folder,
        env={**os.environ, "PYTHONPATH": path, TOLD: json.dumps(told), **({} if device.gpus else _ONE_THREAD)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        start_new_session=True,
    ) as process:
        try:
            last = _follow(process.stdout or (), run, folder, device, report)
        finally:
            _end(process)
    if process.returncode or max(checkpoints(folder), default=0) < run.scale.checkpoints:
        raise TrainingError(
            f"{run.key}: open_clip_train ended with status {process.returncode} before its last checkpoint; it said "
            "last:\n" + "\n".join(last)
        )


def flags(run: Run, data: TrainingData, architecture: str, folder: Path, device: Device, log_every: int) -> list[str]:
    """The arguments of open_clip_train: all that bear on what is trained, none left to a default.

    What DataComp's train.py gives (Gadre et al. 2023), it gives too: shards drawn with replacement, the loss of each
    GPU against all, gradients through what is gathered.
    """
    open_clip, scale = import_open_clip(), run.scale
    last = f"{len(data.shards) - 1:08d}"
    schedule = {"cosine": "cosine", "constant_cooldown": "const-cooldown"}[scale.schedule]
    values: dict[str, Sequence[object]] = {
        "train-data": [f"{{00000000..{last}}}.tar"],
        "dataset-type": ["webdataset"],
        "train-num-samples": [scale.samples_seen // scale.checkpoints or 1],
        "epochs": [scale.checkpoints],
        "batch-size": [scale.batch_size // max(device.gpus, 1)],
        "accum-freq": [1],
        "workers": [device.workers],
        "model": [Path(architecture).stem if architecture.endswith(".json") else architecture],
        "pretrained": [run.start or ""],
        "image-mean": open_clip.OPENAI_DATASET_MEAN,
        "image-std": open_clip.OPENAI_DATASET_STD,
        "image-interpolation": ["bicubic"],
        "image-resize-mode": ["shortest"],
        "aug-cfg": ["scale=(0.9,1.0)"],
        "opt": ["adamw"],
        "lr": [scale.learning_rate],
        "beta1": [scale.beta1],
        "beta2": [scale.beta2],
        "eps": [scale.epsilon],
        "wd": [scale.weight_decay],
        "warmup": [scale.warmup],
        "lr-scheduler": [schedule],
        "epochs-cooldown": [scale.cooldown_checkpoints],
        "lr-cooldown-end": [0.0],
        "lr-cooldown-power": [1.0],
        "precision": [scale.precision if device.gpus else "fp32"],
        "device": ["cuda" if device.gpus else "cpu"],
        "seed": [run.seed],
        "logs": [folder.parent],
        "name": [folder.name],
        "save-frequency": [1],
        "resume": ["latest"],
        "report-to": [""],
        "log-every-n-steps": [log_every],
    }
    if scale.grad_clip_norm is not None:
        values["grad-clip-norm"] = [scale.grad_clip_norm]
    switches = ["dataset-resampled", "local-loss", "gather-with-grad"]
    switches += ["grad-checkpointing"] if scale.grad_checkpointing else []
    switches += ["ddp-static-graph"] if device.gpus > 1 else []
    given = [[f"--{name}", *map(str, value)] for name, value in values.items()]
    return [*(word for words in given for word in words), *(f"--{name}" for name in switches)]


def peak_gpu_memory(folder: Path) -> int | None:
    """The most memory that a GPU of a run has held, in MiB; None if there was none."""
    found = [read_record(path) for path in folder.glob(_MEMORY.replace(".", "-*."))]
    return max((round(one["bytes"] / 2**20) for one in found if one), default=None)


def _follow(
    output: Iterable[str], run: Run, folder: Path, device: Device, report: Callable[[LogLine], None]
) -> list[str]:
    """Read what a trainer says to its end; returns its last lines.

    Raises:
        TrainingError: the loss is no number any more, or a shard cannot be read.
    """
    last: deque[str] = deque(maxlen=_LAST_LINES)
    read = log_reader(run.scale, device)
    for text in output:
        last.append(text.rstrip())
        if lost := _LOST.search(text):
            # It would look for the shard for ever.
            raise TrainingError(
                f"{run.key}: a shard cannot be read ({lost['error']}); "
                f"run: dqe materialize training_data/{run.data} --force"
            )
        line = read(text)
        if line is None:
            continue
        if not math.isfinite(line.loss):
            raise TrainingError(unstable(run.key, line.step, run.scale))
        append_line(folder, line)
        report(line)
    return list(last)


def log_reader(scale: Scale, device: Device) -> Callable[[str], LogLine | None]:
    """What makes lines of our log of those of open_clip_train, given in order; None of what is no line of its log."""
    rates, size = learning_rates(scale, device.steps(scale)), device.steps_per_checkpoint(scale)
    before = (-1, 0)

    def read(text: str) -> LogLine | None:
        nonlocal before
        match = _LINE.search(text)
        if match is None:
            return None
        epoch, inside = int(match["epoch"]), int(match["samples"]) // scale.batch_size
        steps = inside - (before[1] if before[0] == epoch else 0)
        before = (epoch, inside)
        step = epoch * size + inside
        return LogLine(
            step,
            step * scale.batch_size,
            float(match["loss"]),
            float(rates[step - 1]),
            float(match["scale"]),
            steps * float(match["batch"]),
            steps * float(match["data"]),
        )

    return read


def _end(process: subprocess.Popen[str]) -> None:
    """End a trainer and all that it has started; one that has ended is left as it is."""
    if process.poll() is not None:
        return
    # Each of its processes ends once its standard input does: see launcher.
    process.stdin.close()  # type: ignore[union-attr]
    try:
        process.wait(timeout=_ENDS_WITHIN_SECONDS)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
