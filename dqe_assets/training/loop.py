"""Training in this process, for toy scales: the steps of open_clip_train, on pictures and tokens that are in memory.

One thread takes all steps: at these sizes two are slower, and two runs side by side are not. The same seed gives the
same weights to the last bit on the same kind of machine, whether a run was killed or not.
"""

from __future__ import annotations

import logging
import math
import random
import time
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from dqe_assets.training.checkpoints import checkpoint_path, checkpoints, read_checkpoint, write_checkpoint
from dqe_assets.training.loss_log import LogLine, append_line, keep_log
from dqe_assets.training.schedule import batch_order, drawn, learning_rates
from dqe_resources.errors import DataQualityError
from dqe_resources.models.open_clip_loading import import_open_clip, registered_name

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from dqe_assets.training.scales import Scale

RESUME = "resume.pt"
"""All that the next step depends on; there only while a run trains in this process."""

_SAVED_EVERY_SECONDS = 30.0


class TrainingError(DataQualityError):
    """A training cannot go on: says why, and what to do."""


@dataclass(frozen=True)
class Examples:
    """What is trained on, in memory.

    Attributes:
        images: uint8 [n, height, width, 3].
        tokens: int32 [n, kinds, context]: of each of a sample's captions.
        chances: of each caption to be drawn, float64 [n, kinds]; those of a sample add up to 1.
        mean: what is subtracted of each colour, of 0 to 1.
        std: what it is then divided by.
    """

    images: np.ndarray
    tokens: np.ndarray
    chances: np.ndarray
    mean: tuple[float, float, float]
    std: tuple[float, float, float]


