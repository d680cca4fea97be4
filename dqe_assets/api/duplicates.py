"""Images that are the same, look the same or show the same, among images that are in no store."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from dqe_assets.api.given import given_images, models_at_hand, refuse_failed, row_of
from dqe_assets.api.measure import looked_at
from dqe_assets.api.progress import bar
from dqe_assets.api.rows import Rows
from dqe_assets.core.arrow import to_matrix
from dqe_assets.dedup.clusters import clusters_of_pairs
from dqe_assets.dedup.pairs import find_pairs
from dqe_assets.dedup.settings import DuplicateRules

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from dqe_resources.sources.rows import SourceRow


class Duplicates(Rows):
    """Clusters of images that are duplicates, and the pairs that they come of.

    Attributes:
        pairs: ``kind``, the rows ``row_a`` and ``row_b`` of the images, the smaller first, and their ``similarity``; of
            images that equal each other, each with the first of them.
    """

    def __init__(self, clusters: pa.Table, pairs: pa.Table) -> None:
        super().__init__(clusters)
        self.pairs = Rows(pairs)


def find_duplicates(images: Iterable[Any]) -> Duplicates:
    """Which images are the same file or picture, look the same, or show the same, as ``duplicate_clusters`` has it.

    The thresholds are those that dqe.yaml has by default. Memory: 2.6 kB for each image, beside the images themselves.

    Args:
        images: n images: bytes, paths, or PIL images.

    Returns:
        A row for each image of a cluster, none for the others: ``row``, its number; ``kind``: exact, perceptual,
        semantic, or any, which joins all three; ``cluster``, the number of its first image; ``representative``, that
        of the largest image, and ``is_representative``; ``similarity``, the cosine with it; and ``size``, how many the
        cluster has. To keep one of each: leave out the rows of kind any that do not represent. ``pairs`` has the pairs.

    Raises:
        RowError: an image cannot be read; says which.
    """
    pictures = list(given_images(images))
    with models_at_hand(), bar("duplicates", len(pictures)) as advance:

        def rows() -> Iterator[SourceRow]:
            for number, picture in enumerate(pictures):
                # In the order of their uids, as pairs are looked for.
                yield replace(row_of(number, picture, None), uid=_uid(number))
                advance(1)

        raw, features = looked_at("data", "data", rows(), lambda batch: refuse_failed(batch, pictures))
        samples = features.select(["uid", "pixel_digest", "perceptual_hash", "contrast"])
        _, vectors = to_matrix(features["embedding"])
        vectors = vectors.astype(np.float16)
        rules = DuplicateRules()
        pairs = find_pairs(samples.append_column("sha256", raw["sha256"]), vectors, rules.pairs)
        uids = pc.unique(pa.chunked_array([*pairs["uid_a"].chunks, *pairs["uid_b"].chunks], pa.string()))
        places = _numbers(uids).to_numpy()
        area = pc.multiply(raw["width"].cast(pa.float64()), raw["height"].cast(pa.float64())).to_numpy()
        clusters = clusters_of_pairs(pairs, uids, vectors[places], area[places])
    return Duplicates(
        _with_numbers(clusters, {"uid": "row", "cluster": "cluster", "representative": "representative"}),
        _with_numbers(pairs, {"uid_a": "row_a", "uid_b": "row_b"}),
    )


def _uid(number: int) -> str:
    return f"{number:032x}"


def _numbers(uids: pa.ChunkedArray) -> pa.Array:
    """The numbers that uids were made of: int64 [n]."""
    return pa.array([int(uid, 16) for uid in uids.to_pylist()], pa.int64())


def _with_numbers(table: pa.Table, names: Mapping[str, str]) -> pa.Table:
    """A table with numbers of rows in place of uids, under these names."""
    for name, new in names.items():
        place = table.column_names.index(name)
        table = table.set_column(place, new, _numbers(table[name]))
    return table
