"""A small store as the stages write it: three shards with real JPEGs, failures, two captioners and duplicates."""

from __future__ import annotations

import hashlib
import io
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image, ImageDraw

from dqe_assets.caption.tables import SYNTHETIC_CAPTIONS
from dqe_assets.core import schema as schemas
from dqe_assets.dedup.tables import DUPLICATE_CLUSTERS
from dqe_assets.features.tables import IMAGE_FEATURES
from dqe_assets.improve.best import best_captions
from dqe_assets.improve.best_settings import BestRule
from dqe_assets.improve.tables import BEST_CAPTIONS
from dqe_assets.ingest.tables import RAW_SAMPLES
from dqe_assets.orchestration.graph import relations
from dqe_assets.orchestration.settings import load_settings
from dqe_assets.report.build_warehouse import CaptionerInfo, WarehouseInputs
from dqe_assets.report.tables import MATERIALISATIONS
from dqe_assets.score.tables import CAPTION_PREFERENCE, CAPTION_SCORES

if TYPE_CHECKING:
    from pathlib import Path

RELATIONS = relations(load_settings({}))
"""What the stages of the project's own settings contribute."""

SHARDS, ROWS = 3, 40
CAPTIONERS = (
    CaptionerInfo(
        "labels",
        "labels",
        "EfficientNet-Lite0 labels",
        ("tf_efficientnet_lite0.in1k",),
        shares_backbone_with_scorer=True,
    ),
    CaptionerInfo(
        "vlm",
        "lmdeploy",
        "InternVL2-8B",
        ("InternViT-300M",),
        shares_backbone_with_scorer=False,
        price_per_hour=2.0,
    ),
)
SCORER = "label_space (EfficientNet-Lite0, MiniLM-L6)"
SCENES = ("lake", "desert", "city", "forest", "harbour", "meadow", "street", "mountain")
THINGS = ("boat", "house", "dog", "tree", "car", "kite", "bicycle", "balloon")
FAILURES = ("missing", "truncated", "not_an_image")


@dataclass(frozen=True, slots=True)
class Store:
    """What was written: the inputs of the warehouse, and every image by uid."""

    inputs: WarehouseInputs
    images: dict[str, bytes]


def make_store(
    root: Path,
    *,
    shards: int = SHARDS,
    rows: int = ROWS,
    captioners: tuple[CaptionerInfo, ...] = CAPTIONERS,
    duplicates: bool = True,
    all_failed: bool = False,
    captions: dict[int, str] | None = None,
) -> Store:
    """Write a store under ``root``.

    Args:
        root: an existing directory.
        shards: number of shards.
        rows: rows in each.
        captioners: who wrote synthetic captions.
        duplicates: whether rows 1 and 2 of each shard are copies of its row 0.
        all_failed: whether no image could be read.
        captions: captions to put in place of the usual ones, by row of the whole store.
    """
    files: dict[str, list[Path]] = {}
    images: dict[str, bytes] = {}
    clusters: list[dict[str, Any]] = []
    materialisations: list[dict[str, Any]] = []

    def write(asset: str, partition: str, schema: pa.Schema, table: list[dict[str, Any]]) -> None:
        path = root / asset / f"{partition}.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(pa.Table.from_pylist(table, schema=schema), path, compression="zstd", write_page_checksum=True)
        files.setdefault(asset, []).append(path)
        materialisations.append(
            {
                "asset": asset,
                "partition": partition,
                "materialised_at": datetime(2026, 1, 2, 3, 4, tzinfo=UTC) + timedelta(seconds=len(materialisations)),
                "code_version": "1",
                "rows": len(table),
                "bytes": path.stat().st_size,
                "fingerprint": f"{len(materialisations):032x}",
            }
        )

    for shard in range(shards):
        key = f"photos-{shard:05d}"
        random = np.random.default_rng(shard)
        samples = [
            _sample(key, shard * rows + row, row, duplicates=duplicates, all_failed=all_failed) for row in range(rows)
        ]
        for row, sample in enumerate(samples):
            if captions and shard * rows + row in captions:
                sample["caption"] = captions[shard * rows + row]
            if sample["image"]:
                images[sample["uid"]] = sample["image"]["bytes"]
        write("raw_samples", key, RAW_SAMPLES, samples)
        write("image_features", key, IMAGE_FEATURES, [_features(sample, random) for sample in samples])
        synthetic = {captioner.name: [_synthetic(sample, captioner) for sample in samples] for captioner in captioners}
        for name, table in synthetic.items():
            write(f"synthetic_captions/{name}", key, SYNTHETIC_CAPTIONS, table)
        scores = _scores(samples, [captioner.name for captioner in captioners], random)
        write("caption_scores", key, CAPTION_SCORES, scores)
        best = best_captions(
            pa.Table.from_pylist(samples, RAW_SAMPLES),
            {name: pa.Table.from_pylist(table, SYNTHETIC_CAPTIONS) for name, table in synthetic.items()},
            pa.Table.from_pylist(scores, CAPTION_SCORES),
            BestRule(avoid=(), trust_shared_backbone=True),
            shared={captioner.name for captioner in captioners if captioner.shares_backbone_with_scorer},
        )
        write("best_captions", key, BEST_CAPTIONS, best.to_pylist())
        write("caption_preference", key, CAPTION_PREFERENCE, _preference(samples, captioners, scores))
        if duplicates and not all_failed:
            clusters += _clusters([sample["uid"] for sample in samples[:3]])
    if shards:
        write("duplicate_clusters", "all", DUPLICATE_CLUSTERS, clusters)
    inputs = WarehouseInputs(
        relations=RELATIONS,
        assets=files,
        materialisations=pa.Table.from_pylist(materialisations, schema=MATERIALISATIONS),
        captioners=captioners,
        scorer=SCORER,
    )
    return Store(inputs, images)


