"""Reading measured training curves: the table that the settings name, DataComp's evaluation files, or what was trained.

A table has a row for each evaluated checkpoint and the columns ``pool``, ``pool_size`` (samples in the pool),
``samples_seen`` (repetitions counted), ``metric`` and ``error`` (1 - accuracy). In place of ``metric`` and ``error`` it
may have ``eval_results``, the path of that checkpoint's ``eval_results.jsonl`` as DataComp's evaluate.py writes it
(counted from the table's folder), which gives the errors of every task and of the mean over 18. Other columns are
left alone. Every fault is said by file and row.
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass, field
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
from dqe_assets.scaling.law import UNIT

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    import pyarrow as pa

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

TRAINED_ASSET = "training_curves"

EVERY_SAMPLE = "all"
"""What the training runs of every sample are called."""

_KEYS = ("pool", "pool_size", "samples_seen")
_MOST_FAULTS = 10


@dataclass(frozen=True)
class Choice:
    """Which of the curves of a table are of pools, which of mixtures of them, and from where on they count.

    Attributes:
        pools: names of the pools; None for all that are no mixtures.
        mixtures: the pools that each mixture is the union of.
        since: samples seen before which points are left out.
    """

    pools: tuple[str, ...] | None = None
    mixtures: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    since: float = 0

    def has(self, name: str) -> bool:
        """Whether a curve of this name is wanted."""
        return self.pools is None or name in self.pools or name in self.mixtures


class Scaling(MeasurementSettings):
    """Which measured training curves to fit, and for which compute to recommend a filter.

    Attributes:
        measurements: ``example``; ``trained``: what was trained and evaluated here (the asset ``training_curves``); or
            the path of a CSV, Parquet or JSON Lines table, from the data folder.
        samples_seen: The compute to recommend for: samples seen in training, such as 32M.
        metrics: The metrics to fit; by default all of the table (of evaluation files: ImageNet and the mean of 18; of
            what was trained here: those with a curve of every pool).
        pools: The pools to fit, which have no sample in common; by default all of the table that are no mixtures.
        mixtures: For each mixture in the table, the pools that it is the union of. Its points are not fitted, but
            compared with what is predicted of them.
        unit: Samples are counted in this many. After so many new samples, all pools have the same error ``a + d``.
        from_samples_seen: Points at fewer samples seen are left out: those of a time when no curve falls yet.
        scale: The law's ``a``, if it is given and not fitted.
        irreducible: The law's ``d``, if it is given and not fitted.
    """

    example: ClassVar[Path] = EXAMPLE_FILE
    trained: ClassVar[str] = TRAINED_ASSET

    samples_seen: Annotated[tuple[SampleCount, ...], Field(min_length=1)] = (32_000_000, 128_000_000, 640_000_000)
    metrics: Annotated[tuple[str, ...], Field(min_length=1)] | None = None
    pools: Annotated[tuple[str, ...], Field(min_length=1)] | None = None
    mixtures: dict[str, Annotated[tuple[str, ...], Field(min_length=2)]] = Field(default_factory=dict)
    unit: SampleCount = UNIT
    from_samples_seen: SampleCount = 1
    scale: Annotated[float, Field(gt=0)] | None = None
    irreducible: Annotated[float, Field(ge=0, lt=1)] | None = None

    def signature(self) -> list[Any]:
        """What decides the fits: all but the compute that is asked about, and the content of the files.

        Raises:
            MeasurementsError: the table cannot be read.
        """
        path = self.path
        return [self.model_dump(mode="json", exclude={"samples_seen"}), content_digest(path) if path else None]

    @property
    def choice(self) -> Choice:
        """Which of the curves are used, and as what."""
        return Choice(self.pools, self.mixtures, self.from_samples_seen)


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


def read_measurements(
    path: Path, metrics: tuple[str, ...] | None = None, choice: Choice | None = None
) -> list[Measured]:
    """The curves of a table, in its order of metrics and pools.

    Args:
        path: a CSV (lines that begin with # are left out), Parquet, or JSON Lines file.
        metrics: the metrics wanted; None for all, or for evaluation files those of ``EVALUATION_METRICS``.
        choice: which curves are wanted, and from where on; by default all.

    Raises:
        MeasurementsError: something cannot be read, an error lies outside (0, 1], samples decrease, a pool has one
            point or two sizes, a value is no number, a pool or a mixture is not there. Says the file and the row of
            each fault.
    """
    choice = choice or Choice()
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
        if not choice.has(pool) or seen < choice.since:
            continue
        for metric in metrics or (EVALUATION_METRICS if row.get("eval_results") else errors):
            if metric in errors:
                curves.setdefault((metric, pool), []).append(_Point(where, size, seen, errors[metric]))
    for (metric, pool), curve in curves.items():
        faults += _faults(metric, pool, curve, choice)
    faults += [f"{path}: {fault}" for fault in _missing(choice, {pool for _, pool in curves})] if curves else []
    missing = sorted(set(metrics or ()) - known)
    if missing and known:
        faults.append(f"{path}: no metric {missing[0]}; there are: {', '.join(sorted(known))}")
    if not curves and not faults:
        faults.append(f"{path}: no measurements" + (f" of {' or '.join(EVALUATION_METRICS)}" if known else ""))
    _refuse(faults)
    return [_measured(metric, pool, curve) for (metric, pool), curve in curves.items()]


def trained_measurements(
    table: pa.Table,
    metrics: tuple[str, ...] | None = None,
    choice: Choice | None = None,
    log: Callable[[str], None] = lambda _: None,
) -> list[Measured]:
    """The curves of the asset ``training_curves``, in its order of metrics and pools.

    Args:
        table: pool, pool_size, samples_seen, metric and error of it.
        metrics: the metrics wanted; by default those that have a curve of every pool.
        choice: which curves are wanted, and from where on; by default all.
        log: is told which metrics are left out, and why.

    Raises:
        MeasurementsError: a metric that is wanted, or every one, has no curve of a pool; a pool or a mixture is not
            there; ``all`` is taken for a pool beside others, whose samples it has.
    """
    choice = choice or Choice()
    curves: dict[str, dict[str, list[_Point]]] = {}
    for number, row in enumerate(table.to_pylist(), 1):
        if choice.has(row["pool"]) and row["samples_seen"] >= choice.since:
            point = _Point(f"{TRAINED_ASSET}, row {number}", row["pool_size"], row["samples_seen"], row["error"])
            curves.setdefault(row["metric"], {}).setdefault(row["pool"], []).append(point)
    names = {pool for by_pool in curves.values() for pool in by_pool}
    pools = names - choice.mixtures.keys()
    faults = [f"{TRAINED_ASSET}: {fault}" for fault in _missing(choice, names)]
    if EVERY_SAMPLE in pools and len(pools) > 1:
        faults.append(
            f"{TRAINED_ASSET}: '{EVERY_SAMPLE}' has the samples of the other pools too; name it under "
            "scaling.mixtures with the pools that it is the union of, or the pools alone under scaling.pools"
        )
    faults += [
        f"{TRAINED_ASSET}: no metric {metric}; there are: {', '.join(curves) or 'none'}"
        for metric in metrics or ()
        if metric not in curves
    ]
    _refuse(faults)
    unfit = {}
    for metric, by_pool in curves.items():
        wrong = [fault for pool, curve in by_pool.items() for fault in _faults(metric, pool, curve, choice)]
        wrong += [f"{TRAINED_ASSET}: {pool} has no point of {metric}" for pool in sorted(pools - by_pool.keys())]
        if wrong:
            unfit[metric] = wrong
    wanted = [metric for metric in metrics or curves if metrics or metric not in unfit]
    if not wanted or metrics:
        _refuse([fault for metric in metrics or curves for fault in unfit.get(metric, ())])
    if not wanted:
        raise MeasurementsError(f"{TRAINED_ASSET}: no measurements; materialise training runs and their evaluation")
    for metric, wrong in unfit.items():
        log(f"{metric} is left out: {wrong[0]}")
    return [_measured(metric, pool, curve) for metric in wanted for pool, curve in curves[metric].items()]


def _refuse(faults: Sequence[str]) -> None:
    if faults:
        more = [f"... and {len(faults) - _MOST_FAULTS} more"] if len(faults) > _MOST_FAULTS else []
        raise MeasurementsError("\n".join([*faults[:_MOST_FAULTS], *more]))


def _measured(metric: str, pool: str, curve: Sequence[_Point]) -> Measured:
    return Measured(
        metric,
        pool,
        curve[0].size,
        tuple(point.samples_seen for point in curve),
        tuple(point.error for point in curve),
    )


def _missing(choice: Choice, names: Iterable[str]) -> Iterator[str]:
    """What the choice names that has no point."""
    there = {*names}
    for pool in choice.pools or ():
        if pool not in there:
            yield f"no pool '{pool}' of scaling.pools; there are: {', '.join(sorted(there))}"
    for mixture, pools in choice.mixtures.items():
        if mixture not in there:
            yield f"no mixture '{mixture}' of scaling.mixtures; there are: {', '.join(sorted(there))}"
        for pool in pools:
            if pool not in there or pool in choice.mixtures:
                known = ", ".join(sorted(there - choice.mixtures.keys()))
                yield f"scaling.mixtures: {mixture} is of '{pool}', which is no pool; there are: {known}"


def _faults(metric: str, pool: str, curve: Sequence[_Point], choice: Choice) -> Iterator[str]:
    """The errors in a pool's points, by row. Of a mixture one point is enough: nothing is fitted to it."""
    if len(curve) == 1 and pool not in choice.mixtures:
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
