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
from dqe_resources.parallel import ordered_map

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from numpy.typing import NDArray

    from dqe_assets.dedup.settings import PairRules

    Vectors = Callable[[NDArray[np.int64]], NDArray[np.floating]]
    """Gives the features of some rows, int64 [k] ascending: floats [k, d]."""

COLUMNS = ["reference_row", "variant", "sha256", "pixel_digest", "perceptual_hash", "mirrored_hash", "contrast", "code"]
"""What is read of ``reference_features`` to compare with."""

HASH_BITS = 64

_CANDIDATES = 4
_AT_ONCE = 1 << 10
# So many XORs (0.5 MB) stay in a core's cache.
_BLOCK = 256


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
    """The nearest picture of a reference set that is near enough, for each sample.

    Attributes:
        position: where it stands in ``reference_features``, int64 [n]; -1 for none.
        measure: how alike it is, 0 to 1, float64 [n].
    """

    position: NDArray[np.int64]
    measure: NDArray[np.float64]


@dataclass
class Comparison:
    """Finds the nearest pictures of a reference set, which comes a part at a time.

    Memory holds the codes of the samples, a part of the set, and a few candidates for some thousand samples.

    Args:
        samples: n samples.
        vectors: gives the features of samples by row.
        references: gives those of the set by their position.
        rules: which pairs are near enough.
        dimension: numbers of the features.
    """

    samples: Looked
    vectors: Vectors
    references: Vectors
    rules: PairRules
    dimension: int
    exact: Nearest = field(init=False)
    perceptual: Nearest = field(init=False)
    semantic: Nearest = field(init=False)
    _seen: int = field(init=False, default=0)

    def __post_init__(self) -> None:
        n = len(self.samples)
        self.exact = Nearest(np.full(n, -1, np.int64), np.ones(n))
        self.perceptual = Nearest(np.full(n, -1, np.int64), np.zeros(n))
        self.semantic = Nearest(np.full(n, -1, np.int64), np.zeros(n))

    def with_all(self, parts: Iterable[pa.Table | pa.RecordBatch]) -> Comparison:
        """The same, once compared with all rows of the set: ``COLUMNS`` of ``reference_features``, in parts."""
        for part in parts:
            self._add_digests(part)
            self._add_hashes(part)
            self._add_codes(part)
            self._seen += part.num_rows
        return self

    def _add_digests(self, part: pa.Table | pa.RecordBatch) -> None:
        whole = np.flatnonzero(pc.equal(part["variant"], WHOLE).to_numpy(zero_copy_only=False))
        for name, digests in self.samples.digests.items():
            there = _whole_column(part[name]).take(pa.array(whole))
            rows = whole[_valid(there)]
            found = pc.index_in(digests, value_set=there.drop_null(), skip_nulls=True)
            is_new = _valid(found) & (self.exact.position < 0)
            self.exact.position[is_new] = self._seen + rows[found.filter(pa.array(is_new)).to_numpy()]

    def _add_codes(self, part: pa.Table | pa.RecordBatch) -> None:
        there, made = to_matrix(part["code"])
        least = code_threshold(self.rules.min_cosine, self.dimension)
        for start in range(0, len(self.samples.coded) if len(there) else 0, _AT_ONCE):
            alike = self.samples.codes[start : start + _AT_ONCE].astype(np.float32) @ made.T
            likely = np.flatnonzero(alike.max(axis=1) >= least)
            if len(likely):
                samples, alike = self.samples.coded[start : start + _AT_ONCE][likely], alike[likely]
                many = min(_CANDIDATES, alike.shape[1])
                nearest = np.argpartition(-alike, many - 1, axis=1)[:, :many]
                rank, place = np.nonzero(np.take_along_axis(alike, nearest, axis=1) >= least)
                self._add_cosines(samples[rank], self._seen + there[nearest[rank, place]])

    def _add_cosines(self, samples: NDArray[np.int64], positions: NDArray[np.int64]) -> None:
        """Of these pairs, those that are alike enough and more than what was found before."""
        own, of_own = np.unique(samples, return_inverse=True)
        others, of_others = np.unique(positions, return_inverse=True)
        both = np.concatenate([self.vectors(own), self.references(others)])
        cosine = cosines(both, np.stack([of_own, of_others + len(own)], axis=1))
        # The most alike first, and of equal ones the first of the set.
        for pair in np.lexsort((positions, -cosine))[: np.count_nonzero(cosine >= self.rules.min_cosine)].tolist():
            sample = samples[pair]
            if cosine[pair] > self.semantic.measure[sample]:
                self.semantic.measure[sample], self.semantic.position[sample] = cosine[pair], positions[pair]

    def _add_hashes(self, part: pa.Table | pa.RecordBatch) -> None:
        there = np.flatnonzero(_is_hashed(part, self.rules.min_contrast))
        others = np.concatenate([_hashes(part[name])[there] for name in ("perceptual_hash", "mirrored_hash")])
        looked_up = np.flatnonzero(self.samples.is_hashed)
        if not len(others) or not len(looked_up):
            return
        place, distance = nearest_hashes(self.samples.hashes[looked_up], others)
        measure = 1 - distance / HASH_BITS
        better = (distance <= self.rules.max_distance) & (measure > self.perceptual.measure[looked_up])
        self.perceptual.measure[looked_up[better]] = measure[better]
        self.perceptual.position[looked_up[better]] = self._seen + there[place[better] % len(there)]


def nearest_hashes(
    hashes: NDArray[np.uint64], others: NDArray[np.uint64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Of each hash the nearest other one, the first of several, and the bits in which they differ: int64 [n] each."""

    def of_some(some: NDArray[np.uint64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        place, distance = np.zeros(len(some), np.int64), np.full(len(some), HASH_BITS + 1)
        for start in range(0, len(others), _BLOCK):
            bits = np.bitwise_count(some[:, None] ^ others[None, start : start + _BLOCK])
            least = bits.min(axis=1)
            nearer = np.flatnonzero(least < distance)
            if len(nearer):
                distance[nearer] = least[nearer]
                place[nearer] = start + bits[nearer].argmin(axis=1)
        return place, distance

    found = list(ordered_map(of_some, np.split(hashes, range(_BLOCK, len(hashes), _BLOCK))))
    return np.concatenate([place for place, _ in found]), np.concatenate([distance for _, distance in found])


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
