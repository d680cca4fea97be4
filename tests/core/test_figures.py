"""Plots: small, the same every time, and drawn whatever there is to draw."""

from __future__ import annotations

import base64
import io
import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from dqe_assets.core import figures as plots
from dqe_assets.core.figures import DARK, LIGHT, Theme, histograms
from dqe_assets.core.metadata import markdown_cell
from dqe_assets.dedup.plots import cluster_sizes
from dqe_assets.ingest.plots import status_bars
from dqe_assets.score.plots import Preference, original_vs_synthetic_scatter, preference_bars, similarity_histogram
from dqe_assets.score.preference import preference_report
from tests.report.make_store import draw


def _everything(theme: Theme) -> dict[str, bytes]:
    random = np.random.default_rng(0)
    original, labels, vlm = (random.normal(mean, 0.1, 3000) for mean in (0.2, 0.3, 0.4))
    return {
        "status": status_bars({"ok": 2900, "missing": 60, "not_an_image": 40}, theme),
        "similarity": similarity_histogram({"original": original, "labels": labels, "vlm": vlm}, theme),
        "preference": preference_bars(
            [
                Preference("original", "labels", 2900, {70: (100, 2600), 80: (50, 2000), 90: (0, 900)}, False),
                Preference.of(preference_report({("original", "vlm"): (1 - vlm, vlm)}), independent=True),
            ],
            theme,
        ),
        "scatter": original_vs_synthetic_scatter(original, vlm, "vlm", ["labels", "vlm"], theme),
        "features": histograms({"sharpness": random.gamma(2, 200, 3000), "contrast": original}, theme),
        "clusters": cluster_sizes({"exact": [2, 2, 3], "any": [2, 7, 300]}, theme),
        "sheet": plots.contact_sheet([draw(n, (300, 200)) for n in range(12)], ["a caption"] * 12, theme=theme),
    }


@pytest.mark.parametrize("theme", [LIGHT, DARK], ids=["light", "dark"])
def test_every_plot_is_a_small_picture_and_the_same_every_time(theme: Theme) -> None:
    drawn = _everything(theme)
    assert drawn == _everything(theme)
    for name, data in drawn.items():
        assert len(data) < 60_000, name
        with Image.open(io.BytesIO(data)) as image:
            assert image.format == ("JPEG" if name == "sheet" else "PNG")
            assert image.width >= 500, name
            corner = np.array(image.convert("RGB").getpixel((1, 1)), int)
        ground = np.array([int(theme.background[i : i + 2], 16) for i in (1, 3, 5)])
        assert np.abs(corner - ground).max() <= 8, name


def test_light_and_dark_differ_only_in_colour() -> None:
    for light, dark in zip(_everything(LIGHT).values(), _everything(DARK).values(), strict=True):
        assert Image.open(io.BytesIO(light)).size == Image.open(io.BytesIO(dark)).size


def test_with_nothing_to_show_a_plot_says_so() -> None:
    nothing = [
        status_bars({}),
        status_bars({"ok": 0}),
        similarity_histogram({}),
        similarity_histogram({"original": [None, np.nan]}),
        preference_bars([]),
        preference_bars([Preference("original", "vlm", 0, {70: (0, 0)}, True)]),
        original_vs_synthetic_scatter([], [], "vlm"),
        original_vs_synthetic_scatter([np.nan, 0.1], [0.2, np.inf], "vlm"),
        histograms({"sharpness": []}),
        cluster_sizes({"exact": []}),
        plots.contact_sheet([]),
    ]
    sizes = {Image.open(io.BytesIO(data)).size for data in nothing}
    assert len(sizes) == 1


_VALUES = st.lists(st.none() | st.floats(allow_nan=True, allow_infinity=True, width=32), max_size=20)


@settings(max_examples=15)
@given(_VALUES, _VALUES)
def test_any_values_can_be_drawn(left: list[float | None], right: list[float | None]) -> None:
    common = min(len(left), len(right))
    for data in (
        similarity_histogram({"original": left, "a name that is rather long": right}),
        histograms({"sharpness": left, "contrast": right}),
        original_vs_synthetic_scatter(left[:common], right[:common], "vlm"),
    ):
        assert data.startswith(b"\x89PNG")


def test_a_captioner_has_one_colour_and_the_originals_another() -> None:
    colours = LIGHT.colours(["vlm", "original", "labels"])
    assert colours == LIGHT.colours(["labels", "vlm"])
    assert len(set(colours.values())) == 3
    assert colours["original"] == LIGHT.original


