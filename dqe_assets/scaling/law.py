"""The scaling law for data filtering: the error after training on a pool, or on a mixture of pools.

The law is that of Goyal, Maini, Lipton, Raghunathan and Kolter, "Scaling Laws for Data Filtering: Data Curation cannot
be Compute Agnostic" (CVPR 2024, arXiv 2404.07177). A pool has a utility ``b`` < 0, whose half-life is ``tau`` epochs.
With ``n_j`` the samples seen by the end of epoch ``j`` (the last one may be partial), in units of 100,000::

    error = a * n_1^{b_1} * prod_{j=2..k} (n_j / n_{j-1})^{b_j} + d        with  b_j = b * (1/2)^{(j-1) / tau}

In a mixture an epoch is a pass over the union, ``b_j`` is the mean of the pools' own, and each half-life grows, since a
sample comes again after more others: p pools of one size make each ``tau`` into ``p * tau``. Pools of unequal sizes
``N_i``, sampled uniformly from their union of ``M`` samples, generalise this in the one way that makes a mixture of
mixtures the mixture of all their pools: the mean is weighted by ``N_i / M``, and ``tau_i`` becomes ``tau_i * M / N_i``.

Everything here is NumPy alone, and a function gives the same result for the same arguments.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import ArrayLike, NDArray

    Array = NDArray[np.float64]

UNIT = 100_000
"""Samples are counted in this many."""

PARAMETERS = ("a", "b", "tau", "d")
MOST_EPOCHS = 1_000_000


@dataclass(frozen=True, slots=True)
class PoolUtility:
    """The parameters of the law for one pool.

    Attributes:
        a: scale: error above ``d`` after ``unit`` samples, all seen for the first time.
        b: utility of a sample that is new, < 0: the more negative, the better the pool.
        tau: passes over the pool after which its utility has halved, > 0; ``inf`` for no decay.
        d: error that no amount of data removes.
    """

    a: float
    b: float
    tau: float
    d: float

    def __post_init__(self) -> None:
        if not (math.isfinite(self.a) and self.a > 0):
            raise ValueError(f"a is {self.a}, it must be above 0")
        if not (math.isfinite(self.b) and self.b < 0):
            raise ValueError(f"b is {self.b}, it must be below 0")
        if not self.tau > 0:
            raise ValueError(f"tau is {self.tau}, it must be above 0 (inf for no decay)")
        if not (math.isfinite(self.d) and self.d >= 0):
            raise ValueError(f"d is {self.d}, it must be 0 or more")

    def utility(self, epoch: ArrayLike) -> Array:
        """The utility ``b_j`` in each epoch ``j``, from 1."""
        return self.b * np.exp2(-(np.asarray(epoch, dtype=np.float64) - 1) / self.tau)


def predict_error(pool: PoolUtility, samples_seen: ArrayLike, pool_size: float, unit: float = UNIT) -> Array:
    """The error after training on one pool.

    Args:
        pool: its parameters.
        samples_seen: samples seen in training, repetitions counted, of any shape, each > 0.
        pool_size: samples in the pool.
        unit: samples are counted in this many.

    Returns:
        The error, in the shape of ``samples_seen``.

    Raises:
        ValueError: a number is not positive, or there are more than ``MOST_EPOCHS`` epochs.
    """
    return predict_mixture_error([pool], samples_seen, pool_size, unit)


def predict_mixture_error(
    pools: Sequence[PoolUtility], samples_seen: ArrayLike, pool_size: ArrayLike, unit: float = UNIT
) -> Array:
    """The error after training on samples drawn uniformly from the union of pools (theorem 1 of the paper).

    Args:
        pools: the pools' parameters, ``a`` and ``d`` the same for all.
        samples_seen: samples seen in training, over all pools, of any shape, each > 0.
        pool_size: samples in each pool: one number for pools of equal size, or one for each. See the module for
            what is done where they differ.
        unit: samples are counted in this many.

    Returns:
        The error, in the shape of ``samples_seen``.

    Raises:
        ValueError: ``a`` or ``d`` differ, a number is not positive, or there are more than ``MOST_EPOCHS`` epochs.
    """
    if not pools:
        raise ValueError("a mixture needs at least one pool")
    parameters = np.array([[pool.a, pool.b, pool.tau, pool.d] for pool in pools])
    for name, values in (("a", parameters[:, 0]), ("d", parameters[:, 3])):
        if not np.allclose(values, values[0], rtol=1e-9, atol=0):
            raise ValueError(f"the pools of a mixture share {name}, these have {', '.join(f'{v:g}' for v in values)}")
    seen = positive("samples_seen", samples_seen)
    sizes = positive("pool_size", np.broadcast_to(np.asarray(pool_size, dtype=np.float64), len(pools)))
    error: Array = mixture_errors(parameters[None], seen.ravel(), sizes, unit)[0].reshape(seen.shape)
    return error


def mixture_errors(draws: Array, samples_seen: Array, pool_sizes: Array, unit: float = UNIT) -> Array:
    """``predict_mixture_error`` for many sets of parameters at once, which are not checked.

    Args:
        draws: (a, b, tau, d) of each pool in each set, [r, p, 4]; ``a`` and ``d`` are taken from the first pool.
        samples_seen: [n].
        pool_sizes: samples in each pool, [p].
        unit: samples are counted in this many.

    Returns:
        The errors, [r, n].
    """
    union = float(pool_sizes.sum())
    epoch = np.arange(epochs_begun(samples_seen, union), dtype=np.float64)
    utility = np.zeros((len(draws), len(epoch)))
    for place, size in enumerate(pool_sizes):
        b, tau = draws[:, place, 1, None], draws[:, place, 2, None] * (union / size)
        utility += size / union * b * np.exp2(-epoch / tau)
    return draws[:, 0, 0, None] * np.exp(accumulated(utility, samples_seen, union, unit)) + draws[:, 0, 3, None]


def effective_data(pool: PoolUtility, samples_seen: ArrayLike, pool_size: float, unit: float = UNIT) -> Array:
    """The error by the law of effective data of Muennighoff et al. (arXiv 2305.16264), in the same parameters.

    There it is not the exponent that decays but the worth of a sample: the j-th time that it is seen, it counts as
    ``(1/2)^{(j-1)/tau}`` of a new one, and ``error = a * D^b + d`` with ``D`` the sum of what all of them count. Their
    form is ``D = U + U R* (1 - e^{-R/R*})`` for ``U`` samples repeated ``R`` times, the continuous limit of this sum
    with ``R* = tau / ln 2``. To be compared with ``predict_error``, whose arguments and errors are the same.
    """
    seen = positive("samples_seen", samples_seen)
    size = float(positive("pool_size", pool_size))
    weights = np.exp2(-np.arange(epochs_begun(seen, size), dtype=np.float64) / pool.tau)
    counted = effective_samples(weights, seen.ravel(), size).reshape(seen.shape) / unit
    error: Array = pool.a * counted**pool.b + pool.d
    return error


def pairs_seen(samples_seen: ArrayLike, batch_size: float) -> Array:
    """Image-text pairs that a contrastive loss compared: a batch of B samples makes B squared of them, so n B in all.

    Args:
        samples_seen: samples seen in training, of any shape.
        batch_size: samples in a batch.
    """
    return positive("samples_seen", samples_seen) * float(positive("batch_size", batch_size))


def at_batch_size(pool: PoolUtility, measured_at: float, batch_size: float) -> PoolUtility:
    """A pool's parameters for contrastive training with another batch size than that they were measured at.

    By the count of pairs that the paper argues with. n samples in batches of B make n B comparisons, so at another
    batch size a sample counts as ``batch_size / measured_at`` samples: ``a`` takes up that factor to the power ``b``.
    A pool of N samples has N squared distinct pairs, of which an epoch shows N B: an epoch of larger batches uses up
    more of them, so ``tau`` shrinks by the factor. The same count makes each ``tau`` of a mixture of p pools
    ``p * tau``: p squared as many distinct pairs, of which an epoch shows p times as many.

    Since ``a`` then depends on ``b``, pools changed in this way have no common ``a`` and cannot be mixed. What this
    leaves out: the learning rate that goes with a batch size, harder negatives in larger batches, gradient noise. Where
    it matters, measure at the batch size that is to be used.

    Args:
        pool: the parameters as measured.
        measured_at: samples in a batch when they were measured.
        batch_size: samples in a batch for which they are wanted.
    """
    factor = float(positive("batch_size", batch_size) / positive("measured_at", measured_at))
    return PoolUtility(pool.a * factor**pool.b, pool.b, pool.tau / factor, pool.d)


def positive(name: str, values: ArrayLike) -> Array:
    """The values as float64.

    Raises:
        ValueError: one is not a number above 0; says the name.
    """
    array = np.asarray(values, dtype=np.float64)
    if array.size and not (np.isfinite(array) & (array > 0)).all():
        wrong = array[~(np.isfinite(array) & (array > 0))].flat[0]
        raise ValueError(f"{name} is {wrong:g}, it must be a number above 0")
    return array


def epochs_begun(samples_seen: Array, epoch: float) -> int:
    """How many passes over ``epoch`` samples are begun."""
    passes = math.ceil(float(np.max(samples_seen, initial=epoch)) / epoch)
    if passes > MOST_EPOCHS:
        raise ValueError(f"{passes:,} passes over {epoch:,.0f} samples are more than {MOST_EPOCHS:,}")
    return passes


def _place(samples_seen: Array, epoch: float, epochs: int) -> NDArray[np.int64]:
    """The pass that each point lies in, from 0."""
    return np.clip(np.ceil(samples_seen / epoch).astype(np.int64) - 1, 0, epochs - 1)


def accumulated(utility: Array, samples_seen: Array, epoch: float, unit: float) -> Array:
    """``sum_j utility_j * ln(n_j / n_{j-1})``, with the samples' unit as ``n_0``.

    Args:
        utility: utility in each epoch, [..., k].
        samples_seen: [n], in at most k epochs.
        epoch: samples in an epoch.
        unit: the unit of the first epoch.

    Returns:
        [..., n].
    """
    epochs = utility.shape[-1]
    place = _place(samples_seen, epoch, epochs)
    growth = np.log1p(1 / np.arange(1, epochs))
    whole = np.zeros_like(utility)
    np.cumsum(utility[..., 1:] * growth, axis=-1, out=whole[..., 1:])
    later = place > 0
    before = np.maximum(place - 1, 0)
    last = np.where(later, np.log(samples_seen / (np.maximum(place, 1) * epoch)), 0.0)
    first = np.log(np.minimum(samples_seen, epoch) / unit)
    return utility[..., :1] * first + np.where(later, whole[..., before], 0.0) + utility[..., place] * last


def effective_samples(weights: Array, samples_seen: Array, epoch: float) -> Array:
    """``sum_j weights_j * (n_j - n_{j-1})``: weights [..., k], samples_seen [n], result [..., n]."""
    place = _place(samples_seen, epoch, weights.shape[-1])
    whole = np.cumsum(weights, axis=-1) - weights
    return epoch * whole[..., place] + weights[..., place] * (samples_seen - place * epoch)
