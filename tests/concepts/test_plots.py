from __future__ import annotations

import io
from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image

from dqe_assets.concepts import plots as concept_plots
from dqe_assets.concepts.accuracies import MeasuredConcepts
from dqe_assets.concepts.plan import fit_accuracies, fitted_models
from dqe_assets.core.figures import DARK, LIGHT

if TYPE_CHECKING:
    from collections.abc import Callable

COUNTS = {"original": [900, 40, 3, 0], "_vlm $1$": [4000, 100, 0, 0], "image": [10, 0, 0, 0]}
FITTED = next(
    fitted_models(
        fit_accuracies(
            [MeasuredConcepts("CLIP $x$", tuple("abcdefghijkl"), 2 ** np.arange(12), np.linspace(0, 0.5, 12))], "m.csv"
        )
    )
)

DRAWINGS: list[Callable[..., bytes]] = [
    lambda theme: concept_plots.rank_frequency(COUNTS, theme),
    lambda theme: concept_plots.tail_shares(COUNTS, theme),
    lambda theme: concept_plots.recaptioned(COUNTS["original"], COUNTS["_vlm $1$"], "_vlm $1$", list(COUNTS), theme),
    lambda theme: concept_plots.log_linear(FITTED, theme),
]


@pytest.mark.parametrize("draw", DRAWINGS, ids=["rank_frequency", "tail_shares", "recaptioned", "log_linear"])
def test_a_drawing_is_a_small_picture_that_is_the_same_every_time(draw: Callable[..., bytes]) -> None:
    for theme in (LIGHT, DARK):
        picture = draw(theme)
        assert picture == draw(theme)
        assert len(picture) < 60_000
        image = Image.open(io.BytesIO(picture)).convert("RGB")
        assert image.getpixel((1, 1)) == pytest.approx(tuple(bytes.fromhex(theme.background[1:])), abs=6)
        assert len(image.getcolors(100_000)) > 8


@pytest.mark.parametrize("counts", [{}, {"original": []}, {"original": [0, 0], "image": [0, 0]}])
def test_where_nothing_is_shown_it_is_said(counts: dict[str, list[int]]) -> None:
    for picture in (concept_plots.rank_frequency(counts), concept_plots.recaptioned([0], [0], "vlm")):
        assert Image.open(io.BytesIO(picture)).height < 120
    assert Image.open(io.BytesIO(concept_plots.tail_shares(counts))).height > 50


def test_counts_of_one_and_of_millions_are_drawn() -> None:
    for counts in ({"original": [1]}, {"original": [12_000_000, 1]}, {"original": [1, 1, 1], "image": [0, 0, 2]}):
        assert Image.open(io.BytesIO(concept_plots.rank_frequency(counts))).height > 300
    assert Image.open(io.BytesIO(concept_plots.recaptioned([5_000_000, 0], [1, 1], "vlm"))).height > 300
