"""The files of each format: Parquet with images, WebDataset tars, DataComp metadata, vectors."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from dqe_assets.core.schema import IMAGE_TYPE
from dqe_assets.ingest.private import Private
from dqe_assets.ingest.tables import RAW_SAMPLES
from dqe_assets.publish.captions import CAPTIONS, with_chosen
from dqe_assets.publish.selection import FACTS, Facts, PublishError, Selection
from dqe_assets.score.tables import JOINT_EMBEDDINGS
from dqe_assets.training.reshard import write_tar
from dqe_assets.training.samples import Picture, Sample, StoreShard

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from typing import BinaryIO

    from dqe_assets.publish.captions import CaptionReader
    from dqe_assets.report.condition import Query
    from dqe_resources.store import Store

VECTOR = "vector_"
"""What the columns of named vectors begin with."""

_GROUP_BYTES = 16 << 20
_GROUP_ROWS = 1000

_SHA256 = pa.field("sha256", pa.string())
_IMAGES = pa.schema([pa.field("image", IMAGE_TYPE), *FACTS, CAPTIONS.field(), _SHA256])

_DATACOMP = {
    "uid": "uid",
    "url": "url",
    "text": "caption",
    "original_width": "width",
    "original_height": "height",
    "caption_source": "caption_source",
    "similarity": "similarity",
    "original_similarity": "original_similarity",
    "best_similarity": "best_similarity",
}
"""The columns of metadata as DataComp names them, and ours."""


@dataclass(frozen=True)
class Shards:
    """What the shards of a publication are written from.

    Attributes:
        store: the store, for images and vectors.
        query: runs one SELECT on the warehouse, for everything else.
        selection: the samples.
        captions: reads all captions of a sample.
        private: takes out of the facts what is nobody's business.
    """

    store: Store
    query: Query
    selection: Selection
    captions: CaptionReader
    private: Private = field(default_factory=Private)

    @cached_property
    def _facts(self) -> Facts:
        return Facts(self.query, self.selection)

    def write_images(self, target: BinaryIO, start: int, stop: int) -> None:
        """The samples from one position to another as Parquet that opens as a Hugging Face dataset."""
        schema = _IMAGES.with_metadata({"huggingface": json.dumps(_features(_IMAGES))})
        with pq.ParquetWriter(target, schema, compression="zstd", write_page_checksum=True) as writer:
            for group in _groups(self.samples(start, stop)):
                writer.write_table(pa.Table.from_pylist(group, schema))

    def write_tar(self, target: BinaryIO, start: int, stop: int) -> None:
        """The samples from one position to another as a WebDataset tar."""
        write_tar(target, ((picture.uid, _files(picture, facts)) for picture, facts in self.samples(start, stop)))

    def write_metadata(self, target: BinaryIO, start: int, stop: int) -> None:
        """The samples from one position to another as metadata with DataComp's columns; ``sha256`` as found."""
        schema = pa.schema([*(FACTS.field(ours).with_name(name) for name, ours in _DATACOMP.items()), _SHA256])
        schema = pa.schema([field.remove_metadata() for field in schema])
        with pq.ParquetWriter(target, schema, compression="zstd", write_page_checksum=True) as writer:
            for shard, facts, rows in self._pages(start, stop):
                stored = self.store.read("raw_samples", shard, RAW_SAMPLES, ["uid", "sha256"]).take(rows)
                _require_same(shard, facts, stored["uid"])
                columns = [facts[ours] for ours in _DATACOMP.values()]
                writer.write_table(pa.table([*columns, stored["sha256"]], schema=schema))

    def write_vectors(self, target: BinaryIO, start: int, stop: int, vectors: Mapping[str, int]) -> None:
        """The named vectors of the samples from one position to another, float32 [d], and what is known of each."""
        types = {name: pa.list_(pa.float32(), size) for name, size in vectors.items()}
        fields = [FACTS.field("uid"), *(pa.field(VECTOR + name, kind) for name, kind in types.items()), *FACTS]
        schema = pa.schema([field.remove_metadata() for field in dict.fromkeys(fields)])
        with pq.ParquetWriter(target, schema, compression="zstd", write_page_checksum=True) as writer:
            for shard, facts, rows in self._pages(start, stop):
                stored = self.store.read("joint_embeddings", shard, JOINT_EMBEDDINGS, ["uid", "item", "embedding"])
                columns = {name: facts[name] for name in FACTS.names}
                for name, kind in types.items():
                    of_item = stored.filter(pc.equal(stored["item"], name)).take(rows)
                    _require_same(shard, facts, of_item["uid"])
                    columns[VECTOR + name] = of_item["embedding"].cast(pa.list_(pa.float32())).cast(kind)
                writer.write_table(pa.table(columns).select(schema.names).cast(schema))

    def _pages(self, start: int, stop: int) -> Iterator[tuple[str, pa.Table, pa.Array]]:
        for shard, rows, facts in self._facts.pages(start, stop):
            yield shard, self.private.facts(facts), pa.array(rows)

    def samples(self, start: int, stop: int) -> Iterator[tuple[Picture, dict[str, Any]]]:
        """The image of each sample from one position to another, and all that is known of it."""
        for shard, facts, rows in self._pages(start, stop):
            pictures = StoreShard(self.store, shard).pictures(frozenset(facts["uid"].to_pylist()))
            captions = self.captions.of_shard(shard, rows.to_pylist())
            for known, all_captions in zip(facts.to_pylist(), captions, strict=True):
                picture = next(pictures, None)
                if picture is None or picture.uid != known["uid"]:
                    raise _changed(shard)
                said = with_chosen(all_captions, known["caption"], known["caption_source"])
                yield picture, {**known, CAPTIONS.name: said, "sha256": picture.sha256}


