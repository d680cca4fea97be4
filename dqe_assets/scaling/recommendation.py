"""From measured curves to fitted pools, from fitted pools to which of them to train on, and the answer in words."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from dqe_assets.core.measurements import EXAMPLE_SOURCE, MeasurementsError, parse_count
from dqe_assets.scaling.best_pools import BestPools, best_pools
from dqe_assets.scaling.fitting import LEVEL, fit_pools
from dqe_assets.scaling.law import PARAMETERS, PoolUtility, mixture_errors
from dqe_assets.scaling.tables import FILTER_RECOMMENDATION, POOL_UTILITIES

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from dqe_assets.scaling.curves import Measured
    from dqe_assets.scaling.law import Array

_CLEAR = 0.95
_TAILS = ((1 - LEVEL) / 2, (1 + LEVEL) / 2)


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
    source: str

    @property
    def is_made_up(self) -> bool:
        """Whether these are the example's curves."""
        return self.source == EXAMPLE_SOURCE

    def best(self, samples_seen: Sequence[float] | Array) -> BestPools:
        """``best_pools`` of these."""
        return best_pools(self.pools, samples_seen, self.sizes)

    def drawn_errors(self, keep: int, samples_seen: Array) -> Array:
        """What each resampled fit predicts of the best ``keep`` pools, [r, n]."""
        return mixture_errors(self.draws[:, :keep], samples_seen, self.sizes[:keep])

    def interval(self, keep: int, samples_seen: Array) -> tuple[Array, Array]:
        """The interval of the predicted error of the best ``keep`` pools, low and high, [n] each."""
        low, high = np.quantile(self.drawn_errors(keep, samples_seen), _TAILS, axis=0)
        return low, high


def fit_measurements(
    curves: Sequence[Measured], source: str, scale: float | None = None, irreducible: float | None = None
) -> pa.Table:
    """The table ``pool_utilities``: a joint fit for each metric, its pools by utility, the best first.

    Args:
        curves: as ``read_measurements`` gives them.
        source: name of the place they came from.
        scale: ``a``, if it is not to be fitted.
        irreducible: ``d``, if it is not to be fitted.

    Raises:
        MeasurementsError: there are too few points to fit, or ``d`` is not below all errors.
    """
    rows: list[dict[str, Any]] = []
    for metric in dict.fromkeys(curve.metric for curve in curves):
        mine = [curve for curve in curves if curve.metric == metric]
        try:
            fit = fit_pools(
                [curve.samples_seen for curve in mine],
                [curve.error for curve in mine],
                [curve.pool_size for curve in mine],
                a=scale,
                d=irreducible,
                names=[curve.pool for curve in mine],
            )
        except ValueError as error:
            raise MeasurementsError(f"{source}, {metric}: {error}") from error
        ranked = sorted(zip(mine, fit.pools, strict=True), key=lambda pair: pair[1].pool.b)
        for rank, (curve, found) in enumerate(ranked, 1):
            row: dict[str, Any] = {
                "metric": metric,
                "pool": curve.pool,
                "rank": rank,
                "pool_size": round(curve.pool_size),
                "points": len(curve.error),
                "least_samples_seen": round(min(curve.samples_seen)),
                "most_samples_seen": round(max(curve.samples_seen)),
                "epochs": max(curve.samples_seen) / curve.pool_size,
                "residual": found.residual,
                "warning": "; ".join(found.warnings) or None,
                "source": source,
                "measured_samples_seen": list(curve.samples_seen),
                "measured_error": list(curve.error),
            }
            for column, name in enumerate(PARAMETERS):
                low, high = found.intervals[name]
                row |= {name: getattr(found.pool, name), f"{name}_low": low, f"{name}_high": high}
                row[f"drawn_{name}"] = found.draws[:, column].tolist()
            rows.append(row)
    return pa.Table.from_pylist(rows, POOL_UTILITIES)


def fitted_pools(utilities: pa.Table) -> Iterator[FittedPools]:
    """What ``pool_utilities`` holds of each metric."""
    for metric in pc.unique(utilities["metric"]).to_pylist():
        rows = utilities.filter(pc.equal(utilities["metric"], metric)).to_pylist()
        yield FittedPools(
            metric,
            tuple(row["pool"] for row in rows),
            tuple(PoolUtility(*(row[name] for name in PARAMETERS)) for row in rows),
            np.array([row["pool_size"] for row in rows], dtype=np.float64),
            np.stack([np.stack([row[f"drawn_{name}"] for name in PARAMETERS], axis=-1) for row in rows], axis=1),
            tuple(np.array(row["measured_samples_seen"]) for row in rows),
            tuple(np.array(row["measured_error"]) for row in rows),
            (max(row["least_samples_seen"] for row in rows), min(row["most_samples_seen"] for row in rows)),
            rows[0]["source"],
        )


def recommend(fitted: FittedPools, samples_seen: Sequence[int]) -> pa.Table:
    """Rows of ``filter_recommendation``: for each compute, what keeping 1, 2 ... p pools is predicted to give.

    Args:
        fitted: the pools of one metric.
        samples_seen: the compute: samples seen in training.
    """
    seen = np.array(sorted(set(samples_seen)), dtype=np.float64)
    best = fitted.best(seen)
    drawn = np.stack([fitted.drawn_errors(keep, seen) for keep in range(1, len(fitted.pools) + 1)])
    low, high = np.quantile(drawn, _TAILS, axis=1)
    winners: NDArray[np.int64] = np.argmin(drawn, axis=0)
    rows: list[dict[str, Any]] = []
    for column, budget in enumerate(seen):
        for keep in range(1, len(fitted.pools) + 1):
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
    """What to train on for each compute, in sentences."""
    rows = recommend(fitted, samples_seen).to_pylist()
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
    return lines


def _sentence(fitted: FittedPools, budget: int, rows: Sequence[dict[str, Any]]) -> str:
    best = next(row for row in rows if row["is_best"])
    pools = {1: f"the best of {len(rows)} pools", len(rows): f"all {len(rows)} pools"}.get(
        best["keep"], f"the best {best['keep']} of {len(rows)} pools"
    )
    text = (
        f"For {amount(budget)} samples seen, train on {pools}: {', '.join(best['pools'])} "
        f"({amount(best['kept_samples'])} samples, {best['epochs']:.2g} passes). Predicted error of {fitted.metric} "
        f"{best['error']:.3f} ({LEVEL:.0%} interval {best['error_low']:.3f} to {best['error_high']:.3f})"
    )
    others = sorted((row for row in rows if not row["is_best"]), key=lambda row: row["error"])
    if others:
        text += f"; the next best is to keep {others[0]['keep']}, {others[0]['error']:.3f}."
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
