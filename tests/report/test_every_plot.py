"""Every plot can be read: of nothing, of a few and of many samples, with one, three and six captioners."""

from __future__ import annotations

import io
from itertools import combinations
from typing import TYPE_CHECKING, Any

import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.text import Text
from PIL import Image

from dqe_assets.core.figures import DARK
from tests.report.every_plot import DRAWINGS, NEVER_OF_NOTHING, Made

if TYPE_CHECKING:
    from collections.abc import Iterator

MADE = [Made(3, 0), Made(1, 1_000), Made(3, 1_000, DARK), Made(6, 100_000)]


@pytest.fixture
def written(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[tuple[str, Any]]]:
    """The texts of the figure that was drawn last, and where each is, in pixels."""
    texts: list[tuple[str, Any]] = []
    draw_text, draw_figure = Text.draw, FigureCanvasAgg.draw

    def recorded(self: Text, renderer: Any, *more: Any, **others: Any) -> None:
        draw_text(self, renderer, *more, **others)
        # The box of what is aslant says nothing.
        if self.get_visible() and self.get_text().strip() and self.get_rotation() % 90 == 0:
            texts.append((self.get_text(), self.get_window_extent(renderer)))

    def from_the_start(self: FigureCanvasAgg) -> None:
        texts.clear()
        draw_figure(self)

    monkeypatch.setattr(Text, "draw", recorded)
    monkeypatch.setattr(FigureCanvasAgg, "draw", from_the_start)
    return texts  # type: ignore[return-value]


@pytest.mark.parametrize("made", MADE, ids=lambda made: f"{made.captioners} captioners, {made.rows:,} rows")
@pytest.mark.parametrize("name", DRAWINGS)
def test_no_text_is_cut_or_covers_another(name: str, made: Made, written: list[tuple[str, Any]]) -> None:
    if not made.rows and name in NEVER_OF_NOTHING:
        pytest.skip("it is not drawn of nothing")
    picture = DRAWINGS[name](made)
    assert len(picture) < 130_000
    with Image.open(io.BytesIO(picture)) as image:
        width, height = image.size
    assert max(width, height) < 2_500
    assert written
    for text, box in written:
        assert box.x0 > -1, f"cut at the left: {text}"
        assert box.x1 < width + 1, f"cut at the right: {text}"
        assert box.y0 > -1, f"cut below: {text}"
        assert box.y1 < height + 1, f"cut above: {text}"
    for (one, box), (other, second) in combinations(written, 2):
        wide = min(box.x1, second.x1) - max(box.x0, second.x0)
        tall = min(box.y1, second.y1) - max(box.y0, second.y0)
        # The boxes of two lines may touch.
        assert wide < 2 or tall < 3, f"{one!r} and {other!r} cover each other"
