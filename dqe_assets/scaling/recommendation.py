"""From measured curves to fitted pools, from fitted pools to which of them to train on, and the answer in words."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from dqe_assets.core.measurements import EXAMPLE_SOURCE, MeasurementsError, parse_count
from dqe_assets.core.statistics import student_t
from dqe_assets.scaling.best_pools import BestPools, best_pools
from dqe_assets.scaling.fitting import FALLS_BELOW, LEVEL, fit_pools, own_fall
from dqe_assets.scaling.law import PARAMETERS, UNIT, PoolUtility, mixture_errors
from dqe_assets.scaling.tables import FILTER_RECOMMENDATION, MEASURED_MIXTURES, POOL_UTILITIES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from numpy.typing import NDArray

    from dqe_assets.scaling.curves import Measured
    from dqe_assets.scaling.fitting import PoolFit
    from dqe_assets.scaling.law import Array

_CLEAR = 0.95
_SIZES_DIFFER = 0.01
_TAILS = ((1 - LEVEL) / 2, (1 + LEVEL) / 2)


@dataclass(frozen=True, slots=True)
class MeasuredMixture:
    """What was measured of a mixture of pools.

    Attributes:
        name: of the mixture.
        pools: names of its pools.
        samples_seen: samples seen at each measured point, [n].
        error: the error measured there, [n].
        predicted: what the law predicts there, [n]; nan where it predicts nothing.
    """

    name: str
    pools: tuple[str, ...]
    samples_seen: Array
    error: Array
    predicted: Array

    @property
    def off(self) -> float:
        """Root mean square of error less predicted; nan where nothing is predicted."""
        return float(np.sqrt(np.mean((self.error - self.predicted) ** 2)))


@dataclass(frozen=True, slots=True)
class FittedPools:
    """The fitted pools of one metric, the one of highest utility first.

    Attributes:
        metric: what was measured.
        names: the pools' names, [p].
        pools: their parameters.
        sizes: samples in each, [p].
        draws: (a, b, tau, d) of each pool in each resampled fit, [r, p, 4].
        samples_seen: samples seen at each measured point of each pool.
        error: the error measured there.
        measured: least and most samples seen that were measured for every pool.
        unit: samples are counted in this many.
        useless: names of the pools whose own curve does not fall: they are neither fitted nor recommended.
        mixtures: the mixtures that were measured.
        source: where the measurements came from.
    """

    metric: str
    names: tuple[str, ...]
    pools: tuple[PoolUtility, ...]
    sizes: Array
    draws: Array
    samples_seen: tuple[Array, ...]
    error: tuple[Array, ...]
    measured: tuple[float, float]
    unit: float
    useless: tuple[str, ...]
    mixtures: tuple[MeasuredMixture, ...]
    source: str

    @property
    def is_made_up(self) -> bool:
        """Whether these are the example's curves."""
        return self.source == EXAMPLE_SOURCE

    def only(self, names: Sequence[str]) -> FittedPools:
        """These pools alone, and no mixture."""
        places = [place for place, name in enumerate(self.names) if name in names]
        return replace(
            self,
            names=tuple(self.names[place] for place in places),
            pools=tuple(self.pools[place] for place in places),
            sizes=self.sizes[places],
            draws=self.draws[:, places],
            samples_seen=tuple(self.samples_seen[place] for place in places),
            error=tuple(self.error[place] for place in places),
            mixtures=(),
        )

    def predicted(self, keep: int, samples_seen: Array) -> Array:
        """The predicted error of the best ``keep`` pools, [n]."""
        parameters = np.array([[[getattr(pool, name) for name in PARAMETERS] for pool in self.pools[:keep]]])
        return mixture_errors(parameters, samples_seen, self.sizes[:keep], self.unit)[0]

    def best(self, samples_seen: Sequence[float] | Array) -> BestPools:
        """``best_pools`` of these."""
        return best_pools(self.pools, samples_seen, self.sizes, self.unit)

    def drawn_errors(self, keep: int, samples_seen: Array) -> Array:
        """What each resampled fit predicts of the best ``keep`` pools, [r, n]."""
        return mixture_errors(self.draws[:, :keep], samples_seen, self.sizes[:keep], self.unit)

    def interval(self, keep: int, samples_seen: Array) -> tuple[Array, Array]:
        """The interval of the predicted error of the best ``keep`` pools, low and high, [n] each.

        Of a mixture it holds, besides the noise of the curves, how far off the law is of mixtures.
        """
        low, high = np.quantile(self.drawn_errors(keep, samples_seen), _TAILS, axis=0)
        if keep > 1:
            middle, reach = self.predicted(keep, samples_seen), self.model_reach
            low, high = (
                middle - np.hypot(np.maximum(middle - low, 0), reach),
                middle + np.hypot(np.maximum(high - middle, 0), reach),
            )
        return np.maximum(low, 0), high

    @property
    def checked(self) -> tuple[MeasuredMixture, ...]:
        """The measured mixtures of which something is predicted."""
        return tuple(mixture for mixture in self.mixtures if np.isfinite(mixture.off))

    @property
    def model_error(self) -> float | None:
        """How far off the law is of mixtures: root mean square over those that were measured; None without any.

        The points of one training are alike, so a mixture counts once, whatever its number of points.
        """
        checked = self.checked
        return float(np.sqrt(np.mean([mixture.off**2 for mixture in checked]))) if checked else None

    @property
    def model_reach(self) -> float:
        """How far a mixture's error may lie from its prediction by the error of the law, at ``LEVEL``.

        Student's t: the size of that error is itself known from few mixtures.
        """
        error = self.model_error
        return 0.0 if error is None else error * student_t(_TAILS[1], len(self.checked))


