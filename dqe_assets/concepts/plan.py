"""From measured accuracies and counts to a plan: what a concept's frequency predicts, and how many samples it lacks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from dqe_assets.concepts.performance import accuracy_table, log_linear_fit, predict_accuracy
from dqe_assets.concepts.tables import CONCEPT_PERFORMANCE, CONCEPT_PLAN
from dqe_assets.concepts.tail import rarest
from dqe_assets.core.measurements import EXAMPLE_SOURCE, MeasurementsError
from dqe_assets.core.statistics import student_t

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from numpy.typing import ArrayLike, NDArray

    from dqe_assets.concepts.accuracies import MeasuredConcepts
    from dqe_assets.concepts.performance import Line, LogLinearFit


@dataclass(frozen=True, slots=True)
class FittedModel:
    """The fit of one measured model.

    Attributes:
        model: its name.
        counts: samples that show each measured concept, [n].
        accuracy: its accuracy on each, [n].
        fit: the log-linear fit to them.
        source: file of the measurements, or that they are made up.
    """

    model: str
    counts: NDArray[np.int64]
    accuracy: NDArray[np.float64]
    fit: LogLinearFit
    source: str

    @property
    def is_made_up(self) -> bool:
        """Whether the measurements are the example's."""
        return self.source == EXAMPLE_SOURCE


def fit_accuracies(measured: Sequence[MeasuredConcepts], source: str) -> pa.Table:
    """A log-linear fit for each model, as ``CONCEPT_PERFORMANCE``.

    Args:
        measured: the models.
        source: what to call the file that they come from.
    """
    rows = []
    for one in measured:
        fit = log_linear_fit(one.counts, one.accuracy)
        rows.append(
            {
                "model": one.model,
                "concepts": len(one.concepts),
                **_line(fit.binned, ""),
                **_line(fit.unbinned, "unbinned_"),
                "r": _known(fit.r),
                "p_value": _known(fit.p_value),
                "unbinned_r": _known(fit.unbinned.r),
                "unbinned_p_value": _known(fit.unbinned.p_value),
                "source": source,
                "bin_counts": np.exp(fit.edges).tolist(),
                "bin_accuracy": [_known(mean) for mean in fit.means.tolist()],
                "bin_concepts": fit.concepts_per_bin.tolist(),
                "measured_counts": one.counts.tolist(),
                "measured_accuracy": one.accuracy.tolist(),
            }
        )
    return pa.Table.from_pylist(rows, CONCEPT_PERFORMANCE)


def fit_trained(measured: Sequence[MeasuredConcepts], source: str, log: Callable[[str], None]) -> pa.Table:
    """``fit_accuracies`` of those models that can be fitted.

    Args:
        measured: the models.
        source: what to call where they come from.
        log: is told which are left out, and why.

    Raises:
        MeasurementsError: there is none; says why.
    """
    usable, faults = [], []
    for one in measured:
        try:
            log_linear_fit(one.counts, one.accuracy)
        except ValueError as error:
            faults.append(f"{source}: {one.model} is left out: {error}")
        else:
            usable.append(one)
    if not usable:
        nothing = f"{source}: no measurements; materialise training runs and their evaluation on tasks with classes"
        raise MeasurementsError("\n".join(faults) or nothing)
    for fault in faults:
        log(fault)
    return fit_accuracies(usable, source)


def fitted_models(table: pa.Table) -> Iterator[FittedModel]:
    """The models of ``CONCEPT_PERFORMANCE``, each with its fit."""
    for row in table.select(["model", "source", "measured_counts", "measured_accuracy"]).to_pylist():
        counts, accuracy = np.array(row["measured_counts"], np.int64), np.array(row["measured_accuracy"])
        yield FittedModel(row["model"], counts, accuracy, log_linear_fit(counts, accuracy), row["source"])


def line_interval(fit: LogLinearFit, counts: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Where the bins' line lies at these counts: the ends of its interval, at the fit's level, in the shape of counts.

    It is the interval of the mean accuracy at a count, by Student's t; single concepts scatter more widely.
    """
    inner = np.flatnonzero(fit.concepts_per_bin[1:-1]) + 1
    x, y = fit.edges[inner], fit.means[inner]
    freedom = len(x) - 2
    residual = y - fit.binned.intercept - fit.binned.slope * x
    spread = ((x - x.mean()) ** 2).sum()
    at = np.log(np.maximum(np.asarray(counts, np.float64), 1))
    error = np.sqrt((residual @ residual) / freedom * (1 / len(x) + (at - x.mean()) ** 2 / spread))
    reach = student_t((1 + fit.level) / 2, freedom) * error
    middle = predict_accuracy(fit, counts)
    return middle - reach, middle + reach


def concept_plan(
    models: Sequence[FittedModel], concepts: Sequence[str], counts: ArrayLike, target: float, item: str
) -> pa.Table:
    """What each model's fit says of every concept, the rarest first, as ``CONCEPT_PLAN``.

    Args:
        models: the fitted models.
        concepts: the concepts, [C].
        counts: samples that show each, int [C].
        target: the accuracy wanted, 0 to 1.
        item: what was counted.
    """
    names, ascending = zip(*rarest(concepts, counts, len(concepts)), strict=True)
    tables = []
    for one in models:
        predicted = accuracy_table(one.fit, names, ascending, target)
        low, high = line_interval(one.fit, ascending)
        tables.append(
            pa.table(
                {
                    "model": pa.repeat(one.model, len(names)),
                    "concept": predicted["concept"],
                    "item": pa.repeat(item, len(names)),
                    "place": pa.array(np.arange(1, len(names) + 1), pa.int32()),
                    "samples": predicted["count"],
                    "predicted_accuracy": predicted["predicted_accuracy"],
                    "predicted_low": low,
                    "predicted_high": high,
                    "target_accuracy": pa.repeat(target, len(names)),
                    "samples_needed": predicted["samples_needed"],
                    "source": pa.repeat(one.source, len(names)),
                },
                schema=CONCEPT_PLAN,
            )
        )
    return pa.concat_tables(tables) if tables else CONCEPT_PLAN.empty_table()


def _line(line: Line, prefix: str) -> dict[str, float]:
    return {
        f"{prefix}{name}{suffix}": float(getattr(line, f"{name}{suffix}"))
        for name in ("slope", "intercept")
        for suffix in ("", "_low", "_high")
    }


def _known(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
