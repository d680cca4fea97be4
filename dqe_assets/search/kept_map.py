"""The samples on the map and their places, kept in a file: a new shard is all that is read, and all that is placed.

The file can be made again from the store. It is written whole or not at all, and what it says of a shard counts only
while the shard is what it was.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from dqe_assets.caption.normalise import normalise_captions
from dqe_assets.core.arrow import to_matrix
from dqe_assets.core.schema import EMBEDDING, IMAGE, ORIGINAL
from dqe_assets.ingest.tables import RAW_SAMPLES
from dqe_assets.search.tables import COLLECTION_MAP
from dqe_resources.cache import data_directory
from dqe_resources.fingerprint import fingerprint
from dqe_resources.store import replace_file

if TYPE_CHECKING:
    from collections.abc import Collection
    from pathlib import Path
    from typing import BinaryIO

    from numpy.typing import NDArray

    from dqe_assets.core.work import Work

INPUTS = ("raw_samples", "joint_embeddings", "caption_scores")

_FORM = "2"
_ABOUT = b"about"
_COLUMNS = ("uid", "source", "caption", "similarity", "shard", "embedding")
_SCHEMA = pa.schema(
    [
        *(COLLECTION_MAP.field(name) for name in ("uid", "source", "x", "y", "similarity")),
        RAW_SAMPLES.field("caption"),
        pa.field("shard", pa.string(), nullable=False),
        pa.field("embedding", EMBEDDING, nullable=False),
    ]
).remove_metadata()


@dataclass(frozen=True, slots=True)
class Drawn:
    """The samples that the map is of: those with the lowest uids.

    Attributes:
        samples: uid, source, caption, similarity, shard and embedding, by uid.
        versions: of each shard, what changes whenever that does which is read of it.
        embedded: how many samples of each shard have an image's vector.
    """

    samples: pa.Table
    versions: dict[str, str]
    embedded: dict[str, int]

    @property
    def vectors(self) -> NDArray[np.float32]:
        """The vectors of their images, float32 [n, d]."""
        return to_matrix(self.samples["embedding"])[1]

    @property
    def total(self) -> int:
        """How many samples have an image's vector in all."""
        return sum(self.embedded.values())

    @property
    def limit(self) -> str | None:
        """The uid up to which all are drawn; None if that is all there are."""
        return None if self.samples.num_rows == self.total else self.samples["uid"][-1].as_py()


@dataclass(frozen=True, slots=True)
class KeptMap:
    """An earlier map.

    Attributes:
        drawn: the samples on it.
        places: their places, float32 [n, 2].
        laid_out: how many samples had an image's vector when all of it was last laid out anew.
        unsettled: how many samples were put among the others since all of it last settled.
    """

    drawn: Drawn = field(default_factory=lambda: Drawn(_SCHEMA.empty_table().select(_COLUMNS), {}, {}))
    places: NDArray[np.float32] = field(default_factory=lambda: np.empty((0, 2), np.float32))
    laid_out: int = 0
    unsettled: int = 0

    def places_of(self, drawn: Drawn) -> NDArray[np.float32]:
        """The places of samples that are on it with the same vectors, float32 [n, 2]; NaN for the others."""
        found = np.full((drawn.samples.num_rows, 2), np.nan, np.float32)
        rows = pc.index_in(drawn.samples["uid"], value_set=self.drawn.samples["uid"])
        here = np.flatnonzero(rows.is_valid().to_numpy())
        there = rows.drop_null().to_numpy()
        now, before = drawn.vectors[here], self.drawn.vectors[there]
        if now.shape == before.shape:
            same = (now == before).all(axis=1)
            found[here[same]] = self.places[there[same]]
        return found

    def write(self) -> None:
        """Put it in the place of the one before.

        Raises:
            StorageError: it cannot be written.
        """
        drawn = self.drawn
        x, y = (pa.array(self.places[:, axis], pa.float32()) for axis in (0, 1))
        table = drawn.samples.append_column("x", x).append_column("y", y).select(_SCHEMA.names).cast(_SCHEMA)
        about = [_FORM, drawn.versions, drawn.embedded, self.laid_out, self.unsettled]
        schema = _SCHEMA.with_metadata({_ABOUT: json.dumps(about)})

        def write(target: BinaryIO) -> None:
            with pa.ipc.new_file(target, schema) as writer:
                writer.write_table(table.cast(schema))

        replace_file(_path(), write)


