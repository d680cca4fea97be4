"""Shared parts of all plots: colours, axes, legends, and pictures small enough for metadata and pages.

Every function gives the same bytes for the same input. Colours are those of Okabe and Ito (2008), which people with
any colour vision can tell apart; the original captions are grey throughout, each captioner has one colour.
"""

from __future__ import annotations

import base64
import io
import warnings
from bisect import bisect_left
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from dqe_assets.core.schema import ORIGINAL
from dqe_resources.images import ImageError, decode, guarded

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from matplotlib.axes import Axes
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from numpy.typing import ArrayLike, NDArray


WIDTH, DPI = 7.0, 120
"""Width of a figure in inches, and pixels an inch."""

_PAD = 0.12
"""Inches around what is drawn."""

_SMALL = 8.5
"""Points of most text."""

_LEGEND_LINE = 0.185
"""Inches of a line of a legend."""

_UNDER = "outside lower left"
_ABOVE = {"ha": "center", "va": "bottom"}


MOST_PIXELS = 100_000_000
"""A picture of more pixels than this is not drawn."""


PLOTTED = 20_000
"""Samples that a plot of the whole warehouse is drawn from: those with the lowest uids, which are digests, so a fair
draw."""


@dataclass(frozen=True, slots=True)
class Theme:
    """The colours of a figure.

    Attributes:
        background: behind everything.
        ink: text.
        muted: axes and text of less weight.
        grid: lines behind the data.
        original: the original captions.
        sources: the captioners, in order.
        good: what went well.
        bad: what did not.
    """

    background: str
    ink: str
    muted: str
    grid: str
    original: str
    sources: tuple[str, ...]
    good: str
    bad: str

    def colours(self, sources: Iterable[str]) -> dict[str, str]:
        """The colour of each caption source: by its place among the captioners, sorted by name."""
        captioners = sorted({*sources} - {ORIGINAL})
        return {ORIGINAL: self.original} | {
            name: self.sources[place % len(self.sources)] for place, name in enumerate(captioners)
        }


LIGHT = Theme(
    background="#ffffff",
    ink="#1f2328",
    muted="#59636e",
    grid="#e4e7eb",
    original="#7a8594",
    sources=("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#b8860b", "#56b4e9"),
    good="#0072b2",
    bad="#d55e00",
)


DARK = Theme(
    background="#16191d",
    ink="#e8eaed",
    muted="#a0a8b3",
    grid="#2b3037",
    original="#9aa4b2",
    sources=("#56b4e9", "#f08c3a", "#2fc79a", "#e59ac4", "#e8c547", "#9fd6ff"),
    good="#56b4e9",
    bad="#f08c3a",
)


