"""Copies that are planted to see how many would be found: of the reference sets' own pictures."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from PIL import ImageOps

from dqe_assets.contamination.compare import HASH_BITS
from dqe_assets.contamination.tables import PLANTED_COPIES
from dqe_assets.core.arrow import to_matrix
from dqe_assets.core.figures import jpeg
from dqe_assets.dedup.codebook import codes
from dqe_assets.dedup.semantic import cosines
from dqe_assets.features.extract import image_features
from dqe_resources import images
from dqe_resources.sources.sample_images.plants import fraction, make

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from dqe_assets.contamination.matching import Reference
    from dqe_assets.contamination.settings import ContaminationRules
    from dqe_resources.models.image_model import ImageModel

_LETTERS = (
    "me explaining to my friends why this is fine",
    "nobody: absolutely nobody: my neighbour at six in the morning",
    "wait for it",
    "THE DAY BEFORE THE HOLIDAYS BEGIN",
    "there are two kinds of people in this world and neither is here",
)
# Of a narrower one, a line holds hardly a word.
_NARROWEST = 64
_ENLARGED = 2
_QUALITY = 95


def _mirrored(file: bytes, _: str) -> bytes:
    return jpeg(ImageOps.mirror(images.decode(file)))


def _lettered(file: bytes, seed: str) -> bytes | None:
    picture = images.decode(file)
    if min(picture.size) < _NARROWEST:
        return None
    # The picture that is kept is small: letters have the size that they would have in the whole one.
    large = picture.resize((picture.width * _ENLARGED, picture.height * _ENLARGED))
    words = _LETTERS[int(fraction(seed, "words") * len(_LETTERS))]
    return make("caption_drawn", jpeg(large, _QUALITY), seed, words)


COPIES: dict[str, Callable[[bytes, str], bytes | None]] = {
    "recompressed": lambda file, seed: make("recompressed", file, seed, None),
    "cropped": lambda file, seed: make("cropped", file, seed, None),
    "mirrored": _mirrored,
    "lettered": _lettered,
}
"""What makes a copy of a picture's file, from a seed, by its name; None where there is no such copy."""


def planted_copies(
    reference: Reference, rows: pa.Table, rules: ContaminationRules, model: ImageModel, seed: str
) -> pa.Table:
    """Copies of some pictures of a set, and how near each is to its own picture and to the nearest other one.

    Args:
        reference: the set.
        rows: reference_row, reference and image of those pictures.
        rules: the thresholds.
        model: the backbone.
        seed: what the copies' choices are made of.

    Returns:
        Table of ``PLANTED_COPIES``.
    """
    made = [
        (row, name, copy)
        for row in rows.to_pylist()
        for name, plant in COPIES.items()
        if (copy := plant(row["image"]["bytes"], f"{seed}/{row['reference']}/{name}")) is not None
    ]
    files = pa.array([{"bytes": copy, "path": ""} for _, _, copy in made], rows["image"].type)
    features = image_features(pa.table({"uid": [str(place) for place in range(len(made))], "image": files}), model)
    vectors = to_matrix(features["embedding"])[1]
    owners = np.array([row["reference_row"] for row, _, _ in made], np.int64)
    hashes = features["perceptual_hash"].to_numpy()
    own, others = (_NearestOf(owners, hashes, vectors, own=which) for which in (True, False))
    for part in reference.parts():
        own.add(part)
        others.add(part)
    columns: dict[str, Any] = {
        "reference_set": [reference.name] * len(made),
        "reference_row": pa.array(owners, pa.int32()),
        "reference": [row["reference"] for row, _, _ in made],
        "copy": [name for _, name, _ in made],
        "distance": own.distances(),
        "cosine": own.cosines(reference),
        "other_distance": others.distances(),
        "other_cosine": others.cosines(reference),
    }
    table = pa.table(columns)
    for name, prefix in (("is_found", ""), ("is_mistaken", "other_")):
        near = near_enough(table[f"{prefix}distance"], table[f"{prefix}cosine"], rules)
        table = table.append_column(name, pa.array(near["any"]))
    return table.cast(PLANTED_COPIES)