class Trainer:
    """A model, its optimizer, and the step that changes them: as in open_clip_train, to rounding.

    Attributes:
        model: open_clip's.
        optimizer: AdamW.
    """

    def __init__(self, architecture: str, scale: Scale, seed: int, start: Path | None = None) -> None:
        import torch

        open_clip = import_open_clip()
        random.seed(seed)
        np.random.seed(seed)  # noqa: NPY002 - what open_clip_train seeds before it makes the model
        torch.manual_seed(seed)
        self.model = new_model(registered_name(architecture))
        torch.manual_seed(seed)
        if start is not None:
            self.model.load_state_dict(read_checkpoint(start)["state_dict"])
        self.optimizer = torch.optim.AdamW(
            parameter_groups(self.model, scale.weight_decay),
            lr=scale.learning_rate,
            betas=(scale.beta1, scale.beta2),
            eps=scale.epsilon,
            fused=True,
        )
        self._loss = open_clip.ClipLoss()
        self._grad_clip_norm = scale.grad_clip_norm
        self.model.train()

    def step(self, images: Any, tokens: Any, learning_rate: float) -> float:
        """Take a step; returns its loss.

        Args:
            images: float32 tensor [batch, 3, height, width], normalised.
            tokens: int tensor [batch, context].
            learning_rate: of this step.
        """
        import torch

        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate
        self.optimizer.zero_grad()
        loss = self._loss(**self.model(images, tokens))
        loss.backward()
        if self._grad_clip_norm is not None:
            torch.nn.utils.clip_grad_norm_(self.model.parameters(), self._grad_clip_norm, norm_type=2.0)
        self.optimizer.step()
        with torch.no_grad():
            self.model.logit_scale.clamp_(0, math.log(100))
        return float(loss.item())

    @property
    def logit_scale(self) -> float:
        """What a cosine is multiplied by."""
        return math.exp(self.model.logit_scale.item())

    def state(self) -> dict[str, Any]:
        """All that the next steps depend on."""
        import torch

        return {
            "state_dict": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "rng": torch.get_rng_state(),
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from a state."""
        import torch

        self.model.load_state_dict(state["state_dict"])
        self.optimizer.load_state_dict(state["optimizer"])
        torch.set_rng_state(state["rng"])


def new_model(name: str, device: str = "cpu") -> Any:
    """A model of open_clip with random weights."""
    logging.disable(logging.WARNING)  # It would warn that it has no weights.
    try:
        return import_open_clip().create_model(name, precision="fp32", device=device, output_dict=True)
    finally:
        logging.disable(logging.NOTSET)


def parameter_groups(model: Any, weight_decay: float) -> list[dict[str, Any]]:
    """The parameters as open_clip_train groups them: gains, biases and the temperature do not decay."""
    kept: list[Any] = []
    decayed: list[Any] = []
    for name, parameter in model.named_parameters():
        without = parameter.ndim < 2 or any(part in name for part in ("bn", "ln", "bias", "logit_scale"))
        (kept if without else decayed).append(parameter)
    return [{"params": kept, "weight_decay": 0.0}, {"params": decayed, "weight_decay": weight_decay}]


def train(
    examples: Examples,
    architecture: str,
    folder: Path,
    *,
    scale: Scale,
    seed: int,
    start: Path | None = None,
    log_every: int = 100,
    report: Callable[[LogLine], None] = lambda _: None,
) -> None:
    """Train to the end, from wherever the folder's checkpoints are.

    Args:
        examples: what is trained on.
        architecture: open_clip's name of the model, or the path of a configuration.
        folder: for the checkpoints and the log; what is there is of this very training.
        scale: how much, and with which hyperparameters.
        seed: of the weights and of the order.
        start: a checkpoint whose weights it starts from.
        log_every: steps between two lines of the log.
        report: is told each line.

    Raises:
        TrainingError: the loss is no number any more.
    """
    resume = folder / RESUME
    if len(checkpoints(folder)) == scale.checkpoints:
        resume.unlink(missing_ok=True)
        return
    with _one_thread():
        trainer = Trainer(architecture, scale, seed, start)
        step = 0
        if resume.exists():
            state = read_checkpoint(resume)
            trainer.restore(state)
            step = state["step"]
        keep_log(folder, step)
        rates = learning_rates(scale, scale.steps)
        losses: list[float] = []
        waited, began = 0.0, time.monotonic()
        saved = began
        make_batch = _batches(examples, scale, seed)
        while step < scale.steps:
            before = time.monotonic()
            batch = make_batch(step)
            waited += time.monotonic() - before
            losses.append(trainer.step(*batch, float(rates[step])))
            step += 1
            number, inside = divmod(step, scale.steps_per_checkpoint)
            if step % log_every and inside:
                continue
            line = LogLine(
                step,
                step * scale.batch_size,
                math.fsum(losses) / len(losses),
                float(rates[step - 1]),
                trainer.logit_scale,
                time.monotonic() - began,
                waited,
            )
            if not math.isfinite(line.loss):
                raise TrainingError(unstable(folder.name, step, scale))
            losses, waited, began = [], 0.0, time.monotonic()
            append_line(folder, line)
            report(line)
            if not inside:
                weights = {"epoch": number, "name": folder.name, "state_dict": trainer.model.state_dict()}
                write_checkpoint(checkpoint_path(folder, number), weights)
            if not inside or began - saved > _SAVED_EVERY_SECONDS:
                write_checkpoint(resume, {"step": step, **trainer.state()})
                saved = began
    resume.unlink()


def unstable(run: str, step: int, scale: Scale) -> str:
    """What is said of a training whose loss is no number any more."""
    return (
        f"{run}: the loss is no number after {step:,} steps; lower the learning rate ({scale.learning_rate:g}) or "
        f"lengthen the warm-up ({scale.warmup} steps)"
    )


def _batches(examples: Examples, scale: Scale, seed: int) -> Callable[[int], tuple[Any, Any]]:
    """What gives images, normalised, and tokens of a step."""
    import torch

    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (examples.mean, examples.std))
    kinds = examples.tokens.shape[1]

    def batch(step: int) -> tuple[Any, Any]:
        rows = batch_order(len(examples.images), scale, seed, step)
        which = drawn(examples.chances[rows], seed, step) if kinds > 1 else 0
        pixels = torch.from_numpy(examples.images[rows]).permute(0, 3, 1, 2).contiguous()
        # Step by step as open_clip's transforms do it: another order rounds otherwise.
        return pixels.float().div_(255).sub_(mean).div_(std), torch.from_numpy(examples.tokens[rows, which])

    return batch


@contextmanager
def _one_thread() -> Iterator[None]:
    """Train on one thread, and leave threads and random numbers of this process as they were."""
    import torch

    threads, states = torch.get_num_threads(), (random.getstate(), np.random.get_state())  # noqa: NPY002
    torch.set_num_threads(1)
    try:
        with torch.random.fork_rng(devices=[]):
            yield
    finally:
        torch.set_num_threads(threads)
        random.setstate(states[0])
        np.random.set_state(states[1])  # noqa: NPY002
