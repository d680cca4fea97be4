"""Reading measured training curves: the table that the settings name, and DataComp's evaluation files.

A table has a row for each evaluated checkpoint and the columns ``pool``, ``pool_size`` (samples in the pool),
``samples_seen`` (repetitions counted), ``metric`` and ``error`` (1 - accuracy). In place of ``metric`` and ``error`` it
may have ``eval_results``, the path of that checkpoint's ``eval_results.jsonl`` as DataComp's evaluate.py writes it
(counted from the table's folder), which gives the errors of every task and of the mean over 18. Other columns are
left alone. Every fault is said by file and row.
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, NamedTuple

from pydantic import Field

from dqe_assets.core.measurements import (
    MeasurementsError,
    MeasurementSettings,
    SampleCount,
    file_bytes,
    finite_number,
    json_lines,
    table_rows,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

EXAMPLE_FILE = Path(__file__).with_name("example.csv")
MEAN_18 = "mean_18_tasks"
TASKS_18 = frozenset(
    {
        "imagenet1k",
        "cifar10",
        "vtab/caltech101",
        "vtab/cifar100",
        "food101",
        "imagenet_sketch",
        "imagenetv2",
        "imagenet-a",
        "imagenet-o",
        "imagenet-r",
        "objectnet",
        "vtab/flowers",
        "vtab/pets",
        "voc2007",
        "vtab/resisc45",
        "cars",
        "retrieval/flickr_1k_test_image_text_retrieval",
        "retrieval/mscoco_2014_5k_test_image_text_retrieval",
    }
)
"""The tasks that the paper averages over (process_128_grid.py of its authors): those that tell pools apart at scale."""

EVALUATION_METRICS = ("imagenet1k", MEAN_18)
"""What is fitted of evaluation files where the settings name no metrics: what the paper's figures show."""

_KEYS = ("pool", "pool_size", "samples_seen")
_MOST_FAULTS = 10


class Scaling(MeasurementSettings):
    """Which measured training curves to fit, and for which compute to recommend a filter.

    Attributes:
        measurements: ``example``, or the path of a CSV, Parquet or JSON Lines table, from the data folder.
        samples_seen: The compute to recommend for: samples seen in training, such as 32M.
        metrics: The metrics to fit; by default all of the table (of evaluation files: ImageNet and the mean of 18).
        scale: The law's ``a``, if it is given and not fitted.
        irreducible: The law's ``d``, if it is given and not fitted.
    """

    example: ClassVar[Path] = EXAMPLE_FILE

    samples_seen: Annotated[tuple[SampleCount, ...], Field(min_length=1)] = (32_000_000, 128_000_000, 640_000_000)
    metrics: Annotated[tuple[str, ...], Field(min_length=1)] | None = None
    scale: Annotated[float, Field(gt=0)] | None = None
    irreducible: Annotated[float, Field(ge=0, lt=1)] | None = None

    def signature(self) -> list[Any]:
        """What decides the fits: all but the compute that is asked about, and the content of the files.

        Raises:
            MeasurementsError: the table cannot be read.
        """
        return [self.model_dump(mode="json", exclude={"samples_seen"}), content_digest(self.path)]


@dataclass(frozen=True, slots=True)
class Measured:
    """The measured curve of one pool for one metric.

    Attributes:
        metric: what was measured.
        pool: the pool's name.
        pool_size: samples in it.
        samples_seen: samples seen at each point, never decreasing.
        error: the error there, in (0, 1].
    """

    metric: str
    pool: str
    pool_size: float
    samples_seen: tuple[float, ...]
    error: tuple[float, ...]


class _Point(NamedTuple):
    where: str
    size: float
    samples_seen: float
    error: float


