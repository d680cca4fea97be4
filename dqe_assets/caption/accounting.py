"""The cost of captions: time, tokens, money."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True, slots=True)
class Accounting:
    """The cost of the captions of a table.

    Attributes:
        captions: number of captions.
        errors: samples that the captioner failed to caption.
        flags: how many captions have each flag, the most frequent first.
        prompt_tokens: of all prompts and images.
        completion_tokens: of all captions.
        busy_seconds: for which at least one caption was under way; None if no model ran.
    """

    captions: int
    errors: int
    flags: Mapping[str, int]
    prompt_tokens: int
    completion_tokens: int
    busy_seconds: float | None

    @property
    def seconds_per_caption(self) -> float | None:
        """Busy seconds for each caption."""
        return self.busy_seconds / self.captions if self.busy_seconds and self.captions else None

    def cost(self, price_per_hour: float | None) -> float | None:
        """What the busy seconds cost, at the price of an hour."""
        return (
            None if price_per_hour is None or self.busy_seconds is None else self.busy_seconds / 3600 * price_per_hour
        )


def account(rows: pa.Table) -> Accounting:
    """The cost of the captions of a ``SYNTHETIC_CAPTIONS`` table."""
    counts = pc.value_counts(pc.list_flatten(rows["flags"].combine_chunks()))
    flags = sorted(((one["values"], one["counts"]) for one in counts.to_pylist()), key=lambda item: (-item[1], item[0]))
    return Accounting(
        captions=len(rows) - rows["caption"].null_count,
        errors=pc.sum(pc.equal(rows["finish_reason"], "error")).as_py() or 0,
        flags=dict(flags),
        prompt_tokens=pc.sum(rows["prompt_tokens"]).as_py() or 0,
        completion_tokens=pc.sum(rows["completion_tokens"]).as_py() or 0,
        busy_seconds=busy_seconds(rows["finished_at"], rows["seconds"]),
    )


def busy_seconds(finished_at: pa.ChunkedArray, seconds: pa.ChunkedArray) -> float | None:
    """The time for which at least one caption was under way: neither the sum of many at once, nor the pauses.

    Args:
        finished_at: timestamps in microseconds, with nulls where no model ran.
        seconds: of each.

    Returns:
        The length of the union of the intervals that end at ``finished_at`` and last ``seconds``; None without any.
    """
    ran = pc.and_(pc.is_valid(finished_at), pc.is_valid(seconds))
    ends = finished_at.filter(ran).cast(pa.int64()).to_numpy()
    if not ends.size:
        return None
    starts = ends - np.round(seconds.filter(ran).to_numpy() * 1e6).astype(np.int64)
    order = np.argsort(starts, kind="stable")
    starts, ends = starts[order], ends[order]
    covered = np.concatenate([starts[:1], np.maximum.accumulate(ends)[:-1]])
    return float(np.maximum(ends - np.maximum(starts, covered), 0).sum() / 1e6)
