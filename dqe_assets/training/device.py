"""What a run is trained by, and on: this process and a core for toy scales, GPUs for all others."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from dqe_assets.training.cost import TOY_FLOPS, flops_per_sample, gpu_hours, is_toy
from dqe_assets.training.loop import TrainingError

if TYPE_CHECKING:
    from dqe_assets.training.scales import Scale
    from dqe_assets.training.settings import Run, Training

THIS_PROCESS = "this_process"


@dataclass(frozen=True, slots=True)
class Device:
    """What a run is trained by, and on.

    Attributes:
        trainer: ``this_process`` or ``open_clip_train``.
        gpus: how many; 0 for a CPU.
        workers: loader processes of each GPU.
    """

    trainer: str
    gpus: int
    workers: int

    def steps_per_checkpoint(self, scale: Scale) -> int:
        """Steps from one checkpoint to the next: open_clip gives each loader process as many."""
        return -(-scale.steps_per_checkpoint // self.workers) * self.workers

    def steps(self, scale: Scale) -> int:
        """Steps of the whole training."""
        return self.steps_per_checkpoint(scale) * scale.checkpoints


def gpus_here() -> int:
    """How many GPUs this machine has."""
    import torch

    return int(torch.cuda.device_count())


def chosen_device(run: Run, architecture: str, training: Training, there: int) -> Device:
    """What to train a run by, and on.

    Args:
        run: the run.
        architecture: open_clip's name of its model, or the path of a configuration.
        training: the settings.
        there: how many GPUs this machine has.

    Raises:
        TrainingError: there is no GPU for a scale that needs one, or its batch cannot be divided among the GPUs.
        OpenClipError: there is no such model.
    """
    toy = is_toy(architecture, run.scale)
    if training.trainer == THIS_PROCESS or (training.trainer == "auto" and toy):
        return Device(THIS_PROCESS, 0, 1)
    gpus = there if training.gpus is None else training.gpus
    if gpus > there or (not gpus and not toy):
        hours, operations = gpu_hours(architecture, run.scale), flops_per_sample(architecture) * run.scale.samples_seen
        found = f"{there} of the {gpus} GPUs of training.gpus" if gpus > there else "no GPU"
        raise TrainingError(
            f"{run.key}: this machine has {found}. The scale {run.scale_name} takes about {hours:,.3g} hours of an "
            f"A100 ({operations:.1e} floating-point operations). Train it where there are GPUs, or choose a scale of "
            f"your own of at most {TOY_FLOPS:.0e} operations, which a core does in a few hours: docs/training.md"
        )
    if gpus and run.scale.batch_size % gpus:
        raise TrainingError(
            f"{run.key}: a batch of {run.scale.batch_size:,} cannot be divided among {gpus} GPUs; set training.gpus to "
            "a divisor of it"
        )
    return Device("open_clip_train", gpus, training.workers)
