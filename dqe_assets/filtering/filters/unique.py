"""One of each cluster of duplicates, among what is kept of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import numpy as np
import pyarrow as pa
from pydantic import InstanceOf

from dqe_assets.filtering.filters.among import Among
from dqe_assets.filtering.filters.protocol import FilterError, Selection
from dqe_assets.filtering.pool import HEIGHT, UID, WIDTH, numbers, whole
from dqe_assets.filtering.subset import UID_TYPE, distinct, order_of, parse_uids

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from dqe_assets.filtering.filters.among import Batches
    from dqe_assets.filtering.filters.protocol import Filter

CLUSTER = "cluster"
IS_REPRESENTATIVE = "is_representative_any"
REPRESENTATIVE = "representative"


class Unique(Among):
    """One sample of each duplicate cluster of which ``of`` keeps any, and every sample that is in no cluster.

    Attributes:
        of: What to choose among; by default what all else keeps that it is joined to by ``&``.
        keep: Which one: ``representative``, the one that its cluster chose, or if that is not there the one with the
            most pixels; or the column of a score, of which the highest is kept. Of equal ones it is that with the
            smallest uid.
    """

    name: ClassVar[str] = "unique"
    meaning: ClassVar[str] = "one sample of each cluster of duplicates, among what else is kept"
    of: InstanceOf[Selection] | None = None
    keep: str = REPRESENTATIVE

    @property
    def read(self) -> tuple[str, ...]:
        """The cluster, and what decides in it."""
        return (CLUSTER, *((IS_REPRESENTATIVE, WIDTH, HEIGHT) if self.keep == REPRESENTATIVE else (self.keep,)))

    def fitted_to(self, batches: Batches) -> Filter:
        """With one of each cluster. Memory holds the samples that are in one, and the uids that are kept.

        Raises:
            FilterError: the column of ``keep`` does not hold numbers.
        """
        alone, clusters = [np.empty(0, UID_TYPE)], [pa.array([], pa.string())]
        uids, ranks = [np.empty(0, UID_TYPE)], [np.empty((0, 2))]
        for batch in batches():
            found, cluster = parse_uids(batch.column(UID)), whole(batch.column(CLUSTER))
            inside = cluster.is_valid().to_numpy(zero_copy_only=False)
            alone.append(found[~inside])
            uids.append(found[inside])
            clusters.append(cluster.drop_null().cast(pa.string()))
            ranks.append(self._rank(batch)[inside])
        members, rank = np.concatenate(uids), np.concatenate(ranks)
        codes = np.asarray(pa.chunked_array(clusters).combine_chunks().dictionary_encode().indices, np.int64)
        by_uid = order_of(members)
        order = by_uid[np.lexsort((-rank[by_uid, 1], -rank[by_uid, 0], codes[by_uid]))]
        first = np.diff(codes[order], prepend=-1) > 0
        kept = members[order[first]]
        facts = {"clusters": len(kept), "samples_in_clusters": distinct(members[by_uid])}
        return self.keeping(np.concatenate([*alone, kept]), facts)

    def _rank(self, batch: pa.RecordBatch) -> NDArray[np.float64]:
        """What decides first and second, [n, 2]; higher is better."""
        if self.keep != REPRESENTATIVE:
            column = batch.column(self.keep)
            if not (pa.types.is_integer(column.type) or pa.types.is_floating(column.type)):
                raise FilterError(f"{self.name}: column {self.keep} is {column.type}; expected numbers")
            values = numbers(column).astype(np.float64)
            return np.stack([np.where(np.isnan(values), -np.inf, values), np.zeros(len(values))], axis=1)
        chosen = whole(batch.column(IS_REPRESENTATIVE)).fill_null(False).to_numpy(zero_copy_only=False)
        pixels = numbers(batch.column(WIDTH)).astype(np.float64) * numbers(batch.column(HEIGHT)).astype(np.float64)
        return np.stack([chosen.astype(np.float64), np.nan_to_num(pixels, nan=-1)], axis=1)