def read_measurements(path: Path, metrics: tuple[str, ...] | None = None) -> list[Measured]:
    """The curves of a table, in its order of metrics and pools.

    Args:
        path: a CSV (lines that begin with # are left out), Parquet, or JSON Lines file.
        metrics: the metrics wanted; None for all, or for evaluation files those of ``EVALUATION_METRICS``.

    Raises:
        MeasurementsError: something cannot be read, an error lies outside (0, 1], samples decrease, a pool has one
            point or two sizes, a value is no number. Says the file and the row of each fault.
    """
    faults: list[str] = []
    curves: dict[tuple[str, str], list[_Point]] = {}
    known: set[str] = set()
    for place, row in table_rows(path):
        where = f"{path}, {place}"
        try:
            pool, size, seen = _keys(row)
            errors = _errors(row, path)
        except (MeasurementsError, ValueError) as error:
            faults.append(f"{where}: {error}")
            continue
        known |= errors.keys()
        for metric in metrics or (EVALUATION_METRICS if row.get("eval_results") else errors):
            if metric in errors:
                curves.setdefault((metric, pool), []).append(_Point(where, size, seen, errors[metric]))
    for (metric, pool), curve in curves.items():
        faults += _faults(metric, pool, curve)
    missing = sorted(set(metrics or ()) - known)
    if missing and known:
        faults.append(f"{path}: no metric {missing[0]}; there are: {', '.join(sorted(known))}")
    if not curves and not faults:
        faults.append(f"{path}: no measurements" + (f" of {' or '.join(EVALUATION_METRICS)}" if known else ""))
    if faults:
        more = [f"... and {len(faults) - _MOST_FAULTS} more"] if len(faults) > _MOST_FAULTS else []
        raise MeasurementsError("\n".join(faults[:_MOST_FAULTS] + more))
    return [
        Measured(
            metric,
            pool,
            curve[0].size,
            tuple(point.samples_seen for point in curve),
            tuple(point.error for point in curve),
        )
        for (metric, pool), curve in curves.items()
    ]


def _faults(metric: str, pool: str, curve: Sequence[_Point]) -> Iterator[str]:
    """The errors in a pool's points, by row."""
    if len(curve) == 1:
        yield f"{curve[0].where}: the only point of {pool} for {metric}; a curve needs at least two"
    for before, point in zip((None, *curve), curve, strict=False):
        if not 0 < point.error <= 1:
            yield f"{point.where}: error of {metric} is {point.error:g}, it must lie in (0, 1]"
        if before and point.samples_seen < before.samples_seen:
            seen = f"{before.samples_seen:,.0f} to {point.samples_seen:,.0f}"
            yield f"{point.where}: samples_seen of {pool} decreases from {seen}"
        if before and point.size != before.size:
            yield f"{point.where}: pool_size of {pool} is {point.size:,.0f}, and {before.size:,.0f} before"


def read_evaluation(path: Path) -> dict[str, float]:
    """The errors of one evaluated checkpoint, from DataComp's ``eval_results.jsonl``.

    The error of a task is 1 - its main metric; a task without one is left out. ``mean_18_tasks`` is 1 - the mean of the
    main metrics of ``TASKS_18``, and only there if all of them are. A task that stands twice counts as it stands last.

    Raises:
        MeasurementsError: the file cannot be read; says the line.
    """
    errors: dict[str, float] = {}
    for place, row in json_lines(path):
        try:
            key, metric = row["key"], row["metrics"]["main_metric"]
        except (KeyError, TypeError) as error:
            raise MeasurementsError(f"{path}, {place}: not an evaluation of DataComp: it has no {error}") from error
        if metric is not None:
            errors[str(key)] = 1 - finite_number("main_metric", metric)
    if errors.keys() >= TASKS_18:
        errors[MEAN_18] = math.fsum(errors[task] for task in TASKS_18) / len(TASKS_18)
    return errors


def content_digest(path: Path) -> list[str]:
    """Digests of a table and of the evaluation files that it names: a fit is current while they stay the same.

    Raises:
        MeasurementsError: the table cannot be read.
    """
    files = [path]
    for _, row in table_rows(path):
        if row.get("eval_results"):
            files.append(path.parent / str(row["eval_results"]))
    return [hashlib.blake2b(file_bytes(file), digest_size=16).hexdigest() for file in dict.fromkeys(files)]


def _keys(row: Mapping[str, Any]) -> tuple[str, float, float]:
    missing = [name for name in _KEYS if row.get(name) in (None, "")]
    if missing:
        raise ValueError(f"no {', '.join(missing)}; needed: {', '.join(_KEYS)}")
    numbers = {name: finite_number(name, row[name]) for name in ("pool_size", "samples_seen")}
    for name, value in numbers.items():
        if value <= 0:
            raise ValueError(f"{name} is {value:g}, it must be above 0")
    return str(row["pool"]), numbers["pool_size"], numbers["samples_seen"]


def _errors(row: Mapping[str, Any], path: Path) -> dict[str, float]:
    if row.get("eval_results"):
        return read_evaluation(path.parent / str(row["eval_results"]))
    if row.get("metric") in (None, "") or row.get("error") in (None, ""):
        raise ValueError("needs metric and error, or eval_results in their place")
    return {str(row["metric"]): finite_number("error", row["error"])}