def kept_map() -> KeptMap:
    """The map that is kept; an empty one if there is none that can be read."""
    table = _table()
    about: list[Any] = json.loads((table.schema.metadata or {}).get(_ABOUT, b"[]"))
    if not about or about[0] != _FORM or not table.schema.remove_metadata().equals(_SCHEMA):
        return KeptMap()
    _, versions, embedded, laid_out, unsettled = about
    places = np.stack([table["x"].to_numpy(), table["y"].to_numpy()], axis=1)
    drawn = Drawn(table.select(_COLUMNS).replace_schema_metadata(), versions, embedded)
    return KeptMap(drawn, places, laid_out, unsettled)


def draw(work: Work, most: int, kept: Drawn) -> Drawn:
    """The samples with the lowest uids; uids are digests, so that it is a fair draw.

    Only shards that changed are read, unless there are no longer so many samples below the last uid that is kept.
    Beside what is drawn, a shard is in memory at a time.

    Args:
        work: reads ``INPUTS``.
        most: how many.
        kept: what was drawn before.
    """
    versions = {shard: _version(work.of_shard(shard)) for shard in work.shards}
    same = [shard for shard, version in versions.items() if kept.versions.get(shard) == version]
    unchanged = pc.is_in(kept.samples["shard"], value_set=pa.array(same, pa.string()))
    samples = kept.samples.filter(unchanged)[:most]
    embedded = {shard: kept.embedded[shard] for shard in same}
    for shard in sorted(versions.keys() - {*same}):
        limit = samples["uid"][-1] if len(samples) == most else None
        found, embedded[shard] = _samples_of(work.of_shard(shard), limit)
        samples = pa.concat_tables([samples, found]).sort_by("uid")[:most]
    drawn = Drawn(samples.combine_chunks(), versions, embedded)
    if same and kept.limit is not None and (samples.num_rows < most or samples["uid"][-1].as_py() > kept.limit):
        return draw(work, most, KeptMap().drawn)
    return drawn


def places_of(uids: Collection[str]) -> list[tuple[Path, int]]:
    """The file, if it has any of these samples, and how many of them."""
    count = pc.sum(pc.is_in(_table()["uid"], value_set=pa.array(sorted(uids), pa.string()))).as_py()
    return [(_path(), count)] if count else []


def _path() -> Path:
    return data_directory() / "map" / "samples.arrow"


def _table() -> pa.Table:
    try:
        with pa.OSFile(str(_path())) as file:
            return pa.ipc.open_file(file).read_all()
    except (OSError, pa.ArrowInvalid):
        return _SCHEMA.empty_table()


def _version(work: Work) -> str:
    return fingerprint([work.version_of(asset) for asset in INPUTS])


def _samples_of(work: Work, limit: pa.Scalar | None) -> tuple[pa.Table, int]:
    """A shard's samples with an image's vector, up to a uid, and how many have one in all."""
    embeddings = work.read("joint_embeddings", ["uid", "item", "embedding"])
    wanted = pc.and_(pc.equal(embeddings["item"], IMAGE), embeddings["embedding"].is_valid())
    total = pc.sum(wanted).as_py() or 0
    if limit is not None:
        wanted = pc.and_(wanted, pc.less(embeddings["uid"], limit))
    found = embeddings.filter(wanted)
    raw, scores = (
        work.read("raw_samples", ["uid", "source", "caption"]),
        work.read("caption_scores", ["uid", "caption_source", "similarity"]),
    )
    rows = raw.take(pc.index_in(found["uid"], value_set=raw["uid"]))
    original = scores.filter(pc.equal(scores["caption_source"], ORIGINAL))
    scored = original["similarity"].take(pc.index_in(found["uid"], value_set=original["uid"]))
    captions = normalise_captions(rows["caption"].combine_chunks())
    shards = pa.repeat(work.partition, len(found)).cast(pa.string())
    columns = [found["uid"], rows["source"], captions, scored, shards, found["embedding"]]
    return pa.table(columns, schema=pa.schema(map(_SCHEMA.field, _COLUMNS))), total
