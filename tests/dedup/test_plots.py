"""The plot of the thresholds of duplicates."""

from __future__ import annotations

import io

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from dqe_assets.core.figures import DARK, LIGHT, Theme
from dqe_assets.dedup.plots import duplicate_thresholds


def alike(photos: int) -> pa.Table:
    random = np.random.default_rng(0)
    same = np.repeat([True, False], [photos, 9 * photos])
    return pa.table(
        {
            "same_photo": same,
            "cosine": np.where(same, random.uniform(0.7, 1.0000001, len(same)), random.uniform(-0.2, 0.6, len(same))),
            "distance": np.where(same, random.integers(0, 20, len(same)), random.integers(15, 64, len(same))),
        }
    )


@pytest.mark.parametrize("theme", [LIGHT, DARK], ids=["light", "dark"])
@pytest.mark.parametrize("photos", [0, 1, 300])
def test_it_is_a_small_picture_whatever_there_is_to_draw(photos: int, theme: Theme) -> None:
    data = duplicate_thresholds(alike(photos), 0.85, 8, theme)
    assert data == duplicate_thresholds(alike(photos), 0.85, 8, theme)
    assert len(data) < 60_000
    with Image.open(io.BytesIO(data)) as image:
        assert image.format == "PNG"
        assert image.width >= (500 if photos else 100)


def test_the_thresholds_are_drawn() -> None:
    assert duplicate_thresholds(alike(300), 0.85, 8) != duplicate_thresholds(alike(300), 0.75, 8)
    assert duplicate_thresholds(alike(300), 0.85, 8) != duplicate_thresholds(alike(300), 0.85, 12)
