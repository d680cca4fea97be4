"""What the configured filters keep of a pool: a mask for each, and how many samples each step leaves."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from dqe_assets.filtering.select import columns_of, fit, leaf_masks

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from dqe_assets.filtering.expression import Expression
    from dqe_assets.filtering.filters import Filter, Mask
    from dqe_assets.filtering.pool import Pool

    Masks = Mapping[str, Mask]

STEPS = pa.schema(
    [
        ("filter", pa.string()),
        ("expression", pa.string()),
        ("step", pa.int32()),
        ("condition", pa.string()),
        ("samples", pa.int64()),
        ("kept", pa.int64()),
    ]
)
"""Schema of ``steps_table``: ``step`` counts from 1, ``samples`` are all of the pool, ``kept`` those left after it."""

PAIRS = pa.schema([("filter_a", pa.string()), ("filter_b", pa.string()), ("kept_by_both", pa.int64())])
"""Schema of ``pairs_table``: every pair of filters both ways round, and each filter with itself."""


@dataclass(frozen=True)
class FilterSet:
    """Filters by name, fitted to pools: every leaf that several of them share is computed once.

    Attributes:
        expressions: what each filter is.
        fitted: the fitted filter of each leaf of any of them, by the leaf's text.
    """

    expressions: Mapping[str, Expression]
    fitted: Mapping[str, Filter]

    @classmethod
    def fitted_to(cls, expressions: Mapping[str, Expression], pools: Sequence[Pool]) -> FilterSet:
        """Find the thresholds and centroids that depend on the whole pools, taken as one.

        Raises:
            PoolError: a pool cannot be read, or lacks a column that a filter needs.
        """
        leaves = {leaf.text: leaf for expression in expressions.values() for leaf in expression.leaves}
        return cls(dict(expressions), fit(tuple(leaves.values()), pools))

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns that the masks need."""
        return columns_of(self.fitted)

    def leaves(self, table: pa.Table | pa.RecordBatch) -> Masks:
        """What each leaf keeps of some rows, bool [n], by the leaf's text."""
        return leaf_masks(self.fitted, table)

    def masks(self, leaves: Masks) -> dict[str, Mask]:
        """What each filter keeps, by its name, of what the leaves keep."""
        return {name: expression.mask(leaves) for name, expression in self.expressions.items()}

    def times(self, name: str, table: pa.Table | pa.RecordBatch, leaves: Masks) -> NDArray[np.int64]:
        """How often a filter keeps each of some rows, [n], of what the leaves keep."""
        expression = self.expressions[name]
        if not expression.repeats:
            return expression.mask(leaves).astype(np.int64)
        fitted = {leaf.text: self.fitted[leaf.text] for leaf in expression.leaves}
        times = {
            text: leaf.times(table) if leaf.repeats else leaves[text].astype(np.int64) for text, leaf in fitted.items()
        }
        return expression.times(times)


class Tally:
    """Counts what filters keep, batch by batch."""

    def __init__(self, filters: FilterSet) -> None:
        self._filters = filters
        self._samples = 0
        self._steps = {name: np.zeros(len(one.terms), np.int64) for name, one in filters.expressions.items()}
        self._leaves = dict.fromkeys(filters.fitted, 0)
        self._both = np.zeros((len(filters.expressions),) * 2, np.int64)

    def add(self, rows: int, leaves: Masks, masks: Masks) -> None:
        """Count a batch of so many rows."""
        self._samples += rows
        for name, expression in self._filters.expressions.items():
            left = np.ones(rows, bool)
            for step, term in enumerate(expression.terms):
                left &= term.mask(leaves)
                self._steps[name][step] += np.count_nonzero(left)
        for text, mask in leaves.items():
            self._leaves[text] += int(np.count_nonzero(mask))
        if masks:
            kept = np.stack(list(masks.values())).astype(np.int64)
            self._both += kept @ kept.T

    def facts(self) -> dict[str, Any]:
        """What was counted, as JSON: the filters with their steps, their leaves with what fitting found, the pairs."""
        leaves = {leaf.text: leaf for one in self._filters.expressions.values() for leaf in one.leaves}
        return {
            "samples": self._samples,
            "filters": [
                {
                    "filter": name,
                    "expression": expression.text,
                    "steps": [
                        {"condition": condition, "kept": int(kept)}
                        for condition, kept in zip(expression.conditions, self._steps[name], strict=True)
                    ],
                    "kept": int(self._steps[name][-1]),
                }
                for name, expression in self._filters.expressions.items()
            ],
            "leaves": [
                {"leaf": text, "fitted": one.text, "kept": self._leaves[text], **_fraction(leaves[text]), **one.facts}
                for text, one in self._filters.fitted.items()
            ],
            "both": self._both.tolist(),
        }


def _fraction(leaf: Filter) -> dict[str, float]:
    """The fraction that a filter is to keep, if it is one by fraction."""
    fraction = getattr(leaf, "fraction", getattr(leaf, "keep_fraction", None))
    return {} if fraction is None else {"fraction": fraction}


def steps_table(facts: Mapping[str, Any]) -> pa.Table:
    """The steps of ``Tally.facts``: a row for each filter and step, in the order of ``STEPS``."""
    rows = [
        {
            "filter": one["filter"],
            "expression": one["expression"],
            "step": number,
            "samples": facts["samples"],
            **step,
        }
        for one in facts["filters"]
        for number, step in enumerate(one["steps"], 1)
    ]
    return pa.Table.from_pylist(rows, STEPS)


def pairs_table(facts: Mapping[str, Any]) -> pa.Table:
    """The pairs of ``Tally.facts``, in the order of ``PAIRS``."""
    names = [one["filter"] for one in facts["filters"]]
    rows = [
        {"filter_a": a, "filter_b": b, "kept_by_both": facts["both"][i][j]}
        for i, a in enumerate(names)
        for j, b in enumerate(names)
    ]
    return pa.Table.from_pylist(rows, PAIRS)
