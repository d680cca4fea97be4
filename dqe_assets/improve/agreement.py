"""What judgements say: means with their uncertainty, and how far they agree with the scorer."""

from __future__ import annotations

from itertools import combinations
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pyarrow as pa

from dqe_assets.core.schema import ORIGINAL
from dqe_assets.core.statistics import mean_ranks, student_t
from dqe_resources.captioners.judge import CRITERIA

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import ArrayLike

MEASURES = ("overall", *CRITERIA)
"""What is averaged: the mean of the marks, and each mark."""


class Interval(NamedTuple):
    """A mean and the ends of its 95 % interval; the ends are NaN for fewer than two values, the mean for none."""

    mean: float
    low: float
    high: float


def mean_interval(values: ArrayLike) -> Interval:
    """The mean of values with its 95 % interval by Student's t distribution.

    Args:
        values: [n], finite.
    """
    array = np.asarray(values, np.float64)
    if array.size < 2:
        return Interval(float(array[0]) if array.size else np.nan, np.nan, np.nan)
    mean = float(array.mean())
    half = float(student_t(0.975, array.size - 1) * array.std(ddof=1) / np.sqrt(array.size))
    return Interval(mean, mean - half, mean + half)


def cohen_kappa(first: ArrayLike, second: ArrayLike) -> float:
    """How far two raters agree beyond chance (Cohen 1960): 1 always, 0 as by chance, below 0 less than that.

    Args:
        first: [n], the category that one rater gives each item: numbers or strings.
        second: [n], that of the other.

    Returns:
        Kappa; NaN if there is no item, or if both give all items one category, so that chance explains all.

    Raises:
        ValueError: they rate different numbers of items.
    """
    a, b = np.asarray(first), np.asarray(second)
    if a.shape != b.shape:
        msg = f"the raters rate {a.size} and {b.size} items"
        raise ValueError(msg)
    categories, codes = np.unique(np.concatenate([a, b]), return_inverse=True)
    table = np.zeros((len(categories), len(categories)))
    np.add.at(table, (codes[: a.size], codes[a.size :]), 1)
    by_chance = float(table.sum(1) @ table.sum(0)) / max(a.size, 1) ** 2
    if not a.size or by_chance == 1:
        return float("nan")
    return (float(np.trace(table)) / a.size - by_chance) / (1 - by_chance)


def rank_correlation(first: ArrayLike, second: ArrayLike) -> float | None:
    """How far two scores put things into the same order (Spearman 1904): 1 the same, 0 none, -1 the opposite.

    Args:
        first: [n], finite.
        second: [n], finite; of the same things.

    Returns:
        The correlation; None for fewer than three things, or if a score is the same for all.
    """
    a, b = (mean_ranks(np.asarray(values, np.float64)) for values in (first, second))
    if len(a) < 3 or not a.std() or not b.std():
        return None
    return float(np.corrcoef(a, b)[0, 1])


def means(judged: pa.Table, by: str) -> pa.Table:
    """The means of the marks for each value of a column, with 95 % intervals.

    Args:
        judged: rows of ``CAPTION_JUDGEMENTS`` that have marks.
        by: ``caption_source``, or ``place``.

    Returns:
        The value, ``judged`` (captions), and for each of ``MEASURES`` its mean, ``<measure>_low`` and
        ``<measure>_high``, null if there are too few to say; ``original`` first, then in order.
    """
    values = judged[by].to_pylist()
    records = []
    for value in sorted(set(values), key=lambda value: (value != ORIGINAL, value)):
        rows = np.flatnonzero([one == value for one in values])
        record: dict[str, Any] = {by: value, "judged": len(rows)}
        for measure in MEASURES:
            interval = mean_interval(judged[measure].to_numpy()[rows])
            names = (measure, f"{measure}_low", f"{measure}_high")
            record |= {name: _known(end) for name, end in zip(names, interval, strict=True)}
        records.append(record)
    ends = [(f"{measure}{end}", pa.float64()) for measure in MEASURES for end in ("", "_low", "_high")]
    return pa.Table.from_pylist(records, pa.schema([(by, judged.schema.field(by).type), ("judged", pa.int64()), *ends]))


def agreement(judged: pa.Table) -> pa.Table:
    """How far judge and scorer prefer the same one of two captions, for each pair of caption sources.

    The judge prefers the caption with the higher mean of the marks, the scorer that with the higher similarity, as its
    probability does. Where either finds them equal it has no preference: such pairs are counted, and left out of kappa.

    Args:
        judged: ``uid``, ``caption_source``, ``overall`` and ``similarity`` of captions that were judged; a caption
            without a similarity is left out.

    Returns:
        For each pair ``source_a`` and ``source_b`` (``original`` first, then by name): ``pairs`` of captions of one
        image; ``ties``, those where either has no preference; of the others how often the judge and how often the
        scorer prefers a (``judge_prefers_a``, ``scorer_prefers_a``), the share on which they agree (``agreed``), and
        Cohen's ``kappa``, both null if there is nothing to say.
    """
    samples: dict[str, dict[str, tuple[float, float]]] = {}
    for uid, source, overall, similarity in zip(
        *(judged[name].to_pylist() for name in ("uid", "caption_source", "overall", "similarity")), strict=True
    ):
        if similarity is not None:
            samples.setdefault(uid, {})[source] = (overall, similarity)
    preferred: dict[tuple[str, str], list[tuple[float, float]]] = {}
    for captions in samples.values():
        for a, b in combinations(sorted(captions, key=lambda name: (name != ORIGINAL, name)), 2):
            signs = np.sign(np.subtract(captions[a], captions[b]))
            preferred.setdefault((a, b), []).append((float(signs[0]), float(signs[1])))
    records = [_pair(*pair, preferred[pair]) for pair in sorted(preferred, key=_original_first)]
    return pa.Table.from_pylist(records, _AGREEMENT)


_AGREEMENT = pa.schema(
    [
        *((name, pa.string()) for name in ("source_a", "source_b")),
        *((name, pa.int64()) for name in ("pairs", "ties", "judge_prefers_a", "scorer_prefers_a")),
        *((name, pa.float64()) for name in ("agreed", "kappa")),
    ]
)
AGREEMENT_COLUMNS = _AGREEMENT.names


def _pair(a: str, b: str, preferred: Sequence[tuple[float, float]]) -> dict[str, Any]:
    signs = np.array(preferred)
    decided = signs[(signs != 0).all(1)]
    judge, scorer = decided.T
    return {
        "source_a": a,
        "source_b": b,
        "pairs": len(signs),
        "ties": len(signs) - len(decided),
        "judge_prefers_a": int((judge > 0).sum()),
        "scorer_prefers_a": int((scorer > 0).sum()),
        "agreed": float((judge == scorer).mean()) if len(decided) else None,
        "kappa": _known(cohen_kappa(judge, scorer)),
    }


def _original_first(pair: tuple[str, str]) -> tuple[bool, tuple[str, str]]:
    return pair[0] != ORIGINAL, pair


def _known(value: float) -> float | None:
    return None if np.isnan(value) else value
