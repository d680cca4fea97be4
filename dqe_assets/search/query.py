"""Searching the collection by text, by image, or by a sample in it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import pyarrow as pa

from dqe_assets.core.schema import IMAGE, IMAGE_TYPE, ORIGINAL
from dqe_assets.features.extract import read_by
from dqe_assets.reviews.tables import REVIEWS
from dqe_assets.search.signal_conditions import take_signals
from dqe_assets.search.tables import SEARCH_HITS
from dqe_resources import images
from dqe_resources.printable import command
from dqe_resources.vectors import DEFAULT_INDEXES, UID, Index, parse_where

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from dqe_assets.caption.settings import CaptionSources
    from dqe_assets.ingest.settings import ImageLimits
    from dqe_assets.search.signal_conditions import SignalConditions
    from dqe_resources.models.image_model import ImageModel
    from dqe_resources.scorers.protocol import Scorer
    from dqe_resources.vectors.points import Point
    from dqe_resources.vectors.protocol import Collection, Hit, Vectors
    from dqe_resources.warehouse import Warehouse

CLUSTER = "cluster"

CONDITIONS: Mapping[str, Index] = {**DEFAULT_INDEXES, CLUSTER: "keyword"}
"""What a search can be narrowed by: the indexed payload, and the duplicate cluster."""

DECIDED = {name: REVIEWS.field(name).type for name in ("review", "review_tags")}
"""What people decided, which the warehouse knows as it knows signals."""

_UID = re.compile(r"[0-9a-f]{32}")


@dataclass(frozen=True, slots=True)
class Query:
    """What to look for: one of a text, an image file, and a sample that is already there.

    Attributes:
        text: a text.
        image: file of an image.
        like: uid or image name of a sample, which itself is not found.
    """

    text: str | None = None
    image: Path | None = None
    like: str | None = None

    def __post_init__(self) -> None:
        if sum(part is not None for part in (self.text, self.image, self.like)) != 1:
            raise ValueError(
                'give a text (dqe search "a cat"), --image FILE, or --like UID_OR_NAME: exactly one of these three'
            )


class Searched(Protocol):
    """What a search needs; the settings have it."""

    @property
    def vectors(self) -> Vectors:
        """The collection."""

    @property
    def scorer(self) -> Scorer:
        """What embeds a text or an image."""

    @property
    def image_model(self) -> ImageModel:
        """What measures an image that a scorer reads by its features."""

    @property
    def images(self) -> ImageLimits:
        """Which image is refused."""

    @property
    def warehouse(self) -> Warehouse:
        """Where duplicates are known."""

    @property
    def captions(self) -> CaptionSources:
        """The caption sources."""

    @property
    def signal_types(self) -> Mapping[str, pa.DataType]:
        """The type of each signal."""


def search_collection(
    settings: Searched,
    query: Query,
    *,
    where: Sequence[str] = (),
    using: str = IMAGE,
    limit: int = 10,
    unique: bool = False,
) -> list[Hit]:
    """The samples nearest to a text, an image, or another sample, the best first.

    Args:
        settings: the settings.
        query: what to look for.
        where: conditions such as ``source=sample`` or ``similarity_original>=0.3``; a duplicate ``cluster``, signals
            such as ``nsfw<0.1``, and what people decided (``review=keep``, ``review_tags=blurry``) are looked up in the
            warehouse.
        using: the named vector to search: ``image`` or a caption source.
        limit: how many at most.
        unique: leave out what is a redundant duplicate by the warehouse.

    Raises:
        ValueError: a condition or the named vector is unknown, or there is no such sample or cluster.
        ImageError: the image cannot be read.
        VectorsError: the collection cannot be opened.
        WarehouseError: there is no warehouse to know duplicates and signals by.
    """
    names = collection_vectors(settings.scorer, settings.captions)
    if using not in names:
        msg = f"there are no vectors '{using}'; there are: {', '.join(names)}"
        raise ValueError(msg)
    conditions, signals = _conditions(settings, where)
    if not conditions.get(UID, True):
        return []
    given = None if query.like is not None else _vector(settings, query)
    with settings.vectors.open() as collection:
        unwanted: set[str] = set()
        if given is None:
            sample = _sample(collection, query.like or "")
            unwanted.add(sample.uid)
            if using not in sample.vectors:
                msg = f"{query.like} has no vector '{using}'; it has: {', '.join(sample.vectors)}"
                raise ValueError(msg)
            given = sample.vectors[using]
        asked = limit + len(unwanted)
        while True:
            found = collection.search(given, using, asked, conditions)
            if signals is not None:
                unwanted |= signals.unmet(settings.warehouse, [hit.uid for hit in found])
            if unique:
                unwanted |= _redundant(settings, [hit.uid for hit in found])
            hits = [hit for hit in found if hit.uid not in unwanted][:limit]
            if len(hits) == limit or len(found) < asked:
                return hits
            asked *= 2


def _conditions(settings: Searched, where: Sequence[str]) -> tuple[dict[str, Any], SignalConditions | None]:
    """What the collection is to look for, and what is to be looked up of each hit."""
    others, signals, kinds = take_signals(where, {**DECIDED, **settings.signal_types})
    conditions: dict[str, Any] = {**parse_where(others, {**CONDITIONS, **kinds})}
    if CLUSTER in conditions:
        conditions[UID] = _members(settings, conditions.pop(CLUSTER))
    if not signals.names:
        return conditions, None
    few = signals.few(settings.warehouse)
    if few is None:
        return conditions, signals
    conditions[UID] = few & conditions.get(UID, few)
    return conditions, None


def hits_table(hits: Sequence[Hit], using: str) -> pa.Table:
    """Hits as a table of ``SEARCH_HITS``: the caption is that of the source that was searched, or the original."""
    source = ORIGINAL if using == IMAGE else using
    named = {"caption": f"caption_{source}", "similarity": f"similarity_{source}"}
    rows = [
        {name: hit.payload.get(named.get(name, name)) for name in SEARCH_HITS.names}
        | {"uid": hit.uid, "score": hit.score, "caption_source": source}
        for hit in hits
    ]
    return pa.Table.from_pylist(rows, SEARCH_HITS)


def _sample(collection: Collection, name: str) -> Point:
    """The point of a uid, or the first of an image name."""
    found = collection.get(name) if _UID.fullmatch(name) else None
    found = found or next(collection.scroll({"image_name": name}), None)
    if found is None:
        msg = f"no sample with an image has the uid or the image name {name}; look for it: {command('dqe get', name)}"
        raise ValueError(msg)
    return found


def _members(settings: Searched, cluster: str) -> frozenset[str]:
    with settings.warehouse.connect() as connection:
        rows = connection.execute("SELECT uid FROM samples WHERE cluster = ?", [cluster]).fetchall()
    if not rows:
        msg = f"there is no duplicate cluster {cluster}; dqe get IMAGE_NAME says which a sample is in"
        raise ValueError(msg)
    return frozenset(uid for (uid,) in rows)


def _redundant(settings: Searched, uids: list[str]) -> set[str]:
    with settings.warehouse.connect() as connection:
        rows = connection.execute(
            "SELECT uid FROM samples WHERE is_duplicate AND uid IN (SELECT unnest(?))", [uids]
        ).fetchall()
    return {uid for (uid,) in rows}


def collection_vectors(scorer: Scorer, captions: CaptionSources) -> dict[str, int]:
    """The named vectors of the collection and their dimensions: the image, and a caption from each source."""
    return dict.fromkeys((IMAGE, *captions.names), scorer.dimension)


def _vector(settings: Searched, query: Query) -> np.ndarray:
    if query.image is not None:
        return _image_vector(settings, query.image)
    return settings.scorer.embed_texts([query.text or ""]).vectors[0]


def _image_vector(settings: Searched, path: Path) -> np.ndarray:
    if not path.is_file():
        raise images.ImageError("missing", f"there is no file {path}")
    data = path.read_bytes()
    images.inspect(data, max_bytes=settings.images.max_bytes, max_pixels=settings.images.max_pixels)
    sample = pa.table({"uid": [path.name], "image": pa.array([{"bytes": data, "path": path.name}], IMAGE_TYPE)})
    vector: np.ndarray = settings.scorer.embed_images(read_by(settings.scorer, sample, settings.image_model))[0]
    if not np.isfinite(vector).all():
        raise images.ImageError("damaged", f"{settings.scorer.model} gives no vector for {path}")
    return vector