def fit_measurements(
    curves: Sequence[Measured],
    source: str,
    scale: float | None = None,
    irreducible: float | None = None,
    unit: float = UNIT,
    log: Callable[[str], None] | None = None,
) -> pa.Table:
    """The table ``pool_utilities``: a joint fit for each metric, its pools by utility, the best first.

    A pool whose own curve does not fall is left out of the fit, and comes last, without parameters.

    Args:
        curves: of pools, as ``read_measurements`` gives them.
        source: name of the place they came from.
        scale: ``a``, if it is not to be fitted.
        irreducible: ``d``, if it is not to be fitted.
        unit: samples are counted in this many.
        log: if given, a metric that cannot be fitted is left out while there are others, and this is told why.

    Raises:
        MeasurementsError: there are too few points to fit, or ``d`` is not below all errors.
    """
    rows: list[dict[str, Any]] = []
    faults: list[str] = []
    for metric in dict.fromkeys(curve.metric for curve in curves):
        mine = [curve for curve in curves if curve.metric == metric]
        own = {curve.pool: own_fall(curve.samples_seen, curve.error) for curve in mine}
        falling = [curve for curve in mine if (chance := own[curve.pool][1]) is not None and chance < FALLS_BELOW]
        try:
            fits = _fitted(falling, scale, irreducible, unit) if falling else []
        except ValueError as error:
            faults.append(f"{source}, {metric}: {error}")
            continue
        others = [curve for curve in mine if curve not in falling]
        for rank, (curve, found) in enumerate([*fits, *((curve, None) for curve in others)], 1):
            row: dict[str, Any] = {
                "metric": metric,
                "pool": curve.pool,
                "rank": rank,
                "pool_size": round(curve.pool_size),
                **dict(zip(("fall", "fall_p"), own[curve.pool], strict=True)),
                "falls": found is not None,
                "unit": round(unit),
                "points": len(curve.error),
                "least_samples_seen": round(min(curve.samples_seen)),
                "most_samples_seen": round(max(curve.samples_seen)),
                "epochs": max(curve.samples_seen) / curve.pool_size,
                "warning": _does_not_fall(curve, own[curve.pool][0]),
                "source": source,
                "measured_samples_seen": list(curve.samples_seen),
                "measured_error": list(curve.error),
            }
            if found is not None:
                row |= {"residual": found.residual, "warning": "; ".join(found.warnings) or None}
                for column, name in enumerate(PARAMETERS):
                    low, high = found.intervals[name]
                    row |= {name: getattr(found.pool, name), f"{name}_low": low, f"{name}_high": high}
                    row[f"drawn_{name}"] = found.draws[:, column].tolist()
            rows.append(row)
    for fault in faults:
        if log is None or not rows:
            raise MeasurementsError("\n".join(faults))
        log(f"left out: {fault}")
    return pa.Table.from_pylist(rows, POOL_UTILITIES)


