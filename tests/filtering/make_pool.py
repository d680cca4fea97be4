"""Pools of DataComp metadata for tests."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

CAPTIONS = (
    *("a photo of a dog on the beach at sunset", "Hund am Strand bei Sonnenuntergang", "IMG_2019.JPG", "", " \n "),
    *("two words", "собака бежит по пляжу", "the quick brown fox jumps over the lazy dog", "犬が浜辺を走っている"),
    *("vintage wedding dress for sale\nfree shipping", "le chien court sur la plage", "one\u00a0two\u3000three four"),
)


def table(rows: int, *, seed: int = 0, **columns: Any) -> pa.Table:
    """Metadata with DataComp's columns, some of them given."""
    random = np.random.default_rng(seed)
    halves = random.integers(0, 2**63, (rows, 2))
    made = {
        "uid": [f"{high:016x}{low:016x}" for high, low in halves.tolist()],
        "text": random.choice(np.array(CAPTIONS, object), rows).tolist(),
        "original_width": random.integers(0, 1200, rows),
        "original_height": random.integers(0, 1200, rows),
        "clip_b32_similarity_score": random.normal(0.25, 0.05, rows).astype(np.float32),
        "clip_l14_similarity_score": random.normal(0.2, 0.06, rows).astype(np.float32),
    }
    return pa.table({**made, **columns})


def write_part(
    folder: Path, name: str, metadata: pa.Table, embeddings: Mapping[str, np.ndarray] | None = None, group: int = 7
) -> None:
    """One Parquet file, in small row groups, and if there are embeddings the .npz next to it."""
    folder.mkdir(exist_ok=True)
    pq.write_table(metadata, folder / f"{name}.parquet", row_group_size=group)
    if embeddings is not None:
        np.savez(folder / f"{name}.npz", **embeddings)


def uids(numbers: Sequence[int]) -> list[str]:
    """Numbers as uids."""
    return [f"{number:032x}" for number in numbers]
