"""Planted copies of pictures that a reference set has, and of others: how many are found, and how many wrongly.

    python -m benchmarks.contamination [--scale]

Half of the sample's photos are the reference set. Copies are made of all of them: of one half all should be found, of
the other none. What the variants of a reference picture are worth is measured by leaving them out. With ``--scale``
instead: 10,000 samples against 50,000 pictures, made up, beside the bare matrix product of their codes.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import typer

from benchmarks.common import peak_mib, publish
from dqe_assets.contamination.compare import Comparison, Looked
from dqe_assets.contamination.matching import Reference
from dqe_assets.contamination.planted import COPIES, planted_copies
from dqe_assets.contamination.plots import planted_copies as planted_copies_plot
from dqe_assets.contamination.reference import reference_features
from dqe_assets.contamination.settings import ContaminationRules
from dqe_assets.contamination.variants import VARIANTS, WHOLE
from dqe_assets.core.arrow import from_matrix, to_matrix
from dqe_assets.dedup.codebook import CODE_LENGTH, codes
from dqe_assets.features.extract import image_features
from dqe_assets.ingest.tables import RAW_SAMPLES
from dqe_resources.models.image_model import ImageModel
from dqe_resources.sources.sample_images.photos import PHOTOS
from dqe_resources.sources.sample_images.plants import fraction

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

PICTURE = Path(__file__).parent.parent / "docs" / "images" / "planted_copies.png"

SEEDS = 5
RULES = ContaminationRules()

SHARD, PICTURES, DIMENSION, PART = 10_000, 50_000, 1280, 8_192


def main(*, scale: Annotated[bool, typer.Option(help="measure time and memory instead")] = False) -> None:
    """Print the figures."""
    if scale:
        publish("contamination_scale", list(row := at_scale()), [row], "10,000 samples against 50,000 pictures")
    else:
        rows, copies = planted()
        PICTURE.write_bytes(planted_copies_plot(copies, RULES))
        publish("contamination", list(rows[0]), rows, "Planted copies, found by each way")


def planted() -> tuple[list[dict[str, float | int | str | None]], pa.Table]:
    """Precision and recall for each kind of copy and way of finding it; and copies as the asset makes them."""
    model = ImageModel()
    held_out = sorted(PHOTOS, key=lambda key: fraction(key, "held out"))[: len(PHOTOS) // 2]
    files = [{"bytes": PHOTOS[key].base_image(), "path": ""} for key in held_out]
    raw = _raw(held_out, files)
    reference = pa.Table.from_batches([reference_features(raw, 0, model)])
    made = [
        (key, name, copy)
        for key, photo in PHOTOS.items()
        for name, plant in COPIES.items()
        for number in range(SEEDS)
        if (copy := plant(photo.base_image(), f"benchmark {number}/{key}/{name}")) is not None
    ]
    copies = _raw([key for key, _, _ in made], [{"bytes": copy, "path": ""} for _, _, copy in made])
    features = image_features(pa.Table.from_batches([copies]).select(["uid", "image"]), model)
    features = features.append_column("sha256", copies["sha256"])
    kinds = np.array([name for _, name, _ in made])
    owner = np.array([held_out.index(key) if key in held_out else -1 for key, _, _ in made])
    rows: list[dict[str, float | int | str | None]] = []
    for variants in ((WHOLE,), (WHOLE, *VARIANTS)):
        found = _found(features, reference.filter(pc.is_in(reference["variant"], pa.array(variants))))
        for kind in [*COPIES, "all"]:
            of_kind = (kinds == kind) | (kind == "all")
            for way, said in found.items():
                right = int(((said == owner) & (owner >= 0) & of_kind).sum())
                claimed = int(((said >= 0) & of_kind).sum())
                rows.append(
                    {
                        "reference": "with variants" if len(variants) > 1 else "whole alone",
                        "copy": kind,
                        "found_by": way,
                        "recall": right / int(((owner >= 0) & of_kind).sum()),
                        "precision": right / claimed if claimed else None,
                        "copies": int(((owner >= 0) & of_kind).sum()),
                        "others": int(((owner < 0) & of_kind).sum()),
                    }
                )
    pictures = reference.filter(pc.is_valid(reference["image"])).select(["reference_row", "reference", "image"])
    stored = Reference("photos", reference.to_batches, lambda rows, names: reference.take(pa.array(rows)).select(names))
    return rows, planted_copies(stored, pictures, RULES, model, "benchmark")


def _raw(names: list[str], files: Sequence[Mapping[str, object]]) -> pa.RecordBatch:
    rows = [
        {"uid": str(number), "source": "s", "shard": "s", "row": number, "image_name": name, "image": file}
        | {"status": "ok", "reason": "ok"}
        for number, (name, file) in enumerate(zip(names, files, strict=True))
    ]
    return pa.RecordBatch.from_pylist(rows, RAW_SAMPLES)


def _found(features: pa.Table, reference: pa.Table) -> dict[str, np.ndarray]:
    """The row of the set that each sample is said to be, -1 for none, by each way."""
    vectors, others = (to_matrix(table["embedding"])[1] for table in (features, reference))
    looked = Looked.of([features], RULES.min_contrast)
    compared = Comparison(looked, lambda r: vectors[r], lambda r: others[r], RULES, vectors.shape[1])
    compared.with_all([reference])
    rows = np.append(reference["reference_row"].to_numpy(), -1)
    perceptual, semantic = rows[compared.perceptual.position], rows[compared.semantic.position]
    return {
        "perceptual": perceptual,
        "semantic": semantic,
        "any": np.where(perceptual >= 0, perceptual, semantic),
    }


def at_scale() -> dict[str, float]:
    """Seconds for a shard of 10,000 samples, beside the bare product; memory in MiB."""
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(SHARD, DIMENSION)).astype(np.float16)
    table = pa.table(
        {
            "sha256": [f"{number:064x}" for number in range(SHARD)],
            "pixel_digest": [f"{number:032x}" for number in range(SHARD)],
            "perceptual_hash": rng.integers(0, 2**63, SHARD).astype(np.uint64),
            "contrast": np.full(SHARD, 0.2, np.float32),
            "embedding": from_matrix(vectors, np.arange(SHARD), SHARD, pa.float16()),
        }
    )
    before = peak_mib()
    started = time.perf_counter()
    looked = Looked.of([table], RULES.min_contrast)
    Comparison(looked, lambda r: vectors[r], lambda r: vectors[r], RULES, DIMENSION).with_all(_parts())
    seconds = time.perf_counter() - started
    left = codes(vectors).astype(np.float32)
    right = rng.normal(size=(PART, CODE_LENGTH)).astype(np.float32)
    started = time.perf_counter()
    for _ in range(-(-4 * PICTURES // PART)):
        left @ right.T
    bare = time.perf_counter() - started
    return {
        "seconds": round(seconds, 2),
        "bare_product_seconds": round(bare, 2),
        "times_the_product": round(seconds / bare, 1),
        "memory_mib": round(peak_mib() - before),
    }


def _parts() -> Iterator[pa.Table]:
    """The reference set, a part at a time, as it is read."""
    for start in range(0, 4 * PICTURES, PART):
        rng = np.random.default_rng(start + 1)
        count = min(PART, 4 * PICTURES - start)
        hashes = [rng.integers(0, 2**63, count).astype(np.uint64) for _ in range(2)]
        code = rng.normal(size=(count, CODE_LENGTH)).astype(np.float32)
        code /= np.linalg.norm(code, axis=1, keepdims=True)
        yield pa.table(
            {
                "reference_row": np.arange(start, start + count, dtype=np.int32) // 4,
                "variant": np.where(np.arange(count) % 4, "middle", WHOLE),
                "sha256": [f"{start + number:064x}r" for number in range(count)],
                "pixel_digest": [f"{start + number:032x}r" for number in range(count)],
                "perceptual_hash": hashes[0],
                "mirrored_hash": hashes[1],
                "contrast": np.full(count, 0.2, np.float32),
                "code": from_matrix(code, np.arange(count), count, pa.float16()),
            }
        )


if __name__ == "__main__":
    typer.run(main)
