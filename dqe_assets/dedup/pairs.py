"""Pairs of duplicate images of every kind; those between known samples are kept and not looked for again."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from dqe_assets.core.uids import packed_alike, places_of_uids
from dqe_assets.dedup.exact import Pairs, exact_pairs
from dqe_assets.dedup.perceptual import perceptual_pairs
from dqe_assets.dedup.semantic import EXACT_BELOW, Prepared, semantic_pairs
from dqe_assets.dedup.tables import DUPLICATE_PAIRS

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from dqe_assets.dedup.settings import PairRules

KINDS = ("exact", "perceptual", "semantic")

_HASH_BITS = 64


def find_pairs(
    samples: pa.Table,
    embeddings: NDArray[np.floating],
    rules: PairRules,
    *,
    earlier: pa.Table | None = None,
    unchanged: NDArray[np.bool_] | None = None,
    exact_below: int = EXACT_BELOW,
    prepared: Prepared | None = None,
    same_buckets: bool = True,
) -> pa.Table:
    """All pairs of duplicate images; of equal ones, each with the first of them.

    Digests are always compared again, which takes no longer than reading them. Near pairs are looked for only if one
    of the two samples is not known. As equal samples count as one, a near pair speaks for all that equal its two: those
    that were linked to a sample which is gone are looked up again.

    Args:
        samples: one row a sample that has an image, in ascending order of ``uid``, with ``sha256`` of ``RAW_SAMPLES``
            and ``pixel_digest``, ``perceptual_hash``, ``contrast`` of ``IMAGE_FEATURES``.
        embeddings: their features, floats [n, d]; they may be mapped from a file.
        rules: the thresholds.
        earlier: what this function found with the same rules.
        unchanged: bool [n], which samples it was found among, as they are now.
        exact_below: as in `dqe_assets.dedup.semantic.semantic_pairs`.
        prepared: likewise.
        same_buckets: whether ``earlier`` was found in the same buckets; semantic pairs are else all looked for again.

    Returns:
        Table of ``DUPLICATE_PAIRS`` by kind, uid_a and uid_b. What ``earlier`` says changes nothing in it, except in
        which few of the semantic pairs among more than ``exact_below`` samples are missed, unless they are prepared.

    Raises:
        ValueError: the samples are not in order.
    """
    samples = samples.combine_chunks()
    uids = samples["uid"].combine_chunks()
    before = DUPLICATE_PAIRS.empty_table() if earlier is None or unchanged is None else earlier
    packed, *ends = packed_alike(uids, before["uid_a"], before["uid_b"])
    if not (packed[1:] > packed[:-1]).all():
        raise ValueError("samples must be in ascending order of uid, each once")
    places = np.stack([places_of_uids(packed, end) for end in ends], axis=1)
    none = np.zeros(len(uids), np.bool_)
    known = {
        kind: _Known(kind, before, places, none if unchanged is None or not holds else unchanged)
        for kind, holds in (("perceptual", earlier is not None), ("semantic", earlier is not None and same_buckets))
    }

    exact = np.unique(np.concatenate([exact_pairs(samples["sha256"]), exact_pairs(samples["pixel_digest"])]), axis=0)
    perceptual = perceptual_pairs(
        samples["perceptual_hash"].to_numpy(),
        rules.max_distance,
        contrast=samples["contrast"].to_numpy(),
        min_contrast=rules.min_contrast,
        known=known["perceptual"].samples,
    )
    semantic, _ = semantic_pairs(
        embeddings,
        rules.min_cosine,
        exact_below=exact_below,
        known=known["semantic"].samples,
        prepared=prepared,
    )
    alike = 1 - perceptual.measure / np.float32(_HASH_BITS)
    return pa.concat_tables(
        [
            _table("exact", uids, exact, np.ones(len(exact), np.float32)),
            _table("perceptual", uids, *known["perceptual"].joined(Pairs(perceptual.equal, perceptual.near, alike))),
            _table("semantic", uids, *known["semantic"].joined(semantic)),
        ]
    ).combine_chunks()


class _Known:
    """The pairs of one kind that were found earlier and still hold.

    Attributes:
        samples: bool [n], those whose value was looked up earlier, by itself or by a sample that is still there.
    """

    def __init__(self, kind: str, earlier: pa.Table, places: NDArray[np.int64], unchanged: NDArray[np.bool_]) -> None:
        self.samples = unchanged.copy()
        is_kind = pc.equal(earlier["kind"], kind)
        pairs = places[is_kind.to_numpy()]
        holds = np.append(unchanged, False)[pairs]
        similarity = earlier["similarity"].filter(is_kind).to_numpy()
        # Its value was looked up by the first sample that had it, which is gone.
        orphaned = pairs[holds[:, 1] & ~holds[:, 0] & (similarity == 1), 1]
        self.samples[orphaned] = False
        both = holds.all(axis=1)
        self._pairs, self._similarity = pairs[both], similarity[both]

    def joined(self, found: Pairs[Any]) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Links, the known near pairs and those found: each once, and its similarity."""
        first = np.arange(len(self.samples))
        first[found.equal[:, 1]] = found.equal[:, 0]
        is_known = np.zeros(len(first), np.bool_)
        is_known[first[self.samples]] = True
        kept = np.sort(first[self._pairs], axis=1)
        both = (kept[:, 0] != kept[:, 1]) & is_known[kept].all(axis=1)
        pairs = np.concatenate([found.equal, found.near, kept[both]])
        similarity = np.concatenate([np.ones(len(found.equal)), found.measure, self._similarity[both]])
        order = np.lexsort((pairs[:, 1], pairs[:, 0]))
        return pairs[order], similarity[order].astype(np.float32)


def _table(kind: str, uids: pa.Array, pairs: NDArray[np.int64], similarity: NDArray[np.float32]) -> pa.Table:
    a, b = (uids.take(pa.array(pairs[:, end])) for end in (0, 1))
    columns = {"kind": pa.repeat(kind, len(pairs)), "uid_a": a, "uid_b": b, "similarity": similarity}
    return pa.table(columns, DUPLICATE_PAIRS)
