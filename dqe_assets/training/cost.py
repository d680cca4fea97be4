"""What a training costs, from its model and its scale alone; and which trainings a CPU can do."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

from dqe_assets.training.loop import new_model
from dqe_resources.models.open_clip_loading import registered_name

if TYPE_CHECKING:
    from dqe_assets.training.scales import Scale

TOY_FLOPS = 2e14
"""The most arithmetic that is trained in this process: about three hours of one core at 20 GFLOP/s."""

_BACKWARD = 3
"""A training step's arithmetic in forward passes: the pass back costs two more."""

_GPU_FLOPS = 312e12
"""An A100 in bf16."""

_GPU_USE = 0.13
"""What is reached of that. So, DataComp's scales come out at 0.6 to 1.1 times the hours that its paper gives."""


@lru_cache(maxsize=32)
def flops_per_sample(architecture: str) -> float:
    """Arithmetic of one sample in training, in floating-point operations.

    Args:
        architecture: open_clip's name of the model, or the path of a configuration.

    Raises:
        OpenClipError: there is no such model.
        PackageError: open_clip is not installed.
    """
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    name = registered_name(architecture)
    # Tensors without contents: nothing is computed, only counted.
    with torch.device("meta"):
        model = new_model(name, device="meta")
        size = np.broadcast_to(model.visual.image_size, 2).tolist()
        with FlopCounterMode(display=False) as counter:
            # Two samples: batch normalisation needs more than one.
            model(torch.zeros(2, 3, *size), torch.zeros(2, model.context_length, dtype=torch.int64))
    return float(_BACKWARD * counter.get_total_flops() / 2)


def is_toy(architecture: str, scale: Scale) -> bool:
    """Whether a training is so small that this process does it, on one core."""
    return flops_per_sample(architecture) * scale.samples_seen <= TOY_FLOPS


def gpu_hours(architecture: str, scale: Scale) -> float:
    """About how many hours of an A100 a training takes."""
    return flops_per_sample(architecture) * scale.samples_seen / (_GPU_FLOPS * _GPU_USE) / 3600
