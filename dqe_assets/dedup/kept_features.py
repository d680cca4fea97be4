"""What images are compared by, kept for each shard in files that can be mapped: a new shard is all that is read.

All of it can be made again from the store. A file is named by the shard and by what it was made from, and is written
whole or not at all: so whatever is killed, added, changed or removed, the files of the present shards are right.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from dqe_assets.core.arrow import to_matrix
from dqe_assets.core.shard_rows import ShardRows
from dqe_assets.core.uids import order_of_uids, packed_alike, packed_uids, rows_of_uids
from dqe_assets.dedup.codebook import Codebook, Plan, codes, plan_for
from dqe_assets.dedup.semantic import Prepared, has_direction, vector_digests
from dqe_assets.features.tables import IMAGE_FEATURES
from dqe_assets.ingest.tables import RAW_SAMPLES
from dqe_resources.cache import data_directory
from dqe_resources.fingerprint import fingerprint
from dqe_resources.store import replace_file

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence
    from pathlib import Path
    from typing import BinaryIO

    from numpy.typing import NDArray

    from dqe_assets.core.work import Work

RAW_COLUMNS = ["uid", "sha256"]
FEATURE_COLUMNS = ["pixel_digest", "perceptual_hash", "contrast"]

_FORM = "1"
_TABLE = "table.arrow"
_SCHEMA = pa.schema(
    [
        *map(RAW_SAMPLES.field, RAW_COLUMNS),
        *map(IMAGE_FEATURES.field, FEATURE_COLUMNS),
        pa.field("vector_digest", pa.binary(16)),
    ]
).remove_metadata()


class ShardedVectors:
    """Vectors of all samples, read from the files of their shards when they are asked for; rows are counted by uid.

    Args:
        files: float16 [n, d] of each shard.
        shards: how many rows are in each.
        order: the number that each row has when those of one shard follow those of another, int64 [n]; -1 for a row
            of zeros.
        dimension: d.
    """

    ndim = 2

    def __init__(self, files: Sequence[Path], shards: ShardRows, order: NDArray[np.int64], dimension: int) -> None:
        self._files, self._shards, self._order = files, shards, order
        self.shape = (len(order), dimension)

    def __len__(self) -> int:
        return len(self._order)

    def __getitem__(self, rows: NDArray[np.int64]) -> NDArray[np.float16]:
        """Those of some rows, float16 [..., d], for an array of row numbers of any shape."""
        wanted, places = np.unique(self._order[rows], return_inverse=True)
        found = np.zeros((len(wanted), self.shape[1]), np.float16)
        done = int(np.searchsorted(wanted, 0))
        for shard, own in self._shards.by_shard(wanted):
            # Of a shard without any features the file has no columns.
            kept = np.load(self._files[shard], mmap_mode="r")
            found[done : done + len(own)] = kept[own] if kept.shape[1] else 0
            done += len(own)
        return found[places.reshape(np.shape(rows))]


@dataclass(frozen=True, slots=True)
class KeptFeatures:
    """What the samples of all shards are compared by, in order of their uids.

    A broken file is no sample: it takes no part, even if it equals another.

    Attributes:
        samples: uid, sha256, pixel_digest, perceptual_hash and contrast.
        shard: the position of each sample's shard among the shards, int64 [n].
        vectors: their features, read from files by row number (``ShardedVectors``); zero where there are none.
        prepared: what semantic pairs are looked for by.
        codebook: names the buckets; empty if all pairs are tried.
    """

    samples: pa.Table
    shard: NDArray[np.int64]
    vectors: Any
    prepared: Prepared
    codebook: str


def kept_features(work: Work, versions: Mapping[str, str], min_cosine: float, *, exact_below: int) -> KeptFeatures:
    """Read what is kept of the shards; what is not there yet is made first, and what is not needed any more goes.

    Args:
        work: reads ``raw_samples`` and ``image_features``.
        versions: of each shard, what changes whenever those do.
        min_cosine: cosine of a semantic pair.
        exact_below: with more samples than that, buckets are searched.

    Raises:
        ValueError: the features of the shards differ in length.
    """
    if work.force:
        _remove_others({}, "")
    files = {shard: _Files(shard, version) for shard, version in versions.items()}
    tables = [one.table(work) for one in files.values()]
    joined = pa.concat_tables([_SCHEMA.empty_table(), *tables])
    shards = ShardRows([len(table) for table in tables])
    order = order_of_uids(packed_uids(joined["uid"]))
    digests = joined["vector_digest"].combine_chunks() if tables else pa.array([], pa.binary(16))
    directed = digests.is_valid().to_numpy(zero_copy_only=False)
    counts = {shard: len(table) - table["vector_digest"].null_count for shard, table in zip(files, tables, strict=True)}
    dimension = _dimension(files)
    vectors = ShardedVectors([one.vectors for one in files.values()], shards, order, dimension)
    prepared = Prepared(_halves(digests)[order], directed[order], order)
    name = ""
    if (plan := plan_for(counts, exact_below)) is not None:
        trained_on = [[shard, versions[shard]] for shard in plan.shards]
        name = fingerprint(_FORM, trained_on, plan.buckets, plan.rows, min_cosine)
        book = _codebook(name, lambda: _training_rows(files, plan.shards, plan.rows), plan, min_cosine)
        length = book.centroids.shape[1]
        prepared = replace(
            prepared,
            codes=np.concatenate([one.codes(length) for one in files.values()]),
            near=np.concatenate([one.near(name, book) for one in files.values()]),
            buckets=len(book.centroids),
            threshold=book.threshold,
        )
    _remove_others(files, name)
    samples = joined.drop_columns(["vector_digest"]).take(pa.array(order))
    shard_of = np.searchsorted(shards.starts, order, side="right") - 1
    return KeptFeatures(samples, shard_of, vectors, prepared, name)


@dataclass(frozen=True, slots=True)
class SampleFeatures:
    """The features of some samples.

    Attributes:
        vectors: read from files by row number (``ShardedVectors``); zero where there are none.
        directed: which are finite and not zero, bool [n].
        shard: the position of each sample's shard among the shards, int64 [n]; -1 if it is in none.
    """

    vectors: ShardedVectors
    directed: NDArray[np.bool_]
    shard: NDArray[np.int64]


def features_of(work: Work, versions: Mapping[str, str], uids: pa.ChunkedArray | pa.Array) -> SampleFeatures:
    """The features of some samples; raises as ``kept_features`` does."""
    files = {shard: _Files(shard, version) for shard, version in versions.items()}
    tables = [one.table(work).select(["uid", "vector_digest"]) for one in files.values()]
    there = pa.concat_tables([_SCHEMA.empty_table().select(["uid", "vector_digest"]), *tables])
    shards = ShardRows([len(table) for table in tables])
    rows = rows_of_uids(*packed_alike(there["uid"], uids))
    directed = np.append(there["vector_digest"].is_valid().to_numpy(), False)
    vectors = ShardedVectors([one.vectors for one in files.values()], shards, rows, _dimension(files))
    return SampleFeatures(vectors, directed[rows], np.searchsorted(shards.starts, rows, side="right") - 1)


def places_of(uids: Collection[str]) -> list[tuple[Path, int]]:
    """The files that have any of these samples, and how many of them."""
    found = []
    for path in sorted(_folder().glob(f"*.{_TABLE}")):
        with pa.OSFile(str(path)) as file:
            there = pa.ipc.open_file(file).read_all()["uid"]
        count = pc.sum(pc.is_in(there, value_set=pa.array(sorted(uids), pa.string()))).as_py() or 0
        found += [(path, count)] if count else []
    return found


@dataclass(frozen=True, slots=True)
class _Files:
    """The files of a shard. The table is written last: where it is, the others are."""

    shard: str
    version: str

    def _path(self, suffix: str) -> Path:
        return _folder() / f"{self.shard}.{self.version}.{_FORM}.{suffix}"

    @property
    def vectors(self) -> Path:
        """Features, float16 [n, d]."""
        return self._path("vectors.npy")

    @property
    def codes_path(self) -> Path:
        """Their codes, float16 [n, d]."""
        return self._path("codes.npy")

    @property
    def all(self) -> set[Path]:
        """Those that do not depend on the buckets."""
        return {self.vectors, self.codes_path, self._path(_TABLE)}

    def table(self, work: Work) -> pa.Table:
        """The samples, made unless they are there."""
        path = self._path(_TABLE)
        if not path.exists():
            self._make(work.of_shard(self.shard))
        with pa.memory_map(str(path)) as file:
            return pa.ipc.open_file(file).read_all()

    def _make(self, work: Work) -> None:
        raw = work.read("raw_samples", RAW_COLUMNS)
        features = work.read("image_features", [*FEATURE_COLUMNS, "embedding"])
        seen = features["perceptual_hash"].is_valid()
        raw, features = raw.filter(seen), features.filter(seen)
        rows, found = to_matrix(features["embedding"])
        vectors = np.zeros((len(raw), found.shape[1]), np.float16)
        vectors[rows] = found
        directed = np.flatnonzero(has_direction(vectors))
        made = np.zeros((len(raw), 0), np.float16)
        if len(directed):
            of_directed = codes(vectors[directed])
            made = np.zeros((len(raw), of_directed.shape[1]), np.float16)
            made[directed] = of_directed
        digests = np.full(len(raw), None, object)
        digests[directed] = [pair.tobytes() for pair in vector_digests(vectors, directed)]
        columns = [*raw.columns, *features.select(FEATURE_COLUMNS).columns, pa.array(digests, pa.binary(16))]
        table = pa.table(columns, schema=_SCHEMA)
        _save(self.vectors, vectors)
        _save(self.codes_path, made)

        def write(target: BinaryIO) -> None:
            with pa.ipc.new_file(target, _SCHEMA) as writer:
                writer.write_table(table)

        replace_file(self._path(_TABLE), write)

    def codes(self, length: int) -> NDArray[np.float16]:
        """The codes of all samples, float16 [n, length]; zero where a sample has none."""
        made = np.load(self.codes_path, mmap_mode="r")
        return made if made.shape[1] else np.zeros((len(made), length), np.float16)

    def near_path(self, codebook: str) -> Path:
        """The buckets that each sample is looked up in."""
        return self._path(f"{codebook}.near.npy")

    def near(self, name: str, codebook: Codebook) -> NDArray[np.int32]:
        """These, int32 [n, probes], found unless they are there."""
        path = self.near_path(name)
        if not path.exists():
            made = self.codes(codebook.centroids.shape[1])
            found = np.full((len(made), codebook.probes), -1, np.int32)
            directed = np.flatnonzero(made.any(axis=1))
            if len(directed):
                found[directed] = codebook.near(made[directed])
            _save(path, found)
        return np.load(path, mmap_mode="r")


def _folder() -> Path:
    return data_directory() / "duplicates"


def _save(path: Path, array: NDArray[Any]) -> None:
    replace_file(path, lambda target: np.save(target, array))


def _codebook(
    name: str, training: Callable[[], tuple[NDArray[np.float16], NDArray[np.float16]]], plan: Plan, min_cosine: float
) -> Codebook:
    path = _folder() / f"{name}.codebook.npz"
    if not path.exists():
        made, vectors = training()
        book = Codebook.trained(plan, made, vectors, min_cosine)
        numbers = np.array([book.probes, book.threshold])
        replace_file(path, lambda target: np.savez(target, centroids=book.centroids, numbers=numbers))
    with np.load(path) as kept:
        return Codebook(kept["centroids"], int(kept["numbers"][0]), float(kept["numbers"][1]))


def _training_rows(
    files: Mapping[str, _Files], shards: Sequence[str], rows: int
) -> tuple[NDArray[np.float16], NDArray[np.float16]]:
    """Codes and vectors of the first rows of these shards that have a direction."""
    made, vectors = [], []
    for shard in shards:
        of_shard = np.load(files[shard].codes_path)
        directed = np.flatnonzero(of_shard.any(axis=1))
        made.append(of_shard[directed])
        vectors.append(np.load(files[shard].vectors)[directed])
    return np.concatenate(made)[:rows], np.concatenate(vectors)[:rows]


def _dimension(files: Mapping[str, _Files]) -> int:
    """How long the features are; 0 if there are none."""
    found = {shard: np.load(one.vectors, mmap_mode="r").shape[1] for shard, one in files.items()}
    lengths = sorted(set(found.values()) - {0})
    if len(lengths) > 1:
        raise ValueError(
            f"image_features has features of {' and '.join(map(str, lengths))} numbers; run: dqe materialize "
            "image_features --force"
        )
    return lengths[0] if lengths else 0


def _halves(digests: pa.Array) -> NDArray[np.uint64]:
    """Digests as two numbers each; anything where one is null."""
    return np.frombuffer(digests.fill_null(bytes(16)).buffers()[1], np.uint64)[: 2 * len(digests)].reshape(-1, 2)


def _remove_others(files: Mapping[str, _Files], codebook: str) -> None:
    wanted = {path for one in files.values() for path in (*one.all, one.near_path(codebook))}
    wanted.add(_folder() / f"{codebook}.codebook.npz")
    for path in _folder().glob("*"):
        if path not in wanted and path.is_file() and not path.name.startswith("."):
            path.unlink(missing_ok=True)
