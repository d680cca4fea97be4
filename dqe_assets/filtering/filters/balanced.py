"""Samples drawn so that no concept has many more than others: MetaCLIP's balancing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field, PrivateAttr

from dqe_assets.concepts.lists import as_lists
from dqe_assets.filtering.filters.protocol import Filter, FilterError, Mask, Seed
from dqe_assets.filtering.pool import UID, TablePool, batches_of, whole
from dqe_assets.filtering.scores import balanced_probabilities, tail_share, tail_threshold
from dqe_assets.filtering.subset import parse_uids, uniform_draws

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from dqe_assets.filtering.pool import Pool

    Shown = tuple[NDArray[np.int64], pa.Array]

CONCEPTS = {"caption": "caption_concepts", "image": "image_concepts"}
LANGUAGE = "language"

_POINTS = 200
_SALT = 0xBA1A7CED
_BETWEEN = "\n"
"""Between a language and a concept: neither has it."""


class Balanced(Filter):
    """Draws samples so that frequent concepts have about as many as others (MetaCLIP, Xu et al., arXiv 2309.16671).

    A concept that count_e samples show is kept with p_e = min(1, t / count_e), and a sample with 1 - prod over its
    concepts of (1 - p_e), by a hash of its uid. A sample without a concept is not kept. The concepts are those of the
    asset ``concept_hits``, and counted among the pool's samples.

    With ``auto``, t is the count at which the concepts that no more samples show have 5.6 % of all matches, as those of
    MetaCLIP's 20,000 have: for captions in each language by itself, so that all have the same share of tail (MetaCLIP
    2, Chuang et al., arXiv 2507.22062).

    Attributes:
        t: How many samples of a concept are wanted; or ``auto``.
        by: Whether the concepts are of the original caption or of the image.
        seed: Another seed keeps other samples.
        language: With ``auto`` and captions: the column that says in which language a caption is; None takes all
            captions as one.
    """

    name: ClassVar[str] = "balanced"
    meaning: ClassVar[str] = "samples drawn so that no concept has many more than others"
    pool_wide: ClassVar[bool] = True
    t: Literal["auto"] | Annotated[int, Field(ge=1)] | Annotated[float, Field(gt=0, allow_inf_nan=False)] = "auto"
    by: Literal["caption", "image"] = "caption"
    seed: Seed = 0
    language: str | None = LANGUAGE

    _concepts: pa.Array | None = PrivateAttr(None)
    _times_wanted: NDArray[np.float64] | None = PrivateAttr(None)
    _facts: dict[str, Any] = PrivateAttr(default_factory=dict)

    @property
    def columns(self) -> tuple[str, ...]:
        """The uid, its concepts, and for ``auto`` the language."""
        return (UID, CONCEPTS[self.by], *self._language)

    @property
    def _language(self) -> tuple[str, ...]:
        return (self.language,) if self.language and self.t == "auto" and self.by == "caption" else ()

    @property
    def facts(self) -> dict[str, Any]:
        """The t of each language, the tail's share, and the tail before and after."""
        return self._facts

    def fit(self, pools: Sequence[Pool]) -> Filter:
        """With the counts of the concepts, and t.

        The pools are read twice: what is in memory are the names of the concepts and their counts.

        Raises:
            FilterError: the column of concepts does not hold lists of names.
        """
        concepts, languages, counts = self._counted(pools)
        wanted = {one: self._wanted(counts[languages == one]) for one in np.unique(languages).tolist()}
        t = np.array([wanted[one] for one in languages.tolist()], np.float64)
        fitted = self.model_copy()
        fitted._concepts, fitted._times_wanted = concepts, counts / t  # noqa: SLF001 - a copy of its own
        kept = np.zeros(len(concepts), np.int64)
        for batch in batches_of(pools, self.columns):
            rows, shown = self._shown(batch)
            kept += np.bincount(_places(shown, concepts)[fitted.mask(batch)[rows]], minlength=len(concepts))
        fitted._facts = {  # noqa: SLF001
            "t": wanted if self._language else wanted.get("", self.t),
            "tail_share": tail_share(counts, t),
            "concepts": len(concepts),
            "matches": int(counts.sum()),
            "matches_kept": int(kept.sum()),
            "tail": _tail(counts, kept),
        }
        return fitted

    def mask(self, table: pa.Table | pa.RecordBatch) -> Mask:
        """Where the hash of the uid is below the probability."""
        if self._concepts is None or self._times_wanted is None:
            return self.fit([TablePool(table)]).mask(table)
        rows, shown = self._shown(table)
        hits = as_lists(rows, _places(shown, self._concepts), table.num_rows)
        return uniform_draws(parse_uids(table.column(UID)), self.seed, _SALT) < balanced_probabilities(
            hits, self._times_wanted, 1
        )

    def _wanted(self, counts: NDArray[np.int64]) -> float:
        return tail_threshold(counts) if self.t == "auto" else self.t

    def _shown(self, table: pa.Table | pa.RecordBatch) -> Shown:
        """The rows that show a concept, ascending, and the concept with its language, each once a row."""
        lists = whole(table.column(CONCEPTS[self.by]))
        if not (pa.types.is_list(lists.type) or pa.types.is_large_list(lists.type)):
            raise FilterError(f"{self.name}: column {CONCEPTS[self.by]} is {lists.type}; expected lists of names")
        rows, names = pc.list_parent_indices(lists), pc.list_flatten(lists).cast(pa.string())
        languages = whole(table.column(self.language)) if self._language else pa.nulls(table.num_rows, pa.string())
        spoken = pc.fill_null(languages.cast(pa.string()), "").take(rows)
        keys = pc.binary_join_element_wise(spoken, names, _BETWEEN).dictionary_encode()
        codes = np.asarray(keys.indices.fill_null(-1), np.int64)
        pairs = np.unique(np.asarray(rows, np.int64)[codes >= 0] * (len(keys.dictionary) + 1) + codes[codes >= 0])
        found, places = np.divmod(pairs, len(keys.dictionary) + 1)
        return found, keys.dictionary.take(pa.array(places))

    def _counted(self, pools: Sequence[Pool]) -> tuple[pa.Array, NDArray[np.object_], NDArray[np.int64]]:
        """Each concept with its language, the language, and how many samples show it, [concepts] each."""
        counted = pa.table({"concept": pa.array([], pa.string()), "count": pa.array([], pa.int64())})
        for batch in batches_of(pools, self.columns):
            shown = self._shown(batch)[1]
            more = pa.table({"concept": shown, "count": pa.repeat(pa.scalar(1, pa.int64()), len(shown))})
            summed = pa.concat_tables([counted, more]).group_by("concept").aggregate([("count", "sum")])
            counted = summed.select(["concept", "count_sum"]).rename_columns(["concept", "count"])
        concepts = whole(counted.sort_by("concept")["concept"])
        counts = counted.sort_by("concept")["count"].to_numpy().astype(np.int64)
        spoken = pc.list_element(pc.split_pattern(concepts, _BETWEEN, max_splits=1), 0)
        return concepts, spoken.to_numpy(zero_copy_only=False).astype(object), counts


def _places(shown: pa.Array, concepts: pa.Array) -> NDArray[np.int64]:
    return np.asarray(pc.index_in(shown, value_set=concepts), np.int64)


def _tail(before: NDArray[np.int64], after: NDArray[np.int64]) -> dict[str, list[int]]:
    """Counts at some ranks, the most frequent concept first: what a plot with logarithmic axes can show."""
    ranks = np.unique(np.geomspace(1, max(len(before), 1), _POINTS).round().astype(np.int64))[: len(before)]
    sides = {"before": np.sort(before)[::-1], "after": np.sort(after)[::-1]}
    return {"ranks": ranks.tolist(), **{side: counts[ranks - 1].tolist() for side, counts in sides.items()}}
