"""What the whole source will take, from a timed draw: time, tokens and money of every stage that is made by shard."""

from __future__ import annotations

import math
import time
from collections.abc import Generator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field, replace
from functools import wraps
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow.compute as pc

from dqe_assets.caption.accounting import busy_seconds
from dqe_assets.core.schema import SYNTHETIC_CAPTIONS_PREFIX
from dqe_assets.core.statistics import student_t
from dqe_assets.orchestration import graph
from dqe_resources.errors import DataQualityError, one_line
from dqe_resources.store import Store

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    import pyarrow as pa

    from dqe_assets.core.stage import Stage
    from dqe_assets.orchestration.settings import Settings
    from dqe_resources.captioners.protocol import Captioner
    from dqe_resources.sources import Source

PARTS = 4
"""Parts of a draw: they lie apart in the source, and how they differ says how sure the estimate is."""

JUDGED = "caption_judgements"


@dataclass(frozen=True, slots=True)
class Estimate:
    """What is expected for each sample, with the ends of its 95 % interval (Student's t over the parts)."""

    mean: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Estimate:
        """The mean of what the parts took; the interval has the width of nothing for one part."""
        array = np.asarray(values, np.float64)
        half = 0.0
        if array.size > 1:
            half = float(student_t(0.975, array.size - 1) * array.std(ddof=1) / math.sqrt(array.size))
        mean = float(array.mean())
        return cls(mean, max(mean - half, 0.0), mean + half)

    def times(self, factor: float) -> Estimate:
        """The same for so many samples."""
        return Estimate(self.mean * factor, self.low * factor, self.high * factor)

    def __add__(self, other: Estimate) -> Estimate:
        """Of both together: as if they erred alike, which is the wider interval."""
        return Estimate(self.mean + other.mean, self.low + other.low, self.high + other.high)


NOTHING = Estimate(0.0, 0.0, 0.0)


@dataclass(frozen=True, slots=True)
class StagePlan:
    """What a stage takes for each sample of the source, and for each shard.

    Attributes:
        stage: its name.
        captioner: the captioner that it is of, if it is one's.
        start_seconds: what the first part took longer than the others: mostly the loading of models.
        seconds: of work for each sample: the stage's own.
        shard_seconds: for each shard, whatever its size: plots, checks and writing.
        gpu_seconds: of GPUs; None if it is not known that one is used.
        tokens: read and written; None if it counts none.
        cost: in the currency of the prices; None without prices.
        error: why it could not be tried; the rest is then nothing.
    """

    stage: str
    captioner: str | None = None
    start_seconds: float = 0.0
    seconds: Estimate = NOTHING
    shard_seconds: Estimate = NOTHING
    gpu_seconds: Estimate | None = None
    tokens: Estimate | None = None
    cost: Estimate | None = None
    error: str | None = None

    def hours(self, rows: float, shards: float) -> Estimate:
        """Of so many samples in so many shards."""
        return self.seconds.times(rows / 3600) + self.shard_seconds.times(shards / 3600)


@dataclass(frozen=True, slots=True)
class SourcePlan:
    """What a source takes.

    Attributes:
        source: its name.
        rows: of the whole source.
        shards: of the whole source.
        drawn: of the draw, without the first part.
        stages: what each stage takes for each sample, in the order in which they are made.
    """

    source: str
    rows: int
    shards: int
    drawn: int
    stages: tuple[StagePlan, ...] = field(default=())