def _fitted(
    curves: Sequence[Measured], scale: float | None, irreducible: float | None, unit: float
) -> list[tuple[Measured, PoolFit]]:
    """Each curve with its fit, the pool of highest utility first; raises ValueError as ``fit_pools`` does."""
    fit = fit_pools(
        [curve.samples_seen for curve in curves],
        [curve.error for curve in curves],
        [curve.pool_size for curve in curves],
        a=scale,
        d=irreducible,
        names=[curve.pool for curve in curves],
        unit=unit,
    )
    return sorted(zip(curves, fit.pools, strict=True), key=lambda pair: pair[1].pool.b)


def _does_not_fall(curve: Measured, fall: float | None) -> str:
    if fall is None:
        return f"{curve.pool}: too few points to say whether its curve falls; a pool needs three"
    return f"{curve.pool}: its own curve does not fall, so nothing says that it teaches anything"


def mixture_table(
    curves: Sequence[Measured], pools_of: Mapping[str, Sequence[str]], utilities: pa.Table, source: str
) -> pa.Table:
    """The table ``measured_mixtures``: what was measured of mixtures beside what the law predicts.

    Args:
        curves: of mixtures, as ``read_measurements`` gives them.
        pools_of: the pools that each mixture is the union of.
        utilities: the table ``pool_utilities``.
        source: name of the place that the curves came from.

    Raises:
        MeasurementsError: a mixture has another number of samples than its pools together: so pools have samples in
            common, or it is not the union of them.
    """
    rows: list[dict[str, Any]] = []
    size_of = dict(zip(utilities["pool"].to_pylist(), utilities["pool_size"].to_pylist(), strict=True))
    for curve in curves:
        # Of a metric that is left out, the sizes are not known; those of its pools are the same for every metric.
        together = sum(size_of.get(pool, 0) for pool in pools_of[curve.pool])
        if together and abs(curve.pool_size - together) > _SIZES_DIFFER * together:
            raise MeasurementsError(
                f"{source}: the mixture {curve.pool} has {curve.pool_size:,.0f} samples, and its pools "
                f"{', '.join(pools_of[curve.pool])} {together:,} together. Pools may have no sample in common, and a "
                "mixture all samples of its pools: correct scaling.mixtures"
            )
    fitted = {one.metric: one for one in fitted_pools(utilities)}
    for curve in curves:
        seen = np.array(curve.samples_seen)
        predicted, low, high = np.full((3, len(seen)), np.nan)
        one = fitted.get(curve.metric)
        if one is not None and set(pools_of[curve.pool]) <= set(one.names):
            mixed = one.only(pools_of[curve.pool])
            predicted, (low, high) = mixed.predicted(len(mixed.pools), seen), mixed.interval(len(mixed.pools), seen)
        for place, error in enumerate(curve.error):
            told = float(predicted[place])
            row = {
                "metric": curve.metric,
                "mixture": curve.pool,
                "pools": list(pools_of[curve.pool]),
                "samples_seen": round(curve.samples_seen[place]),
                "error": error,
                "source": source,
            }
            if np.isfinite(told):
                row |= {"predicted": told, "predicted_low": float(low[place]), "predicted_high": float(high[place])}
                row["difference"] = error - told
            rows.append(row)
    return pa.Table.from_pylist(rows, MEASURED_MIXTURES)


