"""Subsets and sources mixed by weights, with caps on how often a sample is repeated."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from dqe_assets.core.hashing import draw_keys, mixed
from dqe_assets.filtering.subset import UID_TYPE, order_of, run_starts

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Drawn:
    """What comes out of a mixture.

    Attributes:
        uids: ``u8,u8`` [n], sorted, each as often as it was drawn.
        counts: how many of them are of each part, int64 [parts].
    """

    uids: NDArray[np.void]
    counts: NDArray[np.int64]


def mix_parts(
    parts: Sequence[NDArray[np.void]], weights: Sequence[float], caps: Sequence[int], total: int | None, seed: int
) -> Drawn:
    """Draw from several parts by their weights.

    Of each part all entries are taken as often as they are needed as a whole, and the rest is drawn by a hash of the
    uid. A uid of several parts is drawn for each of them.

    Args:
        parts: the uids of each part, sorted; what stands in it several times is as many entries.
        weights: of the parts, each more than 0.
        caps: how often an entry is repeated at most, at least 1.
        total: how many to draw; as many as there are entries where it is None.
        seed: of the draws.
    """
    sizes = np.array([len(part) for part in parts], np.int64)
    counts = quotas(sizes, weights, caps, int(sizes.sum()) if total is None else total)
    pieces = [_drawn(part, int(count), seed) for part, count in zip(parts, counts, strict=True)]
    uids = np.concatenate([np.empty(0, UID_TYPE), *pieces])
    return Drawn(uids[order_of(uids)], counts)


def quotas(sizes: NDArray[np.integer], weights: Sequence[float], caps: Sequence[int], total: int) -> NDArray[np.int64]:
    """How many to draw of each part, int64 [parts]: in proportion to the weights, as far as the caps allow.

    What a part cannot give is shared by the others in proportion to theirs. The sum is ``total``, or less if all parts
    are at their caps.

    Args:
        sizes: entries of each part.
        weights: of the parts, each more than 0.
        caps: how often an entry is repeated at most.
        total: how many to draw, at least 0.
    """
    most = np.asarray(sizes, np.int64) * np.asarray(caps, np.int64)
    wanted = np.asarray(weights, np.float64)
    exact = np.zeros(len(most))
    is_free = np.ones(len(most), bool)
    while is_free.any():
        left = total - most[~is_free].sum()
        exact[is_free] = left * wanted[is_free] / wanted[is_free].sum()
        beyond = is_free & (exact > most)
        if not beyond.any():
            break
        is_free &= ~beyond
    exact[~is_free] = most[~is_free]
    found = np.floor(exact).astype(np.int64)
    # The largest remainders are rounded up.
    missing = min(total, int(most.sum())) - int(found.sum())
    order = np.lexsort((np.arange(len(most)), found - exact))
    can_grow = order[(found < most)[order]][:missing]
    found[can_grow] += 1
    return found


def _drawn(uids: NDArray[np.void], count: int, seed: int) -> NDArray[np.void]:
    if not len(uids):
        return uids
    whole, rest = divmod(count, len(uids))
    # Entries of one uid differ by which of them they are.
    copy = (np.arange(len(uids)) - run_starts(uids)).astype(np.uint64)
    keys = mixed(draw_keys(uids["f0"], uids["f1"]) ^ mixed(copy ^ mixed(np.array([seed], np.uint64))))
    some = np.argsort(keys, kind="stable")[:rest]
    return np.concatenate([np.repeat(uids, whole), uids[some]])
