"""What tests of training share: pictures that a small model learns in seconds, and the settings to train on them."""

from __future__ import annotations

import csv
from typing import TYPE_CHECKING, Any

import numpy as np
import yaml
from PIL import Image

from dqe_assets.orchestration import runner
from dqe_assets.orchestration.instance import instance
from dqe_assets.orchestration.settings import load_settings

if TYPE_CHECKING:
    from pathlib import Path

    from dqe_assets.orchestration.runner import Outcome
    from dqe_assets.orchestration.settings import Settings

COLOURS = {"red": (220, 30, 30), "green": (30, 200, 40), "blue": (40, 60, 220), "yellow": (230, 220, 40)}
PLACES = {"left": slice(0, 16), "right": slice(16, 32)}

MODEL: dict[str, Any] = {
    "embed_dim": 16,
    "vision_cfg": {"image_size": 32, "layers": [1, 1, 1, 1], "width": 4},
    "text_cfg": {"context_length": 8, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1},
}
"""A CLIP of 0.8 million weights, most of them of words."""

SCALE: dict[str, Any] = {
    "model": MODEL,
    "samples_seen": 640,
    "batch_size": 16,
    "learning_rate": 3e-3,
    "warmup": 4,
    "checkpoints": 2,
    "weight_decay": 0.1,
}

CAPTIONER = "table"


def picture(number: int) -> tuple[Image.Image, str, str]:
    """A picture, and two captions of it."""
    colour, place = list(COLOURS)[number % 4], list(PLACES)[number // 4 % 2]
    pixels = np.random.default_rng(number).integers(0, 60, (32, 32, 3), np.uint8)
    pixels[:, PLACES[place]] += np.array(COLOURS[colour], np.uint8) // 2
    return Image.fromarray(pixels), f"a {colour} wall on the {place}", f"{place}: {colour}"


def make_folder(data: Path, samples: int, training: dict[str, Any], **settings: Any) -> Settings:
    """A data folder with a source of pictures, and what is trained on them; the third has no caption.

    Its captioner has captions for all but the second.
    """
    source = data / "pictures"
    source.mkdir(parents=True)
    with (data / "captions.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["image_name", "caption"])
        for number in range(samples):
            image, caption, other = picture(number)
            image.save(source / f"{number:04d}.png")
            if number != 2:
                (source / f"{number:04d}.txt").write_text(caption)
            if number != 1:
                table.writerow([f"{number:04d}.png", other])
    captioner = {"kind": "table", "name": CAPTIONER, "path": "captions.csv", "key": "image_name", "min_coverage": 0.5}
    written = {
        "sources": [{"kind": "folder", "name": "walls", "path": "pictures", "shard_size": 20}],
        "captioners": [captioner],
        "training": {"scales": {"toy": SCALE}, **training},
        **settings,
    }
    (data / "dqe.yaml").write_text(yaml.safe_dump(written))
    return load_settings({})


def make(settings: Settings, *assets: str, runs: tuple[str, ...] = (), force: bool = False) -> Outcome:
    """Materialise assets as the command does."""
    with instance() as current:
        runner.sync(settings, current)
        return runner.materialize(settings, current, assets=assets, runs=runs, force=force)
