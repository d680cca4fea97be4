"""The law fitted to measured curves: the parameters of each pool, how sure they are, and what the data cannot say."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, get_args

import numpy as np

from dqe_assets.scaling.fit_problem import BOUNDS, Curve, Law, Problem, law_parameters
from dqe_assets.scaling.law import PARAMETERS, UNIT, PoolUtility, positive

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import ArrayLike

    from dqe_assets.scaling.law import Array

LAWS: tuple[Law, ...] = get_args(Law)
LEVEL = 0.95
RESAMPLES = 1000
FALLS_BELOW = (1 - LEVEL) / 2
"""A curve falls where noise would fall as clearly with less than this probability: as if the lower end of a two-sided
interval lay above 0."""
_WIDE = 4.0
_DRAWN = 10_000


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
    bootstrap: errors are drawn again around the fitted curves and fitted again, and the middle ``level`` of the values
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
    sizes = positive("pool_size", np.broadcast_to(np.asarray(pool_size, dtype=np.float64), len(error)))
    curves = [
        Curve(*_checked_curve(name, seen, values), float(size), unit, law)
        for name, seen, values, size in zip(names, samples_seen, error, sizes, strict=True)
    ]
    problem = Problem(curves, a, d)
    if problem.points <= problem.unknowns:
        raise ValueError(
            f"{problem.points} points are too few for {problem.unknowns} unknowns and the size of the noise: "
            "measure more points, or give a or d"
        )
    estimate, cost = problem.solved()
    draws = problem.resample(estimate, cost, resamples, np.random.default_rng(seed))
    return _described(problem, estimate, cost, draws, names, level)


def own_fall(samples_seen: ArrayLike, error: ArrayLike) -> tuple[float | None, float | None]:
    """How far a curve falls by itself, and how likely noise around a flat line falls so clearly.

    A joint fit cannot say whether a pool teaches anything: where the common ``a`` lies above a flat curve, that has a
    utility too. Here a line over ln(samples seen) that falls and then may stay flat is compared with a flat one, for
    every place where it may turn flat. What the best of them explains is a share of the variance that neither the level
    nor the size of even normal noise changes, so its distribution under such noise is drawn.

    Args:
        samples_seen: samples seen in training at each measured point, [n], each > 0.
        error: the error measured there, [n].

    Returns:
        The fall in error from the first point to the last, 0 or more, and the probability; None for both with fewer
        than three points, or where all are of one number of samples.
    """
    seen, values = np.log(np.asarray(samples_seen, np.float64)), np.asarray(error, np.float64)
    if len(seen) < 3 or seen.min() == seen.max():
        return None, None
    shapes = np.minimum(seen, np.unique(seen)[1:, None])
    falls = shapes.max(axis=1) - shapes.min(axis=1)
    shapes = shapes - shapes.mean(axis=1, keepdims=True)
    lengths = np.linalg.norm(shapes, axis=1)

    def explained(curves: Array) -> Array:
        """What each falling line explains of the variance of each curve, [m, lines]."""
        centred = curves - curves.mean(axis=1, keepdims=True)
        spread = np.maximum(np.linalg.norm(centred, axis=1, keepdims=True), 1e-300)
        found: Array = np.maximum(-(centred @ shapes.T) / lengths / spread, 0) ** 2
        return found

    mine = explained(values[None])[0]
    best = int(np.argmax(mine))
    noise = np.random.default_rng(0).standard_normal((_DRAWN, len(seen)))
    as_clear = int((explained(noise).max(axis=1) >= mine[best]).sum())
    slope = min(float(values @ shapes[best] / lengths[best] ** 2), 0.0)
    return -slope * float(falls[best]), (1 + as_clear) / (1 + _DRAWN)


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


def _described(
    problem: Problem, estimate: Array, cost: float, draws: Array, names: Sequence[str], level: float
) -> PoolsFit:
    """What the fit found, in the parameters of the law."""
    squares = (problem(estimate[None])[0][0] - problem.errors) ** 2
    fits = []
    for place, (curve, name) in enumerate(zip(problem.curves, names, strict=True)):
        columns = [0, 2 + place, 2 + len(problem.curves) + place, 1]
        a, b, tau, d = law_parameters(estimate[None, columns])[0]
        drawn = law_parameters(draws[:, columns])
        pool = PoolUtility(float(a), float(b), float(tau) if curve.repeats else math.inf, float(d))
        intervals = _intervals(drawn, level, pool)
        fits.append(
            PoolFit(
                pool,
                intervals,
                drawn,
                float(np.sqrt(squares[problem.owner == place].mean())),
                tuple(_warnings(problem, name, curve, pool, intervals)) if len(draws) or not curve.repeats else (),
            )
        )
    return PoolsFit(tuple(fits), math.sqrt(cost / problem.points), cost, problem.points, problem.unknowns)


def _warnings(
    problem: Problem, name: str, curve: Curve, pool: PoolUtility, intervals: dict[str, tuple[float, float]]
) -> list[str]:
    found = []
    for parameter, column in (("a", 0), ("d", 1)):
        low, high = intervals[parameter]
        if problem.low[column] < problem.high[column] and _says_little(parameter, low, high, problem.high[1]):
            found.append(f"the data hardly say {parameter}: anything from {low:.3g} to {high:.3g} fits")
    low, high = intervals["b"]
    if _says_little("b", -high, -low, 0):
        found.append(f"{name}: the data hardly say its utility b: anything from {low:.3g} to {high:.3g} fits")
    low, high = intervals["tau"]
    if not curve.repeats:
        found.append(f"{name}: no epoch was repeated, so nothing says how fast its utility decays; no decay is assumed")
    elif high >= 0.99 * BOUNDS["tau"][1]:
        found.append(f"{name}: the data agree with no decay at all: tau is {low:.3g} epochs or more")
    elif _says_little("tau", low, high, 0):
        found.append(
            f"{name}: the data hardly say its half-life tau: anything from {low:.3g} to {high:.3g} epochs fits"
        )
    if pool.tau <= 1.01 * BOUNDS["tau"][0]:
        found.append(f"{name}: repeated samples seem to be worth nothing: tau is at its lower bound, {pool.tau:.3g}")
    return found


def _says_little(parameter: str, low: float, high: float, ceiling: float) -> bool:
    if parameter == "d":
        return high - low > 0.5 * ceiling
    return high > _WIDE * max(low, 1e-300)


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
