"""Samples a second in training: of this platform, and of open_clip's bare loop on tensors that are ready.

    python -m benchmarks.training [--rounds 5] [--gpu-steps 60]

On a CPU, at a toy scale: a ModifiedResNet of width 8 with layers [1, 1, 1, 1] at 32 pixels and a text tower of width 64
with one layer and 12 tokens, batch 256, on one thread.

- bare: ``train_one_epoch`` of open_clip_train on batches that are ready in memory. It reads, decodes and keeps nothing.
- steps: what the asset ``training_run`` does from its first line of the log on, with its own batches, log and
  checkpoints.
- whole: the same from the shards on: pictures decoded, captions cut into tokens, the model made.

Figures are samples for a second of processor time, the median of several rounds in turn: other work on the machine
changes them less than samples for a second.

On a GPU, where there is one: a ViT-B/32 at a batch of 4,096 by open_clip_train, as ``training_run`` starts it, on
shards of generated pictures of 256 pixels; and the share of the time in which it waits for its loaders.
"""

from __future__ import annotations

import argparse
import io
import json
import time
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from benchmarks.common import data_folder, publish
from dqe_assets.training.checkpoints import checkpoints
from dqe_assets.training.data import TrainingData, open_data, write_data
from dqe_assets.training.device import Device, gpus_here
from dqe_assets.training.loader import load_examples
from dqe_assets.training.loop import Trainer, parameter_groups, train
from dqe_assets.training.loss_log import read_log
from dqe_assets.training.open_clip_run import peak_gpu_memory, train_with_open_clip
from dqe_assets.training.reshard import plan_shards
from dqe_assets.training.samples import Sample
from dqe_assets.training.scales import SCALES, Scale
from dqe_assets.training.settings import Run

if TYPE_CHECKING:
    from collections.abc import Container, Iterator

    from dqe_assets.training.loop import Examples
    from dqe_assets.training.loss_log import LogLine

MODEL = {
    "embed_dim": 64,
    "vision_cfg": {"image_size": 32, "layers": [1, 1, 1, 1], "width": 8},
    "text_cfg": {"context_length": 12, "vocab_size": 49408, "width": 64, "heads": 2, "layers": 1},
}
TOY = Scale(model=MODEL, samples_seen=12_800, batch_size=256, warmup=10, checkpoints=5)
SAMPLES = 3_000
LOADERS = (4, 8, 16)
WORDS = ("red", "green", "blue", "small", "large", "old", "new", "car", "house", "tree", "dog", "boat", "road", "river")


