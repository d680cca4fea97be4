"""Filters applied to pools: fitted first, then batch by batch, each filter once."""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

import pyarrow as pa

from dqe_assets.filtering.pool import TEXT, batch_rows
from dqe_resources.parallel import ordered_map

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from dqe_assets.filtering.filters import Filter, Mask
    from dqe_assets.filtering.pool import Part, Pool

R = TypeVar("R")


@dataclass(frozen=True, slots=True)
class Batch:
    """Some rows of a pool.

    Attributes:
        pool: position of the pool.
        part: the part that they are of.
        first: position of the first of them in the part.
        table: the rows.
    """

    pool: int
    part: Part
    first: int
    table: pa.RecordBatch


def fit(leaves: Iterable[Filter], pools: Sequence[Pool]) -> dict[str, Filter]:
    """Each filter fitted to the pools, taken as one, by the text of the filter before.

    Raises:
        PoolError: a pool cannot be read, or lacks a column.
        FilterError: a filter cannot be fitted to them.
    """
    fitted: dict[str, Filter] = {}

    def fit_once(leaf: Filter) -> None:
        if leaf.text in fitted:
            return
        for inner in leaf.among:
            fit_once(inner)
        fitted[leaf.text] = leaf.fit_among(pools, fitted)

    wanted = list(leaves)
    for leaf in wanted:
        fit_once(leaf)
    return {leaf.text: fitted[leaf.text] for leaf in wanted}


def leaf_masks(fitted: Mapping[str, Filter], table: pa.Table | pa.RecordBatch) -> dict[str, Mask]:
    """What each fitted filter keeps of a table, [n], by the names of ``fitted``.

    Where several ask for a caption's language by one detector that the table has no answers of, it is asked once.
    """
    asked = Counter(leaf.detector for leaf in fitted.values() if leaf.detector is not None)
    for detector, times in asked.items():
        if times > 1 and detector.column not in table.schema.names:
            table = table.append_column(detector.column, pa.array(detector.english(table.column(TEXT))))
    return {text: leaf.mask(table) for text, leaf in fitted.items()}


def columns_of(fitted: Mapping[str, Filter]) -> tuple[str, ...]:
    """The columns that filters read, each once."""
    return tuple(dict.fromkeys(column for leaf in fitted.values() for column in leaf.columns))


def over_batches(compute: Callable[[Batch], R], pools: Sequence[Pool], columns: Sequence[str]) -> Iterator[R]:
    """A function of every batch of the pools, in order, on all cores; few batches are in memory at a time."""

    def batches() -> Iterator[Batch]:
        for number, pool in enumerate(pools):
            for part in pool.parts:
                first = 0
                for table in part.batches(columns, batch_rows(columns)):
                    yield Batch(number, part, first, table)
                    first += table.num_rows

    return ordered_map(compute, batches(), ahead=2 * (os.cpu_count() or 1))