def contact_sheet(
    images: Sequence[bytes],
    captions: Sequence[str] = (),
    columns: int = 6,
    theme: Theme = LIGHT,
    marked: Sequence[bool] = (),
) -> bytes:
    """The pictures in rows, a line of text under each, as JPEG.

    Args:
        images: image files; one that cannot be read leaves its place empty.
        captions: the text under each, cut to one line; none for no text.
        columns: pictures in a row.
        theme: the colours.
        marked: which of them have a frame, and the others are pale; none for no difference.
    """
    if not images:
        return placeholder("no images", theme)
    width, height, gap, line = 128, 96, 8, 16 if captions else 0
    columns = min(columns, len(images))
    lines = -(-len(images) // columns)
    sheet = Image.new(
        "RGB",
        (columns * (width + gap) + gap, lines * (height + line + gap) + gap),
        theme.background,
    )
    canvas = ImageDraw.Draw(sheet)
    font = _font(10)
    for place, data in enumerate(images):
        x = gap + place % columns * (width + gap)
        y = gap + place // columns * (height + line + gap)
        canvas.rectangle((x, y, x + width - 1, y + height - 1), fill=theme.grid)
        picture = thumbnail(data, (width, height))
        if picture is not None:
            if marked and not marked[place]:
                picture = Image.blend(Image.new("RGB", picture.size, theme.background), picture, 0.45)
            sheet.paste(picture, (x + (width - picture.width) // 2, y + (height - picture.height) // 2))
        if marked and marked[place]:
            canvas.rectangle((x - 3, y - 3, x + width + 2, y + height + 2), outline=theme.good, width=3)
        if place < len(captions):
            text = _fitted(" ".join(captions[place].split()), font, width)
            canvas.text((x, y + height + 3), text, fill=theme.muted, font=font)
    return jpeg(sheet)


def thumbnail(data: bytes, size: tuple[int, int]) -> Image.Image | None:
    """A picture within a size, upright, in RGB, what is transparent on white; None if it cannot be shown."""
    picture = guarded(partial(_small, size=size))(data)
    return None if isinstance(picture, ImageError) else picture


def _small(data: bytes, size: tuple[int, int]) -> Image.Image:
    picture = decode(data, 2 * max(size), MOST_PIXELS)
    picture.thumbnail(size, Image.Resampling.LANCZOS)
    return picture


def jpeg(image: Image.Image, quality: int = 82) -> bytes:
    """A picture as JPEG."""
    out = io.BytesIO()
    image.save(out, "JPEG", quality=quality, optimize=True)
    return out.getvalue()


def data_uri(image: bytes) -> str:
    """A PNG or JPEG as a ``data:`` URI."""
    kind = "png" if image.startswith(b"\x89PNG") else "jpeg"
    return f"data:image/{kind};base64,{base64.b64encode(image).decode()}"


def image_markdown(image: bytes, alt: str) -> str:
    """A PNG or JPEG inside Markdown, as Dagster's metadata shows it."""
    return f"![{alt.translate(_NO_BRACKETS)}]({data_uri(image)})"


_LONGEST_LINE = 400
"""Characters of a text that are looked at for one line."""

_NO_BRACKETS = str.maketrans("[]\n", "() ")


def as_array(values: ArrayLike) -> np.ndarray:
    """The values as float64."""
    return np.asarray(values, dtype=np.float64)


def finite_only(series: Mapping[str, ArrayLike]) -> dict[str, np.ndarray]:
    """Of each series, the values that are finite."""
    arrays = {name: as_array(values) for name, values in series.items()}
    return {name: values[np.isfinite(values)] for name, values in arrays.items()}


def bin_edges(values: np.ndarray, bins: int) -> np.ndarray:
    """Edges of equal bins over these values."""
    low, high = float(values.min()), float(values.max())
    if high - low <= 1e-9 * max(1.0, abs(high)):
        low, high = low - 0.5, high + 0.5
    return np.linspace(low, high, bins + 1)


def bin_count(values: int) -> int:
    """The square-root choice, somewhat finer, within what the eye can use."""
    return int(np.clip(1.5 * np.sqrt(values), 8, 36))


def percent(part: int, whole: int) -> str:
    """A share in words, with two digits if it is below 1 % or above 99 %."""
    share = 100 * part / whole
    return f"{share:.0f} %" if part in (0, whole) or 1 <= share <= 99 else f"{share:.2g} %"


def text_style(theme: Theme, *, muted: bool = False) -> dict[str, Any]:
    """Text of axes and labels."""
    return {"color": theme.muted if muted else theme.ink, "fontsize": _SMALL}


def mark_threshold(axes: Axes, theme: Theme, threshold: float, text: str, align: str) -> None:
    """Draw a rule's threshold across a histogram of shares, with what the rule does at its top.

    Args:
        axes: the histogram.
        theme: colours.
        threshold: where on the x axis.
        text: what the rule does.
        align: on which side of the text the line is, ``left`` or ``right``.
    """
    axes.set_ylim(0, axes.get_ylim()[1] * 1.14)
    axes.axvline(threshold, color=theme.ink, linewidth=1.2, linestyle="--")
    axes.annotate(text, (threshold, 1.0), xycoords=("data", "axes fraction"), ha=align, va="top", **text_style(theme))
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:.0%}")


def label_bars(axes: Axes, bars: Sequence[tuple[float, float, str]], room: float, theme: Theme) -> None:
    """Write a text above each bar, upright where it is wider than its bar has room; the y axis then begins at 0.

    Args:
        axes: the bars' axes, with their limits of x.
        bars: where each is on the x axis, its height, and the text.
        room: what each has for its text on the x axis.
        theme: the colours.
    """
    low, high = axes.get_xlim()
    box = axes.get_position()
    wide, tall = (float(size) for size in _figure_of(axes).get_size_inches() * 72 * (box.width, box.height))
    font, line = _font(_SMALL), 1.3 * _SMALL
    longest = max((font.getlength(text) for *_, text in bars), default=0.0)
    upright = longest > room / (high - low) * wide
    for x, height, text in bars:
        place = {"rotation": 90, "rotation_mode": "anchor", "ha": "left", "va": "center"} if upright else _ABOVE
        axes.annotate(text, (x, height), (0, 2), textcoords="offset points", **place, **text_style(theme, muted=True))
    # The axes are not as tall as that once there are labels and a legend below.
    above = (longest if upright else line) / (0.7 * tall)
    axes.set_ylim(0, max((height for _, height, _ in bars), default=1.0) * (1 + 1.6 * above) or 1.0)


def some_of(count: int) -> NDArray[np.intp]:
    """Places of ``PLOTTED`` of so many points, or of all if there are fewer: a fair draw, in an order that is none.

    More points cover each other, and in an order by group the last group would cover the others.
    """
    return np.random.default_rng(0).permutation(count)[:PLOTTED]


def plain(name: str) -> str:
    """A name as matplotlib shows it as it stands: it reads formulas between dollars, and hides what begins with _."""
    escaped = name.replace("$", r"\$")
    return f" {escaped}" if name.startswith("_") else escaped


def new_figure(height: float, theme: Theme, width: float = WIDTH) -> tuple[Figure, Axes]:
    """An empty figure with one set of axes, height and width in inches."""
    figure, (axes,) = new_grid(1, 1, height, theme, width)
    return figure, axes


def new_grid(rows: int, columns: int, height: float, theme: Theme, width: float = WIDTH) -> tuple[Figure, list[Axes]]:
    """A figure that belongs to no window and changes no global setting: other threads may draw."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine
    from matplotlib.ticker import StrMethodFormatter

    figure = Figure(
        figsize=(width, height),
        dpi=DPI,
        facecolor=theme.background,
        layout=ConstrainedLayoutEngine(w_pad=_PAD, h_pad=_PAD),
    )
    FigureCanvasAgg(figure)
    grid = list(figure.subplots(rows, columns, squeeze=False).flat)
    for axes in grid:
        axes.set_facecolor(theme.background)
        axes.set_axisbelow(True)
        axes.spines[["top", "right"]].set_visible(False)
        axes.spines[["left", "bottom"]].set_color(theme.muted)
        axes.tick_params(colors=theme.muted, labelcolor=theme.ink, labelsize=8.5, length=3)
        axes.xaxis.label.set_color(theme.muted)
        axes.yaxis.label.set_color(theme.muted)
        axes.xaxis.label.set_fontsize(9)
        axes.yaxis.label.set_fontsize(9)
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_formatter(StrMethodFormatter("{x:,.10g}"))
    return figure, grid


def set_title(axes: Axes, title: str, theme: Theme, size: float = 11.5) -> None:
    """A title at the left, in bold."""
    axes.set_title(title, loc="left", color=theme.ink, fontsize=size, fontweight="bold", pad=8)


def add_legend(axes: Axes, theme: Theme, columns: int, handles: Sequence[Any] = ()) -> None:
    """A legend under the figure's axes, which it leaves as tall as they are with two lines.

    Args:
        axes: whose it is.
        theme: the colours.
        columns: how many there are at most; fewer if they have no room.
        handles: what it names; by default all that has a label.
    """
    figure = _figure_of(axes)
    named: Sequence[Any] = handles or axes.get_legend_handles_labels()[0]
    if not named:
        return
    style: dict[str, Any] = {"frameon": False, "fontsize": _SMALL, "labelcolor": theme.ink}
    for count in range(min(columns, len(named)), 0, -1):
        labels = [str(one.get_label()) for one in named]
        legend = figure.legend(named, labels, loc=_UNDER, ncols=count, **style)
        with any_script():
            if count == 1 or legend.get_window_extent().width < figure.bbox.width - 2 * _PAD * DPI:
                break
        legend.remove()
    lines = -(-len(named) // count)
    figure.set_figheight(figure.get_figheight() + max(0, lines - 2) * _LEGEND_LINE)


def histograms(series: Mapping[str, ArrayLike], theme: Theme = LIGHT) -> bytes:
    """The distribution of each series of numbers, side by side, as PNG.

    Args:
        series: the values of each, [n]; what is not finite is left out.
        theme: the colours.
    """
    finite = {name: values for name, values in finite_only(series).items() if len(values)}
    if not finite:
        return placeholder("nothing measured", theme)
    columns = min(4, len(finite))
    lines = -(-len(finite) // columns)
    figure, grid = new_grid(lines, columns, 0.25 + 1.75 * lines, theme)
    for axes, (name, values) in zip(grid, finite.items(), strict=False):
        counts, edges = np.histogram(values, bin_edges(values, bins=bin_count(len(values))))
        axes.stairs(counts, edges, fill=True, color=theme.sources[0], alpha=0.85)
        axes.axvline(float(np.median(values)), color=theme.ink, linewidth=1.2, linestyle=(0, (4, 3)))
        axes.set_yticks([])
        axes.spines["left"].set_visible(False)
        axes.locator_params(axis="x", nbins=4)
        # Bold, it is a sixth wider.
        title = _fitted(name.replace("_", " "), _font(10), (72 * WIDTH / columns - 14) / 1.17)
        set_title(axes, plain(title), theme, size=10)
        axes.set_xlabel(f"median {float(np.median(values)):.3g}", fontsize=8.5)
    for axes in grid[len(finite) :]:
        axes.remove()
    return to_png(figure)


def placeholder(message: str, theme: Theme) -> bytes:
    """A picture with a line of text, used if there is nothing to draw."""
    figure, axes = new_figure(0.7, theme, width=4.0)
    axes.set_axis_off()
    axes.text(0.5, 0.5, message, ha="center", va="center", color=theme.muted, fontsize=10)
    return to_png(figure)


@contextmanager
def any_script() -> Iterator[None]:
    """Text is measured and drawn without a word on characters that the font lacks: some may be of control."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph", category=UserWarning)
        yield


def to_png(figure: Figure) -> bytes:
    """A figure as PNG, in few colours: the same figure gives the same bytes. Text that would be cut is made smaller."""
    canvas: FigureCanvasAgg = figure.canvas
    with any_script():
        canvas.draw()
        if _made_to_fit(figure):
            canvas.draw()
    drawn = Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB")
    out = io.BytesIO()
    few = drawn.quantize(96, method=Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE)
    few.save(out, "PNG", optimize=True)
    return out.getvalue()


def _figure_of(axes: Axes) -> Figure:
    figure: Any = axes.get_figure(root=True)
    return figure


def _made_to_fit(figure: Figure) -> bool:
    """Make titles smaller that are wider than the figure; returns whether there were any."""
    from matplotlib.text import Text

    right, changed = figure.bbox.x1 - 4, False
    for text in figure.findobj(Text):
        if isinstance(text, Text) and text.get_text() and text.get_fontweight() == "bold":
            box = text.get_window_extent()
            if box.x1 > right > box.x0:
                text.set_fontsize(text.get_fontsize() * (right - box.x0) / box.width)
                changed = True
    return changed


def _font(size: float) -> ImageFont.FreeTypeFont:
    import matplotlib as mpl

    return ImageFont.truetype(Path(mpl.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf", size)


def _fitted(text: str, font: ImageFont.FreeTypeFont, width: float) -> str:
    """As much of the beginning of a text as fits a width, which takes no longer for a longer text."""
    text = text[:_LONGEST_LINE]
    if font.getlength(text) <= width:
        return text
    too_long = bisect_left(range(len(text)), True, key=lambda end: font.getlength(f"{text[:end]}…") > width)
    return f"{text[: max(too_long - 1, 0)].rstrip()}…"
