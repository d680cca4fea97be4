"""Samples drawn so that no concept has many more than others: MetaCLIP's balancing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field, InstanceOf

from dqe_assets.concepts.lists import as_lists
from dqe_assets.filtering.filters.among import Among
from dqe_assets.filtering.filters.protocol import FilterError, Seed, Selection
from dqe_assets.filtering.pool import UID, whole
from dqe_assets.filtering.scores import balanced_probabilities, tail_share, tail_threshold
from dqe_assets.filtering.subset import UID_TYPE, parse_uids, uniform_draws

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from dqe_assets.filtering.filters.among import Batches
    from dqe_assets.filtering.filters.protocol import Filter

    Shown = tuple[NDArray[np.int64], pa.Array]

CONCEPTS = {"caption": "caption_concepts", "image": "image_concepts"}
LANGUAGE = "language"

_POINTS = 200
_SALT = 0xBA1A7CED
_BETWEEN = "\n"
"""Between a language and a concept: neither has it."""


class Balanced(Among):
    """Draws samples so that frequent concepts have about as many as others (MetaCLIP, Xu et al., arXiv 2309.16671).

    A concept that count_e samples show is kept with p_e = min(1, t / count_e), and a sample with 1 - prod over its
    concepts of (1 - p_e), by a hash of its uid. A sample without a concept is not kept. The concepts are those of the
    asset ``concept_hits``, and counted among what ``of`` keeps.

    With ``auto``, t is the count at which the concepts that no more samples show have 5.6 % of all matches, as those of
    MetaCLIP's 20,000 have: for captions in each language by itself, so that all have the same share of tail (MetaCLIP
    2, Chuang et al., arXiv 2507.22062).

    Attributes:
        t: How many samples of a concept are wanted; or ``auto``.
        by: Whether the concepts are of the original caption or of the image.
        seed: Another seed keeps other samples.
        language: With ``auto`` and captions: the column that says in which language a caption is; None takes all
            captions as one.
        of: What to draw from; by default what all else keeps that it is joined to by ``&``.
    """

    name: ClassVar[str] = "balanced"
    meaning: ClassVar[str] = "samples drawn so that no concept has many more than others"
    t: Literal["auto"] | Annotated[int, Field(ge=1)] | Annotated[float, Field(gt=0, allow_inf_nan=False)] = "auto"
    by: Literal["caption", "image"] = "caption"
    seed: Seed = 0
    language: str | None = LANGUAGE
    of: InstanceOf[Selection] | None = None

    @property
    def read(self) -> tuple[str, ...]:
        """The concepts, and for ``auto`` the language."""
        return (CONCEPTS[self.by], *self._language)

    @property
    def _language(self) -> tuple[str, ...]:
        return (self.language,) if self.language and self.t == "auto" and self.by == "caption" else ()

    def fitted_to(self, batches: Batches) -> Filter:
        """With the samples that are drawn.

        The rows are read twice: what is in memory are the names of the concepts and their counts.

        Raises:
            FilterError: the column of concepts does not hold lists of names.
        """
        concepts, languages, counts = self._counted(batches)
        wanted = {one: self._wanted(counts[languages == one]) for one in np.unique(languages).tolist()}
        t = np.array([wanted[one] for one in languages.tolist()], np.float64)
        kept, kept_counts = [np.empty(0, UID_TYPE)], np.zeros(len(concepts), np.int64)
        for batch in batches():
            rows, shown = self._shown(batch)
            places = np.asarray(pc.index_in(shown, value_set=concepts), np.int64)
            uids = parse_uids(batch.column(UID))
            chances = balanced_probabilities(as_lists(rows, places, batch.num_rows), counts / t, 1)
            drawn = uniform_draws(uids, self.seed, _SALT) < chances
            kept.append(uids[drawn])
            kept_counts += np.bincount(places[drawn[rows]], minlength=len(concepts))
        facts = {
            "t": wanted if self._language else wanted.get("", self.t),
            "tail_share": tail_share(counts, t),
            "concepts": len(concepts),
            "matches": int(counts.sum()),
            "matches_kept": int(kept_counts.sum()),
            "tail": _tail(counts, kept_counts),
        }
        return self.keeping(np.concatenate(kept), facts)

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

    def _counted(self, batches: Batches) -> tuple[pa.Array, NDArray[np.object_], NDArray[np.int64]]:
        """Each concept with its language, the language, and how many samples show it, [concepts] each."""
        counted = pa.table({"concept": pa.array([], pa.string()), "count": pa.array([], pa.int64())})
        for batch in batches():
            shown = self._shown(batch)[1]
            more = pa.table({"concept": shown, "count": pa.repeat(pa.scalar(1, pa.int64()), len(shown))})
            summed = pa.concat_tables([counted, more]).group_by("concept").aggregate([("count", "sum")])
            counted = summed.select(["concept", "count_sum"]).rename_columns(["concept", "count"])
        concepts = whole(counted.sort_by("concept")["concept"])
        counts = counted.sort_by("concept")["count"].to_numpy().astype(np.int64)
        spoken = pc.list_element(pc.split_pattern(concepts, _BETWEEN, max_splits=1), 0)
        return concepts, spoken.to_numpy(zero_copy_only=False).astype(object), counts


def _tail(before: NDArray[np.int64], after: NDArray[np.int64]) -> dict[str, list[int]]:
    """Counts at some ranks, the most frequent concept first: what a plot with logarithmic axes can show."""
    ranks = np.unique(np.geomspace(1, max(len(before), 1), _POINTS).round().astype(np.int64))[: len(before)]
    sides = {"before": np.sort(before)[::-1], "after": np.sort(after)[::-1]}
    return {"ranks": ranks.tolist(), **{side: counts[ranks - 1].tolist() for side, counts in sides.items()}}
