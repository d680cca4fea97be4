"""Samples beside the pictures of a reference set: which is the nearest of each, by bytes, by look and by meaning."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from dqe_assets.contamination.variants import WHOLE
from dqe_assets.core.arrow import to_matrix
from dqe_assets.dedup.codebook import code_threshold, codes
from dqe_assets.dedup.semantic import cosines, has_direction

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from numpy.typing import NDArray

    Vectors = Callable[[NDArray[np.int64]], NDArray[np.floating]]
    """Gives the features of some rows, int64 [k] ascending: floats [k, d]."""

COLUMNS = ["reference_row", "variant", "sha256", "pixel_digest", "perceptual_hash", "mirrored_hash", "contrast", "code"]
"""What is read of ``reference_features`` to compare with."""

HASH_BITS = 64

_CANDIDATES = 4
_QUERIES = 1 << 12


@dataclass(frozen=True, slots=True)
class Looked:
    """What samples are compared by.

    Attributes:
        digests: ``sha256`` and ``pixel_digest``, strings [n] each; null takes no part.
        hashes: perceptual hashes, uint64 [n].
        is_hashed: which say something, bool [n].
        codes: of their features (`dqe_assets.dedup.codebook.codes`), float16 [m, d].
        coded: the rows that have one, int64 [m].
    """

    digests: dict[str, pa.Array]
    hashes: NDArray[np.uint64]
    is_hashed: NDArray[np.bool_]
    codes: NDArray[np.float16]
    coded: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.hashes)

    @classmethod
    def of(cls, batches: Iterable[pa.Table | pa.RecordBatch], min_contrast: float) -> Looked:
        """From sha256, pixel_digest, perceptual_hash, contrast and embedding, in batches: n rows in all."""
        digests: dict[str, list[pa.Array]] = {"sha256": [], "pixel_digest": []}
        hashes, is_hashed = [np.empty(0, np.uint64)], [np.empty(0, np.bool_)]
        made, coded, before = [], [np.empty(0, np.int64)], 0
        for batch in batches:
            for name, found in digests.items():
                found.append(_whole_column(batch[name]))
            hashes.append(_hashes(batch["perceptual_hash"]))
            is_hashed.append(_is_hashed(batch, min_contrast))
            rows, vectors = to_matrix(batch["embedding"])
            directed = has_direction(vectors)
            if directed.any():
                made.append(codes(vectors[directed]))
                coded.append(rows[directed] + before)
            before += batch.num_rows
        return cls(
            {name: pa.concat_arrays([pa.array([], pa.string()), *found]) for name, found in digests.items()},
            np.concatenate(hashes),
            np.concatenate(is_hashed),
            np.concatenate(made) if made else np.empty((0, 0), np.float16),
            np.concatenate(coded),
        )


@dataclass
class Nearest:
    """The nearest picture of a reference set, for each sample.

    Attributes:
        position: where it stands in ``reference_features``, int64 [n]; -1 for none.
        measure: how far it is, or how alike, [n].
    """

    position: NDArray[np.int64]
    measure: NDArray[np.floating | np.integer]


@dataclass
class Comparison:
    """Finds the nearest pictures of a reference set, which comes a part at a time.

    Memory holds the codes of the samples, a part of the set, and a few candidates for each sample.

    Args:
        samples: n samples.
        vectors: gives the features of samples by row.
        references: gives those of the set by their position.
        min_contrast: standard deviation of the luminance, 0 to 1, below which a picture's hash says nothing.
        min_cosine: cosine from which a semantic pair is looked for.
        dimension: numbers of the features.
        ignored: a row of the set for each sample, whose pictures do not count, int64 [n].
    """

    samples: Looked
    vectors: Vectors
    references: Vectors
    min_contrast: float
    min_cosine: float
    dimension: int
    ignored: NDArray[np.int64] | None = None
    exact: Nearest = field(init=False)
    perceptual: Nearest = field(init=False)
    semantic: Nearest = field(init=False)
    _seen: int = field(init=False, default=0)

    def __post_init__(self) -> None:
        n = len(self.samples)
        self.exact = Nearest(np.full(n, -1, np.int64), np.ones(n, np.float32))
        self.perceptual = Nearest(np.full(n, -1, np.int64), np.full(n, HASH_BITS + 1, np.int64))
        self.semantic = Nearest(np.full(n, -1, np.int64), np.full(n, -2.0))

    def add(self, part: pa.Table | pa.RecordBatch) -> None:
        """Compare with the next rows of the set: ``COLUMNS`` of ``reference_features``."""
        rows = part["reference_row"].to_numpy(zero_copy_only=False).astype(np.int64)
        self._add_digests(part)
        self._add_hashes(part, rows)
        self._add_codes(part, rows)
        self._seen += part.num_rows

    def _add_digests(self, part: pa.Table | pa.RecordBatch) -> None:
        whole = np.flatnonzero(pc.equal(part["variant"], WHOLE).to_numpy(zero_copy_only=False))
        for name, digests in self.samples.digests.items():
            there = _whole_column(part[name]).take(pa.array(whole))
            found = pc.index_in(digests, value_set=there.drop_null(), skip_nulls=True)
            places = (
                np.flatnonzero(_valid(there))[found.fill_null(0).to_numpy()] if there.null_count < len(there) else ()
            )
            is_new = _valid(found) & (self.exact.position < 0)
            if is_new.any():
                self.exact.position[is_new] = self._seen + whole[places[is_new]]

    def _add_hashes(self, part: pa.Table | pa.RecordBatch, rows: NDArray[np.int64]) -> None:
        import faiss

        looked_up = np.flatnonzero(self.samples.is_hashed)
        there = np.flatnonzero(_is_hashed(part, self.min_contrast))
        if not len(looked_up) or not len(there):
            return
        both = [_hashes(part[name])[there] for name in ("perceptual_hash", "mirrored_hash")]
        index = faiss.IndexBinaryFlat(HASH_BITS)
        index.add(_as_bytes(np.concatenate(both)))
        many = min(self._candidates, index.ntotal)
        for some in np.split(looked_up, range(_QUERIES, len(looked_up), _QUERIES)):
            distance, found = index.search(_as_bytes(self.samples.hashes[some]), many)
            at = there[found % len(there)]
            distance = np.where(self._counts(rows[at], some), distance, HASH_BITS + 1)
            best = distance.argmin(axis=1)[:, None]
            self._keep(self.perceptual, some, np.take_along_axis(distance, best, 1)[:, 0], at, best, np.less)

    def _add_codes(self, part: pa.Table | pa.RecordBatch, rows: NDArray[np.int64]) -> None:
        import faiss

        there, made = to_matrix(part["code"])
        if not len(self.samples.coded) or not len(there):
            return
        index = faiss.IndexFlatIP(made.shape[1])
        index.add(made)
        many = min(self._candidates, index.ntotal)
        least = code_threshold(self.min_cosine, self.dimension)
        for start in range(0, len(self.samples.coded), _QUERIES):
            some = self.samples.coded[start : start + _QUERIES]
            alike, found = index.search(self.samples.codes[start : start + _QUERIES].astype(np.float32), many)
            at = there[found]
            likely = (alike >= least) & self._counts(rows[at], some)
            if not likely.any():
                continue
            place, rank = np.nonzero(likely)
            cosine = np.full(alike.shape, -2.0)
            cosine[place, rank] = self._cosines(some[place], self._seen + at[place, rank])
            best = cosine.argmax(axis=1)[:, None]
            self._keep(self.semantic, some, np.take_along_axis(cosine, best, 1)[:, 0], at, best, np.greater)

    @property
    def _candidates(self) -> int:
        """How many of the nearest are looked at: of those that do not count, all variants may be nearest."""
        return _CANDIDATES if self.ignored is None else 4 * _CANDIDATES

    def _counts(self, rows: NDArray[np.int64], samples: NDArray[np.int64]) -> NDArray[np.bool_]:
        if self.ignored is None:
            return np.ones(rows.shape, np.bool_)
        return rows != self.ignored[samples][:, None]

    def _cosines(self, samples: NDArray[np.int64], positions: NDArray[np.int64]) -> NDArray[np.float64]:
        own, of_own = np.unique(samples, return_inverse=True)
        others, of_others = np.unique(positions, return_inverse=True)
        both = np.concatenate([self.vectors(own), self.references(others)])
        return cosines(both, np.stack([of_own, of_others + len(own)], axis=1))

    def _keep(
        self,
        nearest: Nearest,
        samples: NDArray[np.int64],
        measure: NDArray[np.floating | np.integer],
        at: NDArray[np.int64],
        best: NDArray[np.int64],
        is_better: np.ufunc,
    ) -> None:
        better = is_better(measure, nearest.measure[samples])
        chosen = samples[better]
        nearest.measure[chosen] = measure[better]
        nearest.position[chosen] = self._seen + np.take_along_axis(at, best, 1)[better, 0]


def _as_bytes(hashes: NDArray[np.uint64]) -> NDArray[np.uint8]:
    return np.ascontiguousarray(hashes).view(np.uint8).reshape(-1, HASH_BITS // 8)


def _whole_column(column: pa.Array | pa.ChunkedArray) -> pa.Array:
    return column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column


def _valid(column: pa.Array | pa.ChunkedArray) -> NDArray[np.bool_]:
    return _whole_column(column).is_valid().to_numpy(zero_copy_only=False)


def _hashes(column: pa.Array | pa.ChunkedArray) -> NDArray[np.uint64]:
    return _whole_column(column).fill_null(0).to_numpy(zero_copy_only=False)


def _is_hashed(table: pa.Table | pa.RecordBatch, min_contrast: float) -> NDArray[np.bool_]:
    """Which pictures have a hash that says something, bool [n]."""
    contrast = _whole_column(table["contrast"]).fill_null(-1).to_numpy(zero_copy_only=False)
    return _valid(table["perceptual_hash"]) & (contrast >= min_contrast)