class _NearestOf:
    """How near some copies are to their own pictures, or to all others, whether that is near enough or not."""

    def __init__(
        self, owners: NDArray[np.int64], hashes: NDArray[np.uint64], vectors: NDArray[np.floating], *, own: bool
    ) -> None:
        self._owners, self._hashes, self._vectors, self._own = owners, hashes, vectors, own
        self._codes = codes(vectors).astype(np.float32)
        self._distance, self._alike = np.full(len(owners), HASH_BITS + 1), np.full(len(owners), -np.inf)
        self._position = np.full(len(owners), -1, np.int64)
        self._seen = 0

    def add(self, part: pa.RecordBatch) -> None:
        """Compare with the next rows of the set."""
        there, made = to_matrix(part["code"])
        if len(there):
            rows = part["reference_row"].to_numpy()[there]
            counts = (self._owners[:, None] == rows[None, :]) == self._own
            for name in ("perceptual_hash", "mirrored_hash"):
                bits = np.bitwise_count(self._hashes[:, None] ^ part[name].take(pa.array(there)).to_numpy()[None, :])
                self._distance = np.minimum(self._distance, np.where(counts, bits, HASH_BITS + 1).min(axis=1))
            alike = np.where(counts, self._codes @ made.T, -np.inf)
            nearest = alike.argmax(axis=1)
            more = alike.max(axis=1) > self._alike
            self._alike[more] = alike.max(axis=1)[more]
            self._position[more] = self._seen + there[nearest[more]]
        self._seen += part.num_rows

    def distances(self) -> pa.Array:
        """Bits, of the hashes; null where there is none to compare with."""
        return pa.array(self._distance, mask=self._distance > HASH_BITS).cast(pa.int16())

    def cosines(self, reference: Reference) -> pa.Array:
        """Cosines of the features, of the nearest by their codes; null likewise."""
        positions, which = np.unique(self._position.clip(min=0), return_inverse=True)
        both = np.concatenate([self._vectors, reference.vectors(positions)])
        cosine = cosines(both, np.stack([np.arange(len(which)), which + len(which)], axis=1))
        return pa.array(cosine, pa.float32(), mask=self._position < 0)


def figures(copies: pa.Table, rules: ContaminationRules) -> list[dict[str, Any]]:
    """Precision and recall for each kind of copy and way of finding it.

    Each copy counts twice: beside a set that has its picture, where it is to be found, and beside the same set without
    that picture, where nothing is.

    Args:
        copies: table of ``PLANTED_COPIES``.
        rules: the thresholds.

    Returns:
        A row for each copy and way: ``copy``, ``found_by`` (perceptual, semantic or any), ``copies``, ``recall`` and
        ``precision`` (null where nothing is found).
    """
    kinds = np.array(copies["copy"].to_pylist(), np.str_)
    found, wrong = (
        near_enough(copies[distance], copies[cosine], rules)
        for distance, cosine in (("distance", "cosine"), ("other_distance", "other_cosine"))
    )
    rows = []
    for kind in [*dict.fromkeys(kinds.tolist()), "all"]:
        of_kind = (kinds == kind) | (kind == "all")
        for way in found:
            right, false = int(found[way][of_kind].sum()), int(wrong[way][of_kind].sum())
            rows.append(
                {
                    "copy": kind,
                    "found_by": way,
                    "copies": int(of_kind.sum()),
                    "recall": right / int(of_kind.sum()),
                    "precision": right / (right + false) if right + false else None,
                }
            )
    return rows


def near_enough(
    distance: pa.ChunkedArray, cosine: pa.ChunkedArray, rules: ContaminationRules
) -> dict[str, NDArray[np.bool_]]:
    """Which copies are found: bool [n] by the way of finding them, null being far."""
    perceptual = distance.fill_null(HASH_BITS + 1).to_numpy() <= rules.max_distance
    semantic = cosine.fill_null(-2.0).to_numpy() >= rules.min_cosine
    return {"perceptual": perceptual, "semantic": semantic, "any": perceptual | semantic}


def drawn(count: int, most: int) -> Sequence[int]:
    """Which of so many pictures copies are made of: spread evenly, at most so many."""
    return np.unique(np.linspace(0, count - 1, min(count, most)).round().astype(np.int64)).tolist() if count else []