def _files(picture: Picture, facts: dict[str, Any]) -> Sample:
    """A sample of a tar: with the caption to train on, and with all that is known of it."""
    files = {
        picture.extension: picture.data,
        "txt": facts["caption"].encode(),
        "json": json.dumps(facts, ensure_ascii=False).encode(),
    }
    return Sample(picture.uid, files, picture.encoded)


def _groups(samples: Iterator[tuple[Picture, dict[str, Any]]]) -> Iterator[list[dict[str, Any]]]:
    """Rows with images, so many at once as memory should hold."""
    group: list[dict[str, Any]] = []
    size = 0
    for picture, facts in samples:
        image = {"bytes": picture.data, "path": f"{picture.uid}.{picture.extension}"}
        group.append({"image": image, **facts})
        size += len(picture.data)
        if size >= _GROUP_BYTES or len(group) == _GROUP_ROWS:
            yield group
            group, size = [], 0
    if group:
        yield group


def _features(schema: pa.Schema) -> dict[str, Any]:
    """The schema as ``datasets`` keeps it in the metadata of its files."""
    return {"info": {"features": {field.name: _feature(field.type) for field in schema}}}


def _feature(kind: pa.DataType) -> dict[str, Any]:
    if kind == IMAGE_TYPE:
        return {"_type": "Image"}
    if pa.types.is_list(kind):
        return {"feature": _feature(kind.value_type), "_type": "List"}
    if pa.types.is_struct(kind):
        return {field.name: _feature(field.type) for field in kind}
    return {"dtype": {pa.float32(): "float32", pa.int32(): "int32"}.get(kind, str(kind)), "_type": "Value"}


def _require_same(shard: str, facts: pa.Table, uids: pa.ChunkedArray) -> None:
    if facts["uid"].to_pylist() != uids.to_pylist():
        raise _changed(shard)


def _changed(shard: str) -> PublishError:
    return PublishError(
        f"{shard}: has changed since the warehouse was built; run: dqe materialize, then publish to an empty folder"
    )