def test_a_contact_sheet_leaves_the_place_of_an_unreadable_image_empty() -> None:
    good = draw(1, (200, 150))
    whole = plots.contact_sheet([good, good])
    half = plots.contact_sheet([good, good[: len(good) // 2]])
    none = plots.contact_sheet([good, b"not an image"], captions=["日本語 🙂", "a\nvery long caption " * 50])
    assert Image.open(io.BytesIO(whole)).size == Image.open(io.BytesIO(half)).size
    assert none != whole


def test_what_is_marked_has_a_frame_and_the_rest_is_pale() -> None:
    images = [draw(1, (128, 96))] * 2
    with Image.open(io.BytesIO(plots.contact_sheet(images, marked=[True, False]))) as sheet:
        pixels = np.asarray(sheet.convert("L"), int)
        frames = np.asarray(sheet, int)[50, [6, 142]]
    assert pixels[20:90, 20:130].std() > 1.5 * pixels[20:90, 156:266].std()
    blue, background = (np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)]) for colour in (LIGHT.good, "#ffffff"))
    assert abs(frames[0] - blue).max() < 60
    assert abs(frames[1] - background).max() < 30


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_a_thumbnail_is_upright_in_rgb_and_within_its_size() -> None:
    wide = Image.new("RGB", (400, 100), "red")
    exif = wide.getexif()
    exif[0x0112] = 6
    turned = io.BytesIO()
    wide.save(turned, "JPEG", exif=exif)
    picture = plots.thumbnail(turned.getvalue(), (80, 80))
    assert picture is not None
    assert picture.size == (20, 80)
    clear = io.BytesIO()
    Image.new("RGBA", (10, 10), (0, 0, 0, 0)).save(clear, "PNG")
    picture = plots.thumbnail(clear.getvalue(), (80, 80))
    assert picture is not None
    assert picture.getpixel((5, 5)) == (255, 255, 255)
    huge = io.BytesIO()
    Image.new("1", (20_000, 6_000)).save(huge, "PNG")
    assert plots.thumbnail(huge.getvalue(), (80, 80)) is None


def grey_png(deep: bool) -> bytes:
    """A dark picture that grows lighter to the right: in 16 bits of grey, or in 8."""
    grey = np.tile(np.linspace(20, 120, 128), (96, 1)).astype(np.uint16)
    data = io.BytesIO()
    Image.fromarray(grey * 257 if deep else grey.astype(np.uint8)).save(data, "PNG")
    return data.getvalue()


def test_16_bits_of_grey_are_as_bright_as_8() -> None:
    deep, plain = grey_png(deep=True), grey_png(deep=False)
    with Image.open(io.BytesIO(deep)) as image:
        assert image.mode.startswith("I")
    small = [plots.thumbnail(data, (64, 64)) for data in (deep, plain)]
    sheets = [Image.open(io.BytesIO(plots.contact_sheet([data]))) for data in (deep, plain)]
    for left, right in (small, sheets):
        assert left is not None
        assert right is not None
        assert np.abs(np.asarray(left, np.int16) - np.asarray(right, np.int16)).max() <= 2
    assert np.asarray(small[0]).mean() == pytest.approx(70, abs=2)


@pytest.mark.parametrize("unit", ["a brown dog ", "x", "\u0301", "é\n", "👩‍👩‍👧", "\u202e\0\x1b[31m", "العربية "])
def test_of_a_caption_however_long_the_beginning_is_shown(unit: str) -> None:
    image = grey_png(deep=False)
    long = unit * (2_000_000 // len(unit))
    sheet = plots.contact_sheet([image], [long])
    assert sheet == plots.contact_sheet([image], [long[:3000]])
    if unit.isascii() and unit.isprintable():
        assert sheet != plots.contact_sheet([image], [unit])
    cell = markdown_cell(f"{unit.strip()}end" + long)
    assert len(cell) <= 1_000
    assert cell.endswith("…")


@given(st.text(max_size=300))
def test_a_sheet_shows_any_caption(caption: str) -> None:
    image = grey_png(deep=False)
    with Image.open(io.BytesIO(plots.contact_sheet([image, b"none"], [caption, caption]))) as sheet:
        assert sheet.size == (280, 128)


def test_a_caption_is_cut_where_the_next_letter_would_not_fit() -> None:
    font = plots._font(10)
    text = "the quick brown fox jumps over the lazy dog"
    for width in range(60, 300, 7):
        fitted = plots._fitted(text, font, width)
        if font.getlength(text) <= width:
            assert fitted == text
            continue
        kept = fitted.removesuffix("…")
        assert text.startswith(kept)
        assert font.getlength(fitted) <= width
        rest = text[len(kept) :]
        longer = kept + rest[: len(rest) - len(rest.lstrip()) + 1]
        assert font.getlength(f"{longer}…") > width


def test_markdown_holds_the_picture_itself() -> None:
    png = status_bars({"ok": 1})
    markdown = plots.image_markdown(png, "what [it]\nis")
    match = re.fullmatch(r"!\[what \(it\) is\]\(data:image/png;base64,([A-Za-z0-9+/=]+)\)", markdown)
    assert match
    assert base64.b64decode(match[1]) == png
    assert plots.data_uri(plots.contact_sheet([draw(1, (20, 20))])).startswith("data:image/jpeg;")