def _sample(shard: str, number: int, row: int, *, duplicates: bool, all_failed: bool) -> dict[str, Any]:
    failed = all_failed or row % 13 == 7
    scene, thing = SCENES[number % len(SCENES)], THINGS[(number // 3) % len(THINGS)]
    copied = number - row if duplicates and row < 3 else number
    image = None if failed else draw(copied, size=(240, 180) if row % 4 else (150, 200))
    reason = FAILURES[number % len(FAILURES)] if failed else "ok"
    return {
        "uid": hashlib.sha256(f"photos/{number}".encode()).hexdigest()[:32],
        "source": "photos",
        "shard": shard,
        "row": row,
        "image_name": f"photos/{number:04d}.jpg",
        "url": f"https://photos.example/{number}.jpg" if number % 2 else None,
        "caption": None if row == 11 else (f"DSC_{number:04d}.JPG" if row % 10 == 3 else f"my {thing} at the {scene}"),
        "image": image and {"bytes": image, "path": f"{number:04d}.jpg"},
        "sha256": image and hashlib.sha256(image).hexdigest(),
        "format": image and "jpeg",
        "bytes": image and len(image),
        "width": None if failed else (240 if row % 4 else 150),
        "height": None if failed else (180 if row % 4 else 200),
        "exif_orientation": None if failed else 1,
        "status": "failed" if failed else "ok",
        "reason": reason,
        "detail": f"{reason}: <{shard}/{number:04d}.jpg>" if failed else None,
    }


def draw(number: int, size: tuple[int, int]) -> bytes:
    """A drawn landscape, different for each number, as JPEG."""
    random = np.random.default_rng(number)
    width, height = size
    sky, ground = (tuple(int(v) for v in random.integers(60, 250, 3)) for _ in range(2))
    image = Image.new("RGB", size, sky)
    canvas = ImageDraw.Draw(image)
    horizon = int(height * random.uniform(0.4, 0.7))
    canvas.rectangle((0, horizon, width, height), fill=ground)
    for _ in range(6):
        x, y, radius = (int(v) for v in random.integers((0, 0, 8), (width, height, 45)))
        colour = tuple(int(v) for v in random.integers(0, 255, 3))
        shape = canvas.ellipse if random.random() < 0.5 else canvas.rectangle
        shape((x - radius, y - radius, x + radius, y + radius), fill=colour)
    out = io.BytesIO()
    image.save(out, "JPEG", quality=80)
    return out.getvalue()


def _features(sample: dict[str, Any], random: np.random.Generator) -> dict[str, Any]:
    if sample["status"] != "ok":
        return {"uid": sample["uid"]}
    probabilities = np.sort(random.dirichlet(np.ones(20)))[::-1]
    return {
        "uid": sample["uid"],
        "embedding": random.normal(size=8).astype(np.float16),
        "label_ids": list(range(20)),
        "label_probabilities": [float(p) for p in probabilities],
        "top_label": THINGS[int(random.integers(len(THINGS)))],
        "perceptual_hash": int(random.integers(2**63)),
        "sharpness": float(random.gamma(2.0, 200.0)),
        "brightness": float(random.beta(4, 4)),
        "contrast": float(random.beta(3, 8)),
        "colourfulness": float(random.gamma(4.0, 10.0)),
        "colours": ["blue", "green"],
        "focus_x": 0.5,
        "focus_y": 0.5,
    }


def _synthetic(sample: dict[str, Any], captioner: CaptionerInfo) -> dict[str, Any]:
    model = captioner.model
    row = {"uid": sample["uid"], "text": None, "caption": None, "finish_reason": "no_image", "model": model}
    if sample["status"] != "ok":
        return row
    number = int(sample["image_name"][-8:-4])
    if captioner.kind == "lmdeploy":
        # Two at a time, each for three seconds, and a minute's pause after every shard.
        finished_at = datetime(2026, 1, 1, tzinfo=UTC) + timedelta(seconds=1.5 * number + 60 * (number // ROWS))
        row |= {"prompt": "default 1", "prompt_hash": "0" * 16, "prompt_tokens": 300, "completion_tokens": 40}
        row |= {"seconds": 3.0, "finished_at": finished_at, "attempts": 1 + (sample["row"] == 5)}
    if sample["row"] == 5:
        return row | {"finish_reason": "error", "error": "the server gave no answer within 60 s"}
    caption = f"A {THINGS[number % 8]} in front of a {SCENES[number % 8]} under a clear sky, seen by {model}."
    text = {"text": f"This image showcases: {caption}", "caption": caption}
    if sample["row"] == 6:
        return row | text | {"finish_reason": "length", "flags": ["cut_off"]}
    return row | text | {"finish_reason": "stop", "flags": []}


def _scores(samples: list[dict[str, Any]], names: list[str], random: np.random.Generator) -> list[dict[str, Any]]:
    rows = []
    for sample in samples:
        for source in (schemas.ORIGINAL, *names):
            original = source == schemas.ORIGINAL
            captioned = sample["status"] == "ok" and (sample["caption"] is not None if original else sample["row"] != 5)
            mean = {"original": 0.21, "labels": 0.33}.get(source, 0.38)
            rows.append(
                {
                    "uid": sample["uid"],
                    "caption_source": source,
                    "similarity": float(np.clip(random.normal(mean, 0.1), -1, 1)) if captioned else None,
                    "tokens": int(random.integers(4, 40)) if captioned else None,
                    "truncated": bool(random.random() < 0.05) if captioned else None,
                }
            )
    return rows


def _preference(
    samples: list[dict[str, Any]], captioners: tuple[CaptionerInfo, ...], scores: list[dict[str, Any]]
) -> list[dict[str, Any]]:
    similarity = {(row["uid"], row["caption_source"]): row["similarity"] for row in scores}
    shares = {captioner.name: captioner.shares_backbone_with_scorer for captioner in captioners}
    sources = (schemas.ORIGINAL, *shares)
    rows = []
    for sample in samples:
        for i, a in enumerate(sources):
            for b in sources[i + 1 :]:
                left, right = similarity[sample["uid"], a], similarity[sample["uid"], b]
                probability = None if left is None or right is None else float(1 / (1 + np.exp(-20 * (left - right))))
                rows.append(
                    {
                        "uid": sample["uid"],
                        "source_a": a,
                        "source_b": b,
                        "probability_a": probability,
                        "probability_b": None if probability is None else 1 - probability,
                        "independent": not (shares.get(a, False) or shares.get(b, False)),
                        "scorer": SCORER,
                    }
                )
    return rows


def _clusters(uids: list[str]) -> list[dict[str, Any]]:
    return [
        {
            "uid": uid,
            "kind": kind,
            "cluster": min(members),
            "representative": members[0],
            "is_representative": uid == members[0],
            "similarity": 1.0 if uid == members[0] else 0.97,
            "size": len(members),
        }
        for kind, members in (("exact", uids[:2]), ("perceptual", uids), ("any", uids))
        for uid in members
    ]
