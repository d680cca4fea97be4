"""Every caption of a sample, from every caption source, with a weight to draw it by: read from the store itself."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, TypedDict

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from dqe_assets.core.schema import ORIGINAL, REFINED, REVIEWED, SYNTHETIC_CAPTIONS_PREFIX, Column
from dqe_assets.filtering.mix_assets import MIXED_PREFIX
from dqe_assets.filtering.tables import MIXED_CAPTIONS
from dqe_assets.improve.best import final_refined
from dqe_assets.improve.tables import BEST_CAPTIONS, REFINED_CAPTIONS
from dqe_assets.ingest.tables import RAW_SAMPLES
from dqe_assets.publish.options import BEST
from dqe_assets.reviews.tables import REVIEWED_CAPTION_SCORES, REVIEWS
from dqe_assets.score.tables import CAPTION_SCORES, FURTHER_CAPTION_SCORES

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from dqe_resources.store import Store

CAPTION_TYPE = pa.struct(
    [("text", pa.string()), ("source", pa.string()), ("weight", pa.float32()), ("similarity", pa.float32())]
)

CAPTIONS = Column(
    "captions",
    pa.list_(CAPTION_TYPE),
    "every caption of the sample: its text, its caption source, the probability with which it is to be drawn, and its "
    "similarity, null where it was not scored; first the chosen one",
)


class Caption(TypedDict):
    """One caption of a sample.

    Attributes:
        text: as ``captions`` of the warehouse has it.
        source: its caption source.
        weight: the probability with which it is drawn; those of a sample come to 1.
        similarity: to its image, -1 to 1; None where it was not scored.
    """

    text: str
    source: str
    weight: float
    similarity: float | None


@dataclass(frozen=True)
class CaptionReader:
    """Reads the captions of shards.

    Attributes:
        store: where they are.
        weights: how often each source is drawn, relative to the others that a sample has a caption of: ``original``,
            the name of a captioner or of a mix, ``refined``, ``reviewed`` or ``best``. Captions of one source share its
            weight.
    """

    store: Store
    weights: Mapping[str, float]

    def of_shard(self, shard: str, rows: Sequence[int] | None = None) -> list[list[Caption]]:
        """The captions of each sample of a shard, or of those in some rows: first the original ones.

        Where no source with a weight has a caption of a sample, the weights of its captions are 0.

        Raises:
            StorageError: a table is not there, torn or of another schema.
        """
        raw = self.store.read("raw_samples", shard, RAW_SAMPLES, ["uid", "caption", "original_captions"])
        uids = raw["uid"]
        wanted = pa.array(range(len(uids)) if rows is None else rows, pa.int64())
        found: list[list[tuple[str, str, float | None]]] = [[] for _ in range(len(wanted))]
        for source in self.weights:
            texts, similarities = self._of_source(source, shard, raw)
            more = self._further(shard, raw.take(wanted)) if source == ORIGINAL else [[]] * len(wanted)
            ordered = zip(
                found, texts.take(wanted).to_pylist(), similarities.take(wanted).to_pylist(), more, strict=True
            )
            for captions, text, similarity, others in ordered:
                if text and not text.isspace():
                    captions.append((source, text, similarity))
                captions += [(source, *other) for other in others]
        return [self._weighted(captions) for captions in found]

    def captioned(self, shard: str) -> NDArray[np.bool_]:
        """Which samples of a shard have a caption with a weight: bool [n]; raises as ``of_shard``."""
        raw = self.store.read("raw_samples", shard, RAW_SAMPLES, ["uid", "caption", "original_captions"])
        found = np.zeros(len(raw), bool)
        for source in (name for name, weight in self.weights.items() if weight):
            texts, _ = self._of_source(source, shard, raw)
            found |= pc.fill_null(pc.match_substring_regex(texts, r"[^\pZ\s]"), False).to_numpy()
        if self.weights.get(ORIGINAL):
            # A list whose first is blank may have another that is none.
            for row in np.flatnonzero(~found & raw["original_captions"].is_valid().to_numpy()).tolist():
                found[row] = any(one and not one.isspace() for one in raw["original_captions"][row].as_py())
        return found

    def _further(self, shard: str, raw: pa.Table) -> list[list[tuple[str, float | None]]]:
        """The captions after the first of each of some samples, with their similarities."""
        scores: dict[tuple[str, int], float | None] = {}
        if raw["original_captions"].null_count < len(raw) and self.store.get("further_caption_scores", shard):
            names = ["uid", "place", "similarity"]
            table = self.store.read("further_caption_scores", shard, FURTHER_CAPTION_SCORES, names)
            table = table.filter(pc.is_in(table["uid"], value_set=raw["uid"]))
            scores = {(row["uid"], row["place"]): row["similarity"] for row in table.to_pylist()}
        return [
            [
                (text, scores.get((uid, place)))
                for place, text in enumerate((texts or ())[1:], start=2)
                if text and not text.isspace()
            ]
            for uid, texts in zip(raw["uid"].to_pylist(), raw["original_captions"].to_pylist(), strict=True)
        ]

    def _of_source(self, source: str, shard: str, raw: pa.Table) -> tuple[pa.ChunkedArray, pa.ChunkedArray]:
        """The text and the similarity of each sample's caption of a source; null if there is none."""
        uids = raw["uid"]
        if source == BEST:
            own = self.store.read("best_captions", shard, BEST_CAPTIONS, ["uid", "caption", "similarity"])
        elif source == REFINED:
            names = ["uid", "round", "caption", "flags", "similarity", "accepted"]
            own = final_refined(self.store.read("refined_captions", shard, REFINED_CAPTIONS, names), uids)
            return own["caption"], own["similarity"]
        elif source == REVIEWED:
            return self._reviewed(shard, uids)
        elif self.store.get(MIXED_PREFIX + source, shard) is not None:
            own = self.store.read(MIXED_PREFIX + source, shard, MIXED_CAPTIONS, ["uid", "caption", "similarity"])
        else:
            own = self._of_captioner(source, shard, raw)
        at = pc.index_in(uids, value_set=own["uid"])
        return own["caption"].take(at), own["similarity"].take(at)

    def _reviewed(self, shard: str, uids: pa.ChunkedArray) -> tuple[pa.ChunkedArray, pa.ChunkedArray]:
        """What people wrote or chose, where they have; nothing where the shard is older than reviews are."""
        if self.store.get("reviews", shard) is None or self.store.get("reviewed_caption_scores", shard) is None:
            texts, similarities = (pa.nulls(len(uids), kind) for kind in (pa.string(), pa.float32()))
            return pa.chunked_array([texts]), pa.chunked_array([similarities])
        scores = self.store.read("reviewed_caption_scores", shard, REVIEWED_CAPTION_SCORES, ["uid", "similarity"])
        at = pc.index_in(uids, value_set=scores["uid"])
        return self.store.read("reviews", shard, REVIEWS, ["caption"])["caption"], scores["similarity"].take(at)

    def _of_captioner(self, source: str, shard: str, raw: pa.Table) -> pa.Table:
        from dqe_assets.caption.tables import SYNTHETIC_CAPTIONS

        own = raw.select(["uid", "caption"])
        if source != ORIGINAL:
            own = self.store.read(SYNTHETIC_CAPTIONS_PREFIX + source, shard, SYNTHETIC_CAPTIONS, ["uid", "caption"])
        if self.store.get("caption_scores", shard) is None:
            return own.append_column("similarity", pa.nulls(len(own), pa.float32()))
        scores = self.store.read("caption_scores", shard, CAPTION_SCORES, ["uid", "caption_source", "similarity"])
        scores = scores.filter(pc.equal(scores["caption_source"], source))
        at = pc.index_in(own["uid"], value_set=scores["uid"])
        return own.append_column("similarity", scores["similarity"].take(at))

    def _weighted(self, captions: list[tuple[str, str, float | None]]) -> list[Caption]:
        sources = [source for source, _, _ in captions]
        total = sum(self.weights[source] for source in dict.fromkeys(sources))
        return [
            Caption(
                text=text,
                source=source,
                # As it is in Parquet: every format says the same.
                weight=float(np.float32(self.weights[source] / sources.count(source) / total if total else 0.0)),
                similarity=similarity,
            )
            for source, text, similarity in captions
        ]


def with_chosen(captions: list[Caption], text: str, source: str) -> list[Caption]:
    """The same captions, the chosen one first; where none has a weight, those of its source have all of it."""
    if not any(one["weight"] for one in captions):
        share = float(np.float32(1 / max(sum(one["source"] == source for one in captions), 1)))
        captions = [{**one, "weight": share if one["source"] == source else 0.0} for one in captions]
    return sorted(captions, key=lambda one: (one["text"], one["source"]) != (text, source))