def fitted_pools(utilities: pa.Table, mixtures: pa.Table | None = None) -> Iterator[FittedPools]:
    """What ``pool_utilities`` holds of each metric, with what ``measured_mixtures`` holds of it."""
    for metric in pc.unique(utilities["metric"]).to_pylist():
        every = utilities.filter(pc.equal(utilities["metric"], metric)).to_pylist()
        rows = [row for row in every if row["falls"]]
        drawn = [np.stack([row[f"drawn_{name}"] for name in PARAMETERS], axis=-1) for row in rows]
        yield FittedPools(
            metric,
            tuple(row["pool"] for row in rows),
            tuple(PoolUtility(*(row[name] for name in PARAMETERS)) for row in rows),
            np.array([row["pool_size"] for row in rows], dtype=np.float64),
            np.stack(drawn, axis=1) if rows else np.empty((0, 0, len(PARAMETERS))),
            tuple(np.array(row["measured_samples_seen"]) for row in rows),
            tuple(np.array(row["measured_error"]) for row in rows),
            (
                max(row["least_samples_seen"] for row in rows or every),
                min(row["most_samples_seen"] for row in rows or every),
            ),
            every[0]["unit"],
            tuple(row["pool"] for row in every if not row["falls"]),
            tuple(_mixtures(mixtures, metric)) if mixtures is not None else (),
            every[0]["source"],
        )


def _mixtures(table: pa.Table, metric: str) -> Iterator[MeasuredMixture]:
    rows = table.filter(pc.equal(table["metric"], metric)).to_pylist()
    for name in dict.fromkeys(row["mixture"] for row in rows):
        mine = [row for row in rows if row["mixture"] == name]
        seen, error, predicted = (
            np.array([row[column] for row in mine], dtype=np.float64)
            for column in ("samples_seen", "error", "predicted")
        )
        yield MeasuredMixture(name, tuple(mine[0]["pools"]), seen, error, predicted)


def recommend(fitted: FittedPools, samples_seen: Sequence[int]) -> pa.Table:
    """Rows of ``filter_recommendation``: for each compute, what keeping 1, 2 ... p pools is predicted to give.

    Args:
        fitted: the pools of one metric.
        samples_seen: the compute: samples seen in training.
    """
    if not fitted.pools:
        return FILTER_RECOMMENDATION.empty_table()
    seen = np.array(sorted(set(samples_seen)), dtype=np.float64)
    best = fitted.best(seen)
    keeps = range(1, len(fitted.pools) + 1)
    drawn = np.stack([fitted.drawn_errors(keep, seen) for keep in keeps])
    low, high = np.stack([fitted.interval(keep, seen) for keep in keeps], axis=1)
    winners: NDArray[np.int64] = np.argmin(drawn, axis=0)
    rows: list[dict[str, Any]] = []
    for column, budget in enumerate(seen):
        for keep in keeps:
            kept = float(fitted.sizes[:keep].sum())
            predicted = float(best.error[keep - 1, column])
            rows.append(
                {
                    "metric": fitted.metric,
                    "samples_seen": round(budget),
                    "keep": keep,
                    "pools": list(fitted.names[:keep]),
                    "kept_samples": round(kept),
                    "epochs": budget / kept,
                    "error": predicted,
                    "error_low": min(float(low[keep - 1, column]), predicted),
                    "error_high": max(float(high[keep - 1, column]), predicted),
                    "mixtures_measured": len(fitted.checked),
                    "is_best": keep == best.keep[column],
                    "share_best": float(np.mean(winners[:, column] == keep - 1)),
                    "is_measured": bool(fitted.measured[0] <= budget <= fitted.measured[1]),
                    "source": fitted.source,
                }
            )
    return pa.Table.from_pylist(rows, FILTER_RECOMMENDATION)


def parse_budgets(text: str) -> list[int]:
    """The numbers of samples in ``32M,128M,640M``.

    Raises:
        ValueError: one of them is no number above 0.
    """
    budgets = [int(parse_count(part)) for part in text.split(",") if part.strip()]
    if not budgets or min(budgets) < 1:
        raise ValueError(f"'{text}' is not a list of numbers of samples above 0, such as 32M,128M,640M")
    return budgets


def answer(fitted: FittedPools, samples_seen: Sequence[int]) -> list[str]:
    """What to train on for each compute, in sentences, and what nothing has shown."""
    rows = recommend(fitted, samples_seen).to_pylist()
    if not rows:
        return [f"No pool's curve of {fitted.metric} falls, so nothing can be recommended.", _useless(fitted)]
    lines = []
    for budget in sorted(set(samples_seen)):
        mine = [row for row in rows if row["samples_seen"] == budget]
        lines.append(_sentence(fitted, budget, mine))
    low, high = min(*samples_seen, fitted.measured[0]), max(*samples_seen, fitted.measured[1])
    crossings = fitted.best([low, high]).crossings
    lines.append(
        f"Between {amount(low)} and {amount(high)} samples seen the answer changes "
        + ", ".join(f"at {amount(c.samples_seen)} (from {c.before} to {c.after} pools)" for c in crossings)
        + "."
        if crossings
        else f"Between {amount(low)} and {amount(high)} samples seen the answer does not change."
    )
    return [line for line in (*lines, _useless(fitted), _validation(fitted, rows)) if line]


