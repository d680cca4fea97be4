"""What a step of a training is: its learning rate, and which samples it sees. Both follow from the step alone."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from dqe_assets.training.scales import Scale


def learning_rates(scale: Scale, steps: int) -> np.ndarray:
    """The learning rate of each step, float64 [steps], as open_clip's schedules give it."""
    from open_clip_train.scheduler import const_lr_cooldown, cosine_lr

    optimizer = _Recorded()
    if scale.schedule == "cosine":
        adjust = cosine_lr(optimizer, scale.learning_rate, scale.warmup, steps)
    else:
        cooldown = steps // scale.checkpoints * scale.cooldown_checkpoints
        adjust = const_lr_cooldown(optimizer, scale.learning_rate, scale.warmup, steps, cooldown)
    return np.array([adjust(step) for step in range(steps)])


class _Recorded:
    """Stands for an optimizer whose learning rate is not wanted."""

    param_groups: tuple[()] = ()


def batch_order(samples: int, scale: Scale, seed: int, step: int) -> np.ndarray:
    """Which samples a step sees: int64 [batch].

    The samples are gone through pass after pass, each in an order of its own. A batch may reach into the next pass.

    Args:
        samples: how many there are.
        scale: the scale.
        seed: of the orders.
        step: from 0.
    """
    place, end, parts = step * scale.batch_size, (step + 1) * scale.batch_size, []
    while place < end:
        number, begin = divmod(place, samples)
        part = _order(samples, seed, number)[begin : begin + end - place]
        parts.append(part)
        place += len(part)
    return np.concatenate(parts)


@lru_cache(maxsize=2)
def _order(samples: int, seed: int, number: int) -> np.ndarray:
    return np.random.default_rng((seed, 0, number)).permutation(samples)


def drawn(chances: np.ndarray, seed: int, step: int) -> np.ndarray:
    """Which of its captions each sample of a step is trained with: int64 [batch].

    Args:
        chances: of each caption, float [batch, kinds]; those of a sample add up to 1.
        seed: of the draws.
        step: from 0.
    """
    draws = np.random.default_rng((seed, 1, step)).random((len(chances), 1))
    # The last that has a chance at all, should rounding leave the sum below a draw.
    last = chances.shape[1] - 1 - np.argmax(chances[:, ::-1] > 0, axis=1)
    return np.minimum((draws >= chances.cumsum(axis=1)).sum(axis=1), last)