def plan_source(settings: Settings, source: Source, draw: int, say: Callable[[str], None]) -> SourcePlan:
    """Make every stage of a draw of a source in a store that is thrown away, and measure it.

    A first part, beside the draw, bears the loading of models. What one stage lacks, those after it lack too.

    Args:
        settings: the settings.
        source: one of their sources.
        draw: rows to draw.
        say: is told which stage is being measured.

    Raises:
        SourceError: the source cannot be read.
    """
    listed = [shard.rows for shard in source.shards()]
    rows = sum(listed)
    size = max(min(draw, rows) // PARTS, 1)
    drawn = source.model_copy(update={"shard_size": size}).as_it_is_now()
    there = [shard for shard in drawn.shards() if shard.rows == size] or list(drawn.shards())
    places = np.unique(np.linspace(0, len(there) - 1, min(len(there), PARTS + 1)).astype(int))
    parts = [there[place] for place in places]
    with TemporaryDirectory(prefix="dqe-plan-") as folder:
        tried = settings.model_copy(update={"sources": [drawn], "store": folder})
        vars(tried)["opened_store"] = Store(folder)
        keys = [drawn.key(part.index) for part in parts]
        stages = tuple(_measured(tried, keys, [part.rows for part in parts], source.shard_size, say))
    measured = parts[1:] or parts
    return SourcePlan(source.name, rows, len(listed), sum(part.rows for part in measured), stages)


def _measured(
    settings: Settings, keys: Sequence[str], rows: Sequence[int], shard_size: int, say: Callable[[str], None]
) -> Iterator[StagePlan]:
    resources = graph.resources(settings)
    captioners = {f"{SYNTHETIC_CAPTIONS_PREFIX}{one.name}": one for one in settings.captioners}
    missing: set[str] = set()
    # What is no table is kept elsewhere than in the store, such as the collection, and must not be touched.
    made = [one for one in graph.stages(settings) if one.partitioned and one.schema and not one.unpartitioned_inputs]
    for stage in made:
        lacked = missing.intersection(stage.inputs)
        if lacked:
            missing.add(stage.name)
            yield StagePlan(stage.name, error=f"needs {min(lacked)}")
            continue
        say(stage.name)
        try:
            seconds, others, tables = _made(settings, stage, keys, resources)
        except DataQualityError as error:
            missing.add(stage.name)
            yield StagePlan(stage.name, error=one_line(error))
            continue
        # A judge reads so many samples of a shard, whatever its size.
        share = min(settings.judging.per_shard / shard_size, 1.0) if settings.judging and stage.name == JUDGED else None
        yield replace(
            _plan(stage, seconds, tables, rows, captioners.get(stage.name), share),
            shard_seconds=Estimate.of(others[1:] or others),
        )


def _made(
    settings: Settings, stage: Stage, keys: Sequence[str], resources: dict[str, Any]
) -> tuple[list[float], list[float], list[pa.Table | None]]:
    """Of each part: the seconds that the stage's function takes, those of all else, and its tokens and times."""
    seconds, others, tables = [], [], []
    names = ("uid", "prompt_tokens", "completion_tokens", "seconds", "finished_at", "cost")
    columns = [name for name in names if stage.schema is not None and name in stage.schema.names]
    for key in keys:
        work = stage.work(settings.opened_store, key, keys)
        clock = _Clock()
        started = time.monotonic()
        replace(stage, function=clock.timed(stage.function)).make(work, stage.arguments(resources))
        seconds.append(clock.seconds)
        others.append(time.monotonic() - started - clock.seconds)
        counted = stage.schema is not None and {"prompt_tokens", "completion_tokens"} <= set(columns)
        tables.append(settings.opened_store.read(stage.name, key, stage.schema, columns) if counted else None)
    return seconds, others, tables


@dataclass(slots=True)
class _Clock:
    """Measures the time within a function, and within what it yields."""

    seconds: float = 0.0

    def timed(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """The same function, measured."""

        @wraps(function)
        def run(*arguments: Any, **named: Any) -> Any:
            with self._running():
                output = function(*arguments, **named)
            return self._batches(output) if isinstance(output, Generator) else output

        return run

    def _batches(self, output: Generator[Any, None, None]) -> Generator[Any, None, None]:
        with closing(output):
            while True:
                with self._running():
                    batch = next(output, None)
                if batch is None:
                    return
                yield batch

    @contextmanager
    def _running(self) -> Iterator[None]:
        started = time.monotonic()
        try:
            yield
        finally:
            self.seconds += time.monotonic() - started


def _plan(
    stage: Stage,
    seconds: Sequence[float],
    tables: Sequence[pa.Table | None],
    rows: Sequence[int],
    captioner: Captioner | None,
    share: float | None,
) -> StagePlan:
    # The first part loads models; a source that has no more is measured by it all the same.
    of = slice(1, None) if len(rows) > 1 else slice(None)
    counts = [_asked(table) if share is not None else count for table, count in zip(tables, rows, strict=True)][of]
    factor = 1.0 if share is None else share

    def each(values: Sequence[float]) -> Estimate:
        return Estimate.of([value / max(count, 1) for value, count in zip(values, counts, strict=True)]).times(factor)

    there = [table for table in tables[of] if table is not None]
    taken = each(list(seconds)[of])
    busy = [busy_seconds(table["finished_at"], table["seconds"]) or 0.0 for table in there]
    gpus = getattr(captioner, "gpus", None) or getattr(captioner, "tp", None)
    cost = None
    if captioner is not None and captioner.price_per_hour is not None and there:
        cost = each([one / 3600 * captioner.price_per_hour for one in busy])
    elif there and "cost" in there[0].column_names and any(one["cost"].null_count < len(one) for one in there):
        cost = each([pc.sum(_requests(one)["cost"]).as_py() or 0.0 for one in there])
    return StagePlan(
        stage.name,
        captioner.name if captioner else None,
        start_seconds=max(seconds[0] - taken.mean * rows[0], 0.0) if len(rows) > 1 and share is None else 0.0,
        seconds=taken,
        gpu_seconds=each([one * gpus for one in busy]) if gpus and there else None,
        tokens=each([_tokens(one) for one in there]) if there and any(map(_tokens, there)) else None,
        cost=cost,
    )


def _requests(table: pa.Table) -> pa.Table:
    """A row for each request: a judge's rows of a sample tell of the same one."""
    firsts = table.group_by("uid", use_threads=False).aggregate(
        [(name, "first") for name in table.column_names if name != "uid"]
    )
    return firsts.rename_columns([name.removesuffix("_first") for name in firsts.column_names])


def _asked(table: pa.Table | None) -> int:
    return 0 if table is None else len(pc.unique(table["uid"]))


def _tokens(table: pa.Table) -> float:
    requests = _requests(table)
    return float(sum(pc.sum(requests[name]).as_py() or 0 for name in ("prompt_tokens", "completion_tokens")))