class Generated:
    """Samples whose pictures and captions are drawn at random."""

    name = "generated"

    def __init__(self, count: int, size: int) -> None:
        self._count, self._size = count, size

    def uids(self) -> list[str]:
        """A uid for each."""
        return [f"{number:032x}" for number in range(self._count)]

    def read(self, wanted: Container[str]) -> Iterator[Sample]:
        """Those that are wanted: coarse noise, which a JPEG keeps about as small as a photo."""
        for number, uid in enumerate(self.uids()):
            if uid not in wanted:
                continue
            chance = np.random.default_rng(number)
            coarse = Image.fromarray(chance.integers(0, 256, (self._size // 8, self._size // 8, 3), np.uint8))
            file = io.BytesIO()
            coarse.resize((self._size, self._size), Image.Resampling.BICUBIC).save(file, "JPEG", quality=90)
            text = " ".join(chance.choice(WORDS, 6))
            yield Sample(uid, {"jpg": file.getvalue(), "txt": text.encode(), "json": json.dumps({"uid": uid}).encode()})


def generated(name: str, count: int, size: int, samples_per_shard: int) -> TrainingData:
    """Shards of generated samples."""
    part = Generated(count, size)
    uids = np.zeros(count, "u8,u8")
    uids["f1"] = np.arange(count)
    write_data(name, plan_shards(uids, [part], samples_per_shard), {})
    return open_data(name)


@contextmanager
def one_thread() -> Iterator[None]:
    """The bare loop is measured as ours is: on one thread."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def bare(examples: Examples, architecture: str) -> float:
    """Samples for a second of processor time of open_clip_train's epoch, on batches that are ready."""
    import open_clip
    import torch
    from open_clip_train.scheduler import cosine_lr
    from open_clip_train.train import train_one_epoch

    model = Trainer(architecture, TOY, 0).model
    optimizer = torch.optim.AdamW(
        parameter_groups(model, TOY.weight_decay), lr=TOY.learning_rate, betas=(TOY.beta1, TOY.beta2), eps=TOY.epsilon
    )
    rows = np.random.default_rng(0).permutation(len(examples.images))[: TOY.batch_size * 4].reshape(4, -1)
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (examples.mean, examples.std))
    ready = [
        (
            ((torch.from_numpy(examples.images[one]).permute(0, 3, 1, 2) / 255 - mean) / std).contiguous(),
            torch.from_numpy(examples.tokens[one, 0]).long(),
        )
        for one in rows
    ]

    class Loader(list[Any]):
        num_batches, num_samples = TOY.steps, TOY.steps * TOY.batch_size

    loader = Loader(ready[step % len(ready)] for step in range(TOY.steps))
    data = {"train": SimpleNamespace(dataloader=loader, set_epoch=lambda _: None)}
    arguments = argparse.Namespace(
        device="cpu", precision="fp32", distill=False, accum_freq=1, skip_scheduler=False, horovod=False,
        grad_clip_norm=None, rank=0, local_rank=0, world_size=1, log_every_n_steps=100, batch_size=TOY.batch_size,
        wandb=False, log_local=False,
    )  # fmt: skip
    schedule = cosine_lr(optimizer, TOY.learning_rate, TOY.warmup, TOY.steps)
    with one_thread():
        started = time.process_time()
        train_one_epoch(model, data, open_clip.ClipLoss(), 0, optimizer, None, schedule, None, arguments)
        return TOY.steps * TOY.batch_size / (time.process_time() - started)


def ours(data: TrainingData, architecture: str) -> tuple[float, float]:
    """Samples for a second of processor time: from the first line of the log on, and from the shards on."""
    for cached in data.folder.glob("pixels-*"):
        cached.unlink()
    marks: list[tuple[int, float]] = []

    def report(line: LogLine) -> None:
        marks.append((line.samples_seen, time.process_time()))

    with TemporaryDirectory() as folder:
        started = time.process_time()
        examples = load_examples(data, architecture, [("original", 1.0)])
        train(examples, architecture, Path(folder), scale=TOY, seed=0, log_every=5, report=report)
        ended = time.process_time()
        if len(checkpoints(Path(folder))) != TOY.checkpoints:
            raise RuntimeError("not every checkpoint was written")
    (first, began), (last, _) = marks[0], marks[-1]
    return (last - first) / (ended - began), last / (ended - started)


def on_cpu(rounds: int) -> None:
    """Measure the toy scale, the bare loop and ours in turn."""
    with data_folder() as folder:
        architecture = folder / "toy.json"
        architecture.write_text(json.dumps(MODEL))
        data = generated("toy", SAMPLES, 32, 1_000)
        examples = load_examples(data, str(architecture), [("original", 1.0)])
        found: dict[str, list[float]] = {"bare": [], "steps": [], "whole": []}
        for _ in range(rounds):
            found["bare"].append(bare(examples, str(architecture)))
            steps, whole = ours(data, str(architecture))
            found["steps"].append(steps)
            found["whole"].append(whole)
        reference = median(found["bare"])
        rows = [
            {"what": what, "samples_per_cpu_second": median(rates), "of_bare": median(rates) / reference}
            for what, rates in found.items()
        ]
        publish("training", ["what", "samples_per_cpu_second", "of_bare"], rows, "Toy scale on one core")


def on_gpu(steps: int) -> None:
    """Measure ViT-B/32 at DataComp's small batch, on all GPUs of this machine."""
    gpus, small = gpus_here(), SCALES["small"]
    scale = small.model_copy(update={"samples_seen": steps * small.batch_size, "checkpoints": 1, "warmup": 10})
    rows = []
    with data_folder() as folder:
        data = generated("generated", 32_768, 256, 1_024)
        for workers in LOADERS:
            device = Device("open_clip_train", gpus, workers)
            key = f"generated-{workers}"
            target = folder / "training" / key
            target.mkdir(parents=True)
            run = Run(key, "all", (("original", 1.0),), "small", scale, 0, None)
            train_with_open_clip(run, data, str(scale.model), target, device, log_every=10, report=lambda _: None)
            # The first lines wait for loaders to start.
            log = read_log(target)[2:]
            seconds = sum(line.seconds for line in log)
            seen = log[-1].samples_seen - read_log(target)[1].samples_seen
            rows.append(
                {
                    "workers": workers,
                    "gpus": gpus,
                    "samples_per_second": seen / seconds,
                    "share_waited": sum(line.waited for line in log) / seconds,
                    "peak_gpu_memory_mib": peak_gpu_memory(target),
                }
            )
    columns = ["workers", "gpus", "samples_per_second", "share_waited", "peak_gpu_memory_mib"]
    publish("training_gpu", columns, rows, "ViT-B/32, batch 4,096, by open_clip_train")


def main() -> None:
    """Measure what this machine can."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5, help="rounds on the CPU")
    parser.add_argument("--gpu-steps", type=int, default=60, help="steps on a GPU for each number of loaders")
    arguments = parser.parse_args()
    on_cpu(arguments.rounds)
    if gpus_here():
        on_gpu(arguments.gpu_steps)
    else:
        print("no GPU here: its figures are left out")


if __name__ == "__main__":
    main()
