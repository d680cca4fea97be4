"""Copies that are planted to see how many would be found: of the reference sets' own pictures."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from PIL import ImageOps

from dqe_assets.contamination.compare import HASH_BITS, Comparison, Looked
from dqe_assets.contamination.tables import PLANTED_COPIES
from dqe_assets.core.arrow import to_matrix
from dqe_assets.core.figures import jpeg
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
    features = features.append_column("sha256", pa.nulls(len(made), pa.string()))
    vectors = to_matrix(features["embedding"])[1]
    owners = np.array([row["reference_row"] for row, _, _ in made], np.int64)
    others = Comparison(
        Looked.of([features], rules.min_contrast),
        lambda some: vectors[some],
        reference.vectors,
        rules.min_contrast,
        # Every cosine counts, however low: the threshold is what is looked for.
        min_cosine=-1.0,
        dimension=vectors.shape[1],
        ignored=owners,
    )
    own = _Own(owners)
    for part in reference.parts():
        others.add(part)
        own.add(part)
    distance, cosine = own.nearest(features["perceptual_hash"].to_numpy(), vectors, reference)
    columns: dict[str, Any] = {
        "reference_set": [reference.name] * len(made),
        "reference_row": pa.array(owners, pa.int32()),
        "reference": [row["reference"] for row, _, _ in made],
        "copy": [name for _, name, _ in made],
        "distance": _or_null(distance, distance <= HASH_BITS, pa.int16()),
        "cosine": pa.array(cosine, pa.float32()),
        "other_distance": _or_null(others.perceptual.measure, others.perceptual.position >= 0, pa.int16()),
        "other_cosine": _or_null(others.semantic.measure, others.semantic.position >= 0, pa.float32()),
    }
    table = pa.table(columns)
    for name, prefix in (("is_found", ""), ("is_mistaken", "other_")):
        near = near_enough(table[f"{prefix}distance"], table[f"{prefix}cosine"], rules)
        table = table.append_column(name, pa.array(near["any"]))
    return table.cast(PLANTED_COPIES)


def _or_null(values: NDArray[Any], there: NDArray[np.bool_], kind: pa.DataType) -> pa.Array:
    return pa.array(values, mask=~there).cast(kind)


class _Own:
    """The rows of a set that are of each copy's own picture."""

    def __init__(self, owners: NDArray[np.int64]) -> None:
        self._owners = owners
        self._positions, self._rows = [np.empty(0, np.int64)], [np.empty(0, np.int64)]
        self._hashes = [np.empty((0, 2), np.uint64)]
        self._seen = 0

    def add(self, part: pa.RecordBatch) -> None:
        rows = part["reference_row"].to_numpy(zero_copy_only=False).astype(np.int64)
        mine = np.flatnonzero(np.isin(rows, self._owners) & part["perceptual_hash"].is_valid().to_numpy(False))
        self._positions.append(mine + self._seen)
        self._rows.append(rows[mine])
        both = [part[name].fill_null(0).to_numpy(zero_copy_only=False) for name in ("perceptual_hash", "mirrored_hash")]
        self._hashes.append(np.stack(both, axis=1)[mine])
        self._seen += part.num_rows

    def nearest(
        self, hashes: NDArray[np.uint64], vectors: NDArray[np.floating], reference: Reference
    ) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """Fewest bits and highest cosine between each copy and its own picture: int64 [n], float64 [n]."""
        rows, own_hashes = np.concatenate(self._rows), np.concatenate(self._hashes)
        own = reference.vectors(np.concatenate(self._positions))
        copy, variant = np.nonzero(self._owners[:, None] == rows[None, :])
        distance, cosine = np.full(len(hashes), HASH_BITS + 1), np.full(len(hashes), -1.0)
        bits = np.bitwise_count(hashes[copy, None] ^ own_hashes[variant]).min(axis=1)
        np.minimum.at(distance, copy, bits)
        pairs = np.stack([copy, variant + len(vectors)], axis=1)
        np.maximum.at(cosine, copy, cosines(np.concatenate([vectors, own]), pairs))
        return distance, cosine


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