def _useless(fitted: FittedPools) -> str:
    """Which pools are left out; empty if none is."""
    if not fitted.useless:
        return ""
    return (
        f"Left out, since nothing says that they teach anything: {', '.join(fitted.useless)}. By themselves, their "
        "curves do not fall, and what they do to a mixture is not known."
    )


def _validation(fitted: FittedPools, rows: Sequence[dict[str, Any]]) -> str:
    """How far off the law is of measured mixtures; without any, which training would show it."""
    if fitted.is_made_up or len(fitted.pools) == 1:
        return ""
    if fitted.model_error is not None:
        checked = fitted.checked
        names = ", ".join(f"{mixture.name} {np.mean(mixture.error - mixture.predicted):+.3f}" for mixture in checked)
        return (
            f"Measured mixtures: {len(checked)}. Off from what was predicted (error less prediction): {names}. The "
            f"intervals of mixtures hold this error of the law: {fitted.model_reach:.3f} to each side."
        )
    best = [row for row in rows if row["is_best"]]
    mixed = [row for row in best if row["keep"] > 1] or [row for row in rows if row["keep"] > 1]
    one = min(mixed, key=lambda row: (not row["is_measured"], -row["samples_seen"], row["error"]))
    return (
        "No mixture was measured, so this advice is not validated: the intervals take the law for granted. One "
        f"training would show whether it holds: {' and '.join(one['pools'])} together for "
        f"{amount(one['samples_seen'])} samples seen, with the same model. Predicted: {one['error']:.3f}. Then name "
        "it under scaling.mixtures."
    )


def _sentence(fitted: FittedPools, budget: int, rows: Sequence[dict[str, Any]]) -> str:
    best = next(row for row in rows if row["is_best"])
    pools = {1: f"the best of {len(rows)} pools", len(rows): f"all {len(rows)} pools"}.get(
        best["keep"], f"the best {best['keep']} of {len(rows)} pools"
    )
    pools = "the only pool" if len(rows) == 1 else pools
    text = (
        f"For {amount(budget)} samples seen, train on {pools}: {', '.join(best['pools'])} "
        f"({amount(best['kept_samples'])} samples, {best['epochs']:.2g} passes). Predicted error of {fitted.metric} "
        f"{best['error']:.3f} ({LEVEL:.0%} interval {best['error_low']:.3f} to {best['error_high']:.3f})"
    )
    others = sorted((row for row in rows if not row["is_best"]), key=lambda row: row["error"])
    if others:
        text += f"; the next best is to keep {others[0]['keep']}, {others[0]['error']:.3f}."
        if others[0]["error"] - best["error"] < (fitted.model_error or 0):
            text += f" That differs by less than the law is off of measured mixtures, {fitted.model_error:.3f}."
        text += f" Best in {best['share_best']:.0%} of the resampled fits"
        rival = max(others, key=lambda row: row["share_best"])
        if best["share_best"] < _CLEAR:
            text += f", so this is not sure: keeping {rival['keep']} is best in {rival['share_best']:.0%}"
    text += "."
    low, high = fitted.measured
    if budget > high:
        text += (
            f" This lies outside the data: {budget / high:.2g} times the longest measured training ({amount(high)})."
        )
    elif budget < low:
        text += f" This lies outside the data: the shortest measured training saw {amount(low)} samples."
    return text


def amount(samples: float) -> str:
    """A number of samples as people say it: 12.8M."""
    for size, letter in ((1e9, "B"), (1e6, "M"), (1e3, "k")):
        if samples >= 0.9995 * size:
            return f"{samples / size:.3g}{letter}"
    return f"{samples:.3g}"
