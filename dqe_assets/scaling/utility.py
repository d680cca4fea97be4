"""Scaling laws for data filtering: what a pool of data is worth, and which pools to train on for a given compute.

The law is that of Goyal, Maini, Lipton, Raghunathan and Kolter, "Scaling Laws for Data Filtering: Data Curation cannot
be Compute Agnostic" (CVPR 2024, arXiv 2404.07177). A pool has a utility ``b`` < 0, whose half-life is ``tau`` epochs.
With ``n_j`` the samples seen by the end of epoch ``j`` (the last one may be partial), in units of 100,000::

    error = a * n_1^{b_1} * prod_{j=2..k} (n_j / n_{j-1})^{b_j} + d        with  b_j = b * (1/2)^{(j-1) / tau}

In a mixture an epoch is a pass over the union, ``b_j`` is the mean of the pools' own, and each half-life grows, since a
sample comes again after more others: p pools of one size make each ``tau`` into ``p * tau``. Pools of unequal sizes
``N_i``, sampled uniformly from their union of ``M`` samples, generalise this in the one way that makes a mixture of
mixtures the mixture of all their pools: the mean is weighted by ``N_i / M``, and ``tau_i`` becomes ``tau_i * M / N_i``.

Everything here is NumPy and SciPy alone, and a function gives the same result for the same arguments.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from dqe_assets.scaling.least_squares import least_squares

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import ArrayLike, NDArray

    Array = NDArray[np.float64]

UNIT = 100_000
"""Samples are counted in this many."""

PARAMETERS = ("a", "b", "tau", "d")
LEVEL = 0.95
RESAMPLES = 1000
MOST_EPOCHS = 1_000_000
MOST_FITTED_EPOCHS = 10_000

LAWS = ("utility", "data")
Law = Literal["utility", "data"]

_BOUNDS = {"a": (1e-4, 1e3), "b": (1e-4, 3.0), "tau": (0.05, 1000.0)}
"""Where a fit looks: scale, utility (without its sign), half-life in epochs. ``d`` lies below the lowest error."""

_STARTS, _SCOUTING_STEPS, _FINALISTS = 24, 12, 3
_WIDE = 4.0
_CROSSING_GRID = 512


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


@dataclass(frozen=True, slots=True)
class PoolFit:
    """What a fit says of one pool.

    Attributes:
        pool: the parameters.
        intervals: the lowest and the highest value of each parameter that the data agree with, at ``level``.
        draws: the parameters (a, b, tau, d) fitted to each resampled data set, [resamples, 4].
        residual: root mean square of the differences of fitted and measured errors, over this pool's points.
        warnings: what the data cannot say, in words.
    """

    pool: PoolUtility
    intervals: dict[str, tuple[float, float]]
    draws: Array
    residual: float
    warnings: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class PoolsFit:
    """A joint fit of several pools with ``a`` and ``d`` in common.

    Attributes:
        pools: the fit of each pool, in the order given.
        residual: root mean square of the differences of fitted and measured errors, over all points.
        sum_of_squares: what the fit minimised.
        points: how many points were fitted.
        unknowns: how many parameters were estimated from them.
    """

    pools: tuple[PoolFit, ...]
    residual: float
    sum_of_squares: float
    points: int
    unknowns: int

    @property
    def warnings(self) -> tuple[str, ...]:
        """The warnings of all pools, each once."""
        return tuple(dict.fromkeys(warning for fit in self.pools for warning in fit.warnings))


@dataclass(frozen=True, slots=True)
class Crossing:
    """The compute from which another number of pools is best.

    Attributes:
        samples_seen: the compute.
        before: number of pools to keep below it.
        after: number of pools to keep above it.
    """

    samples_seen: float
    before: int
    after: int


@dataclass(frozen=True, slots=True)
class BestPools:
    """How many of the best pools to train on, at each compute.

    Attributes:
        order: positions of the pools as given, from the highest utility to the lowest, [p].
        keep: how many of ``order`` to keep at each compute, [m].
        error: predicted error of keeping 1, 2 ... p pools, [p, m].
        crossings: where the number to keep changes, between the least and the most compute.
    """

    order: NDArray[np.int64]
    keep: NDArray[np.int64]
    error: Array
    crossings: tuple[Crossing, ...]


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
    seen = _positive("samples_seen", samples_seen)
    sizes = _positive("pool_size", np.broadcast_to(np.asarray(pool_size, dtype=np.float64), len(pools)))
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
    epoch = np.arange(_epochs(samples_seen, union), dtype=np.float64)
    utility = np.zeros((len(draws), len(epoch)))
    for place, size in enumerate(pool_sizes):
        b, tau = draws[:, place, 1, None], draws[:, place, 2, None] * (union / size)
        utility += size / union * b * np.exp2(-epoch / tau)
    return draws[:, 0, 0, None] * np.exp(_accumulated(utility, samples_seen, union, unit)) + draws[:, 0, 3, None]


def effective_data(pool: PoolUtility, samples_seen: ArrayLike, pool_size: float, unit: float = UNIT) -> Array:
    """The error by the law of effective data of Muennighoff et al. (arXiv 2305.16264), in the same parameters.

    There it is not the exponent that decays but the worth of a sample: the j-th time that it is seen, it counts as
    ``(1/2)^{(j-1)/tau}`` of a new one, and ``error = a * D^b + d`` with ``D`` the sum of what all of them count. Their
    form is ``D = U + U R* (1 - e^{-R/R*})`` for ``U`` samples repeated ``R`` times, the continuous limit of this sum
    with ``R* = tau / ln 2``. To be compared with ``predict_error``, whose arguments and errors are the same.
    """
    seen = _positive("samples_seen", samples_seen)
    size = float(_positive("pool_size", pool_size))
    weights = np.exp2(-np.arange(_epochs(seen, size), dtype=np.float64) / pool.tau)
    counted = _effective_samples(weights, seen.ravel(), size).reshape(seen.shape) / unit
    error: Array = pool.a * counted**pool.b + pool.d
    return error


def pairs_seen(samples_seen: ArrayLike, batch_size: float) -> Array:
    """Image-text pairs that a contrastive loss compared: a batch of B samples makes B squared of them, so n B in all.

    Args:
        samples_seen: samples seen in training, of any shape.
        batch_size: samples in a batch.
    """
    return _positive("samples_seen", samples_seen) * float(_positive("batch_size", batch_size))


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
    factor = float(_positive("batch_size", batch_size) / _positive("measured_at", measured_at))
    return PoolUtility(pool.a * factor**pool.b, pool.b, pool.tau / factor, pool.d)


def fit_pool(  # noqa: PLR0913
    samples_seen: ArrayLike,
    error: ArrayLike,
    pool_size: float,
    *,
    a: float | None = None,
    d: float | None = None,
    law: Law = "utility",
    unit: float = UNIT,
    resamples: int = RESAMPLES,
    level: float = LEVEL,
    seed: int = 0,
) -> PoolFit:
    """Estimate the parameters of one pool from errors measured along its training: ``fit_pools`` for one pool."""
    return fit_pools(
        [samples_seen], [error], pool_size, a=a, d=d, law=law, unit=unit, resamples=resamples, level=level, seed=seed
    ).pools[0]


def fit_pools(  # noqa: PLR0913
    samples_seen: Sequence[ArrayLike],
    error: Sequence[ArrayLike],
    pool_size: ArrayLike,
    *,
    a: float | None = None,
    d: float | None = None,
    law: Law = "utility",
    names: Sequence[str] | None = None,
    unit: float = UNIT,
    resamples: int = RESAMPLES,
    level: float = LEVEL,
    seed: int = 0,
) -> PoolsFit:
    """Estimate the parameters of pools, ``a`` and ``d`` in common, from errors measured along training on each alone.

    Bounded least squares of the errors, from the best starts of a grid. The intervals are those of a parametric
    bootstrap: errors are drawn anew around the fitted curves and fitted again, and the middle ``level`` of the values
    is taken. Few points cannot say whether noise is the same everywhere or a share of the error, so at each point the
    larger of the two is drawn. Nor do they say well how large it is, so each draw has a noise level of its own, scaled
    as a chi-square says: for a law that is linear in its parameters and even noise this gives Student's interval.
    The noise is taken to be independent from point to point; checkpoints of one training are not quite.

    Args:
        samples_seen: for each pool, samples seen in training at each measured point, [n], each > 0.
        error: for each pool, the error measured there, [n], in (0, 1].
        pool_size: samples in each pool: one number, or one for each.
        a: the scale, if it is known; otherwise it is estimated, in common.
        d: the error that remains, if it is known (the paper takes 0.1 for ImageNet); otherwise estimated, in common.
        law: ``utility`` (``predict_error``) or ``data`` (``effective_data``).
        names: the pools' names, for warnings.
        unit: samples are counted in this many.
        resamples: data sets drawn for the intervals; 0 for no intervals.
        level: share of them that lies within an interval.
        seed: of the draws.

    Raises:
        ValueError: a number is outside its range, said by pool and row; or there are too few points.
    """
    if law not in LAWS:
        raise ValueError(f"law is {law!r}; allowed: {', '.join(LAWS)}")
    if len(samples_seen) != len(error) or not samples_seen:
        raise ValueError(f"{len(samples_seen)} pools of samples_seen, {len(error)} of error: one each, at least one")
    names = [*names] if names else [f"pool {place + 1}" for place in range(len(error))]
    sizes = _positive("pool_size", np.broadcast_to(np.asarray(pool_size, dtype=np.float64), len(error)))
    curves = [
        _Curve(*_checked_curve(name, seen, values), float(size), unit, law)
        for name, seen, values, size in zip(names, samples_seen, error, sizes, strict=True)
    ]
    problem = _Problem(curves, a, d)
    if problem.points <= problem.unknowns:
        raise ValueError(
            f"{problem.points} points cannot say {problem.unknowns} unknowns and how large the noise is: "
            "measure more points, or give a or d"
        )
    estimate, cost = problem.solved()
    draws = problem.resample(estimate, cost, resamples, np.random.default_rng(seed))
    return problem.described(estimate, cost, draws, names, level)


def best_pools(
    pools: Sequence[PoolUtility], samples_seen: ArrayLike, pool_size: ArrayLike, unit: float = UNIT
) -> BestPools:
    """How many of the pools to train on at each compute, the best first: "keep the best 2 of 5".

    Pools are ordered by their utility ``b``, as the paper orders them by the quality that ``b`` measures.

    Args:
        pools: the pools' parameters, ``a`` and ``d`` the same for all.
        samples_seen: the compute: samples seen in training, [m], each > 0.
        pool_size: samples in each pool: one number, or one for each.
        unit: samples are counted in this many.

    Raises:
        ValueError: as ``predict_mixture_error``.
    """
    seen = np.atleast_1d(_positive("samples_seen", samples_seen)).ravel()
    sizes = _positive("pool_size", np.broadcast_to(np.asarray(pool_size, dtype=np.float64), len(pools)))
    order = np.argsort([pool.b for pool in pools], kind="stable")

    def errors(at: Array) -> Array:
        kept = [order[: count + 1] for count in range(len(order))]
        return np.stack([predict_mixture_error([pools[i] for i in few], at, sizes[few], unit) for few in kept])

    table = errors(seen)
    return BestPools(order, np.argmin(table, axis=0) + 1, table, _crossings(errors, seen.min(), seen.max()))


def _crossings(errors: Callable[[Array], Array], low: float, high: float) -> tuple[Crossing, ...]:
    from scipy.optimize import brentq

    if not low < high:
        return ()
    grid = np.geomspace(low, high, _CROSSING_GRID)
    best = np.argmin(errors(grid), axis=0)
    found = []
    for place in np.flatnonzero(np.diff(best)):
        before, after = int(best[place]), int(best[place + 1])

        def difference(log_seen: float, before: int = before, after: int = after) -> float:
            table = errors(np.array([np.exp(log_seen)]))
            return float(table[before, 0] - table[after, 0])

        left, right = np.log(grid[place]), np.log(grid[place + 1])
        root = brentq(difference, left, right) if difference(left) * difference(right) < 0 else right
        found.append(Crossing(float(np.exp(root)), before + 1, after + 1))
    return tuple(found)


def _positive(name: str, values: ArrayLike) -> Array:
    array = np.asarray(values, dtype=np.float64)
    if array.size and not (np.isfinite(array) & (array > 0)).all():
        wrong = array[~(np.isfinite(array) & (array > 0))].flat[0]
        raise ValueError(f"{name} is {wrong:g}, it must be a number above 0")
    return array


def _checked_curve(name: str, samples_seen: ArrayLike, error: ArrayLike) -> tuple[Array, Array]:
    seen, values = np.asarray(samples_seen, dtype=np.float64), np.asarray(error, dtype=np.float64)
    if seen.ndim != 1 or seen.shape != values.shape:
        raise ValueError(
            f"{name}: samples_seen and error must be lists of one length, not {seen.shape}, {values.shape}"
        )
    if len(seen) < 2:
        raise ValueError(f"{name}: {len(seen)} point, a curve needs at least two")
    for row, (at, value) in enumerate(zip(seen, values, strict=True)):
        if not (math.isfinite(at) and at > 0):
            raise ValueError(f"{name}, row {row}: samples_seen is {at:g}, it must be a number above 0")
        if not 0 < value <= 1:
            raise ValueError(f"{name}, row {row}: error is {value:g}, it must lie in (0, 1]")
        if row and at < seen[row - 1]:
            raise ValueError(f"{name}, row {row}: samples_seen decreases from {seen[row - 1]:g} to {at:g}")
    return seen, values


def _epochs(samples_seen: Array, epoch: float) -> int:
    """How many passes over ``epoch`` samples are begun."""
    passes = math.ceil(float(np.max(samples_seen, initial=epoch)) / epoch)
    if passes > MOST_EPOCHS:
        raise ValueError(f"{passes:,} passes over {epoch:,.0f} samples are more than {MOST_EPOCHS:,}")
    return passes


def _place(samples_seen: Array, epoch: float, epochs: int) -> NDArray[np.int64]:
    """The pass that each point lies in, from 0."""
    return np.clip(np.ceil(samples_seen / epoch).astype(np.int64) - 1, 0, epochs - 1)


def _accumulated(utility: Array, samples_seen: Array, epoch: float, unit: float) -> Array:
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


def _effective_samples(weights: Array, samples_seen: Array, epoch: float) -> Array:
    """``sum_j weights_j * (n_j - n_{j-1})``: weights [..., k], samples_seen [n], result [..., n]."""
    place = _place(samples_seen, epoch, weights.shape[-1])
    whole = np.cumsum(weights, axis=-1) - weights
    return epoch * whole[..., place] + weights[..., place] * (samples_seen - place * epoch)


class _Curve:
    """The measured points of one pool, and what a half-life makes of their samples."""

    def __init__(self, samples_seen: Array, error: Array, size: float, unit: float, law: Law) -> None:
        self.samples_seen, self.error, self.size, self.unit, self.law = samples_seen, error, size, unit, law
        self.epochs = _epochs(samples_seen, size)
        if self.epochs > MOST_FITTED_EPOCHS:
            raise ValueError(f"{self.epochs:,} epochs are more than a fit can take ({MOST_FITTED_EPOCHS:,})")

    @property
    def repeats(self) -> bool:
        """Whether any sample was seen twice, so that the points say something of a half-life."""
        return self.epochs > 1

    def log_samples(self, log_tau: Array) -> tuple[Array, Array]:
        """What the law raises to the power ``b``, as a logarithm, and its derivative by ln tau, both [m, n]."""
        decay = np.log(2) * np.arange(self.epochs) / np.exp(log_tau)[:, None]
        weights = np.exp(-decay)
        if self.law == "utility":
            unit, ones = self.unit, weights * decay
            return (
                _accumulated(weights, self.samples_seen, self.size, unit),
                _accumulated(ones, self.samples_seen, self.size, unit),
            )
        counted = _effective_samples(weights, self.samples_seen, self.size)
        return np.log(counted / self.unit), _effective_samples(weights * decay, self.samples_seen, self.size) / counted


class _Problem:
    """The joint least-squares problem, in the parameters ln a, d, then ln -b and ln tau of each pool."""

    def __init__(self, curves: Sequence[_Curve], a: float | None, d: float | None) -> None:
        self.curves = curves
        self.errors = np.concatenate([curve.error for curve in curves])
        self.points = len(self.errors)
        self.owner = np.repeat(np.arange(len(curves)), [len(curve.error) for curve in curves])
        highest_d = float(self.errors.min()) * (1 - 1e-6)
        if a is not None:
            _positive("a", a)
        if d is not None and not 0 <= d <= highest_d:
            raise ValueError(f"d is {d:g}, it must lie below the lowest error, {self.errors.min():g}, and not below 0")
        known_tau = [np.log(_BOUNDS["tau"]) if curve.repeats else np.log(_BOUNDS["tau"])[[1, 1]] for curve in curves]
        bounds = np.array(
            [
                np.log(_BOUNDS["a"]) if a is None else np.log([a, a]),
                (0.0, highest_d) if d is None else (d, d),
                *(np.log(_BOUNDS["b"]) for _ in curves),
                *known_tau,
            ]
        )
        self.low, self.high = bounds[:, 0].copy(), bounds[:, 1].copy()
        self.unknowns = int((self.low < self.high).sum())

    def __call__(self, parameters: Array) -> tuple[Array, Array]:
        """Predicted errors [m, n] and their derivatives [m, n, k]."""
        pools = len(self.curves)
        prediction = np.empty((len(parameters), self.points))
        derivative = np.zeros((len(parameters), self.points, parameters.shape[1]))
        derivative[:, :, 1] = 1.0
        for place, curve in enumerate(self.curves):
            mine = self.owner == place
            log_samples, by_log_tau = curve.log_samples(parameters[:, 2 + pools + place])
            b = -np.exp(parameters[:, 2 + place, None])
            removable = np.exp(np.minimum(parameters[:, 0, None] + b * log_samples, 50.0))
            prediction[:, mine] = removable + parameters[:, 1, None]
            derivative[:, mine, 0] = removable
            derivative[:, mine, 2 + place] = removable * b * log_samples
            derivative[:, mine, 2 + pools + place] = removable * b * by_log_tau
        return prediction, derivative

    def starts(self) -> Array:
        """The best starts of a grid over d, a and tau, with b by linear regression of the logarithm, [m, k]."""
        pools = len(self.curves)
        d = np.unique(np.linspace(self.low[1], self.high[1] * 0.97, 13) if self.low[1] < self.high[1] else self.low[1])
        log_a = np.unique(np.linspace(max(self.low[0], -4.0), min(self.high[0], 2.0), 25))
        if self.low[0] == self.high[0]:
            log_a = self.low[:1]
        grid = np.stack(np.meshgrid(log_a, d, indexing="ij"), axis=-1).reshape(-1, 2)
        cost = np.zeros(len(grid))
        chosen = np.zeros((len(grid), 2 * pools))
        for place, curve in enumerate(self.curves):
            log_tau = np.linspace(math.log(0.3), math.log(100.0), 24) if curve.repeats else self.high[-1:]
            log_samples, _ = curve.log_samples(log_tau)
            above = np.maximum(curve.error - grid[:, 1, None], 1e-9)
            target = np.log(above) - grid[:, :1]
            # Least squares of the error itself, to first order: a logarithm weighs by what it is the logarithm of.
            weight = above**2
            cross = (weight * target) @ log_samples.T
            power = weight @ (log_samples**2).T
            b = np.clip(-cross / np.maximum(power, 1e-12), *_BOUNDS["b"])
            loss = (weight * target**2).sum(axis=1)[:, None] + 2 * b * cross + b**2 * power
            best = np.argmin(loss, axis=1)
            rows = np.arange(len(grid))
            cost += loss[rows, best]
            chosen[:, place] = np.log(b[rows, best])
            chosen[:, pools + place] = log_tau[best]
        few = np.argsort(cost, kind="stable")[:_STARTS]
        return np.concatenate([grid[few], chosen[few]], axis=1)

    def solved(self) -> tuple[Array, float]:
        """The parameters with the least sum of squares, and that sum: all starts some way, then the best to the end."""
        found, costs = least_squares(self, self.errors, self.starts(), self.low, self.high, _SCOUTING_STEPS)
        few = np.argsort(costs, kind="stable")[:_FINALISTS]
        found, costs = least_squares(self, self.errors, found[few], self.low, self.high)
        best = int(np.argmin(costs))
        return found[best], float(costs[best])

    def resample(self, estimate: Array, cost: float, count: int, random: np.random.Generator) -> Array:
        """The parameters fitted to errors drawn around the estimate, [count, k]."""
        if not count:
            return np.empty((0, len(estimate)))
        freedom = self.points - self.unknowns
        fit = self(estimate[None])[0]
        relative = float((((fit - self.errors) / fit) ** 2).sum())
        spread = np.maximum(math.sqrt(cost / freedom), math.sqrt(relative / freedom) * fit)
        scale = np.sqrt(freedom / random.chisquare(freedom, (count, 1)))
        drawn = fit + scale * spread * random.standard_normal((count, self.points))
        fitted, _ = least_squares(self, drawn, np.repeat(estimate[None], count, axis=0), self.low, self.high)
        for place, curve in enumerate(self.curves):
            if not curve.repeats:
                # Nothing is known of this half-life, and what is predicted from it must show that.
                fitted[:, 2 + len(self.curves) + place] = random.uniform(
                    math.log(_BOUNDS["tau"][0]), math.log(_BOUNDS["tau"][1]), count
                )
        return fitted

    def described(self, estimate: Array, cost: float, draws: Array, names: Sequence[str], level: float) -> PoolsFit:
        """What the fit found, in the parameters of the law."""
        squares = (self(estimate[None])[0][0] - self.errors) ** 2
        fits = []
        for place, (curve, name) in enumerate(zip(self.curves, names, strict=True)):
            columns = [0, 2 + place, 2 + len(self.curves) + place, 1]
            a, b, tau, d = _natural(estimate[None, columns])[0]
            natural = _natural(draws[:, columns])
            pool = PoolUtility(float(a), float(b), float(tau) if curve.repeats else math.inf, float(d))
            intervals = _intervals(natural, level, pool)
            fits.append(
                PoolFit(
                    pool,
                    intervals,
                    natural,
                    float(np.sqrt(squares[self.owner == place].mean())),
                    tuple(self._warnings(name, curve, pool, intervals)) if len(draws) or not curve.repeats else (),
                )
            )
        return PoolsFit(tuple(fits), math.sqrt(cost / self.points), cost, self.points, self.unknowns)

    def _warnings(
        self, name: str, curve: _Curve, pool: PoolUtility, intervals: dict[str, tuple[float, float]]
    ) -> list[str]:
        found = []
        for parameter, column in (("a", 0), ("d", 1)):
            low, high = intervals[parameter]
            if self.low[column] < self.high[column] and _says_little(parameter, low, high, self.high[1]):
                found.append(f"the data hardly say {parameter}: anything from {low:.3g} to {high:.3g} fits")
        low, high = intervals["b"]
        if _says_little("b", -high, -low, 0):
            found.append(f"{name}: the data hardly say its utility b: anything from {low:.3g} to {high:.3g} fits")
        low, high = intervals["tau"]
        if not curve.repeats:
            found.append(
                f"{name}: no epoch was repeated, so nothing says how fast its utility decays; no decay is assumed"
            )
        elif high >= 0.99 * _BOUNDS["tau"][1]:
            found.append(f"{name}: the data agree with no decay at all: tau is {low:.3g} epochs or more")
        elif _says_little("tau", low, high, 0):
            found.append(
                f"{name}: the data hardly say its half-life tau: anything from {low:.3g} to {high:.3g} epochs fits"
            )
        if pool.tau <= 1.01 * _BOUNDS["tau"][0]:
            found.append(
                f"{name}: repeated samples seem to be worth nothing: tau is at its lower bound, {pool.tau:.3g}"
            )
        return found


def _says_little(parameter: str, low: float, high: float, ceiling: float) -> bool:
    if parameter == "d":
        return high - low > 0.5 * ceiling
    return high > _WIDE * max(low, 1e-300)


def _natural(parameters: Array) -> Array:
    """(a, b, tau, d) from (ln a, ln -b, ln tau, d), [..., 4]."""
    return np.stack(
        [np.exp(parameters[:, 0]), -np.exp(parameters[:, 1]), np.exp(parameters[:, 2]), parameters[:, 3]], axis=1
    )


def _intervals(draws: Array, level: float, pool: PoolUtility) -> dict[str, tuple[float, float]]:
    if not len(draws):
        return dict.fromkeys(PARAMETERS, (math.nan, math.nan))
    tails = [(1 - level) / 2, (1 + level) / 2]
    bounds = {name: np.quantile(draws[:, column], tails) for column, name in enumerate(PARAMETERS)}
    # A resampled fit is drawn to the bounds of what is allowed; the estimate itself always fits the data.
    return {
        name: (min(float(low), getattr(pool, name)), max(float(high), getattr(pool, name)))
        for name, (low, high) in bounds.items()
    }
