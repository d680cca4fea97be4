"""Plots of the stages' results, small enough to travel inside metadata and pages.

Every function gives the same bytes for the same input. Colours are those of Okabe and Ito (2008), which people with
any colour vision can tell apart; the original captions are grey throughout, each captioner has one colour.
"""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont, ImageOps, UnidentifiedImageError

from dqe_assets.schemas import ORIGINAL

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from numpy.typing import ArrayLike

    from dqe_assets.score.preference import PreferenceComparison

WIDTH, DPI = 7.0, 120
"""Width of a figure in inches, and pixels an inch."""

MOST_PIXELS = 100_000_000
"""A picture of more pixels than this is not drawn."""


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


@dataclass(frozen=True, slots=True)
class Preference:
    """Which of two caption sources a scorer prefers.

    Attributes:
        source_a: one caption source.
        source_b: the other.
        n: samples with both captions.
        above: for 70, 80 and 90 %, the samples where a is preferred above it, and those where b is.
        independent: whether the preference says anything.
        intervals: for each of these, the 95 % interval of a's share of the samples, and of b's, 0 to 1.
    """

    source_a: str
    source_b: str
    n: int
    above: Mapping[int, tuple[int, int]]
    independent: bool
    intervals: Mapping[int, tuple[tuple[float, float], tuple[float, float]]] = field(default_factory=dict)

    @classmethod
    def of(cls, comparisons: Sequence[PreferenceComparison], *, independent: bool) -> Preference:
        """Of the comparisons of one pair, one for each threshold."""
        first = comparisons[0]
        by_percent = {round(100 * one.threshold): one for one in comparisons}
        return cls(
            first.source_a,
            first.source_b,
            first.n,
            {percent: (one.above_a, one.above_b) for percent, one in by_percent.items()},
            independent,
            {
                percent: ((one.share_a_low, one.share_a_high), (one.share_b_low, one.share_b_high))
                for percent, one in by_percent.items()
            },
        )


def status_bars(reasons: Mapping[str, int], theme: Theme = LIGHT) -> bytes:
    """Samples by reason, ``ok`` first and apart, as PNG.

    Args:
        reasons: samples of each reason.
        theme: the colours.
    """
    ordered = sorted(reasons.items(), key=lambda item: (item[0] != "ok", -item[1], item[0]))
    if not sum(reasons.values()):
        return placeholder("no samples", theme)
    figure, axes = new_figure(0.9 + 0.34 * len(ordered), theme)
    names, counts = zip(*ordered, strict=True)
    colours = [theme.good if name == "ok" else theme.bad for name in names]
    places = range(len(names))
    axes.barh(places, counts, height=0.66, color=colours)
    total = sum(counts)
    for place, count in zip(places, counts, strict=True):
        axes.text(
            count + 0.012 * max(counts),
            place,
            f"{count:,}  ({_percent(count, total)})",
            va="center",
            **text_style(theme),
        )
    axes.set_yticks(places, [name.replace("_", " ") for name in names])
    axes.invert_yaxis()
    axes.set_xlim(0, max(counts) * 1.2)
    axes.set_xticks([])
    axes.spines["bottom"].set_visible(False)
    set_title(axes, f"{total:,} samples: can the image be read?", theme)
    return to_png(figure)


def similarity_histogram(scores: Mapping[str, ArrayLike], theme: Theme = LIGHT) -> bytes:
    """How well captions fit their images, a curve for each caption source, as PNG.

    Args:
        scores: similarities of each caption source, [n] in -1 to 1; what is not finite is left out.
        theme: the colours.
    """
    finite = {name: values for name, values in _finite(scores).items() if len(values)}
    if not finite:
        return placeholder("no scores", theme)
    figure, axes = new_figure(3.1, theme)
    colours = theme.colours(scores)
    edges = _edges(np.concatenate(list(finite.values())), bins=_bins(max(map(len, finite.values()))))
    for name in _ordered(finite):
        values = finite[name]
        counts, _ = np.histogram(values, edges)
        share = 100 * counts / len(values)
        axes.stairs(share, edges, fill=True, alpha=0.22, color=colours[name])
        axes.stairs(share, edges, color=colours[name], linewidth=1.8, label=f"{name}, mean {values.mean():.3f}")
        axes.axvline(values.mean(), color=colours[name], linewidth=1.2, linestyle=(0, (4, 3)))
    axes.set_xlabel("similarity of caption and image")
    axes.set_ylabel("% of captions")
    axes.yaxis.grid(visible=True, color=theme.grid)
    axes.set_ylim(bottom=0)
    set_title(axes, "How well do the captions fit?", theme)
    add_legend(axes, theme, columns=2)
    return to_png(figure)


def preference_bars(preferences: Sequence[Preference], theme: Theme = LIGHT) -> bytes:
    """Which of two captions is preferred above 70, 80 and 90 %, three bars for each pair, as PNG.

    The left end of a bar is the first source's, the right end the second's, grey between: neither that surely; both
    counts stand beside it. A line across each end is its 95 % interval. A pair that is not independent is hatched and
    said to be so.
    """
    shown = [preference for preference in preferences if preference.n]
    if not shown:
        return placeholder("no sample has two captions to choose from", theme)
    colours = theme.colours([source for p in preferences for source in (p.source_a, p.source_b)])
    figure, axes = new_figure(0.95 + 1.0 * len(shown), theme)
    ticks, labels = [], []
    for block, pair in enumerate(shown):
        top = block * 4.3
        for line, percent in enumerate(sorted(pair.above)):
            a, b = pair.above[percent]
            place = top + line
            widths = np.array([a, pair.n - a - b, b]) * 100 / pair.n
            lefts = np.cumsum([0, *widths[:-1]])
            fills = (colours[pair.source_a], theme.grid, colours[pair.source_b])
            for width, left, fill, side in zip(widths, lefts, fills, (True, False, True), strict=True):
                hatch = None if pair.independent or not side else "////"
                axes.barh(place, width, 0.86, left, color=fill, hatch=hatch, edgecolor=theme.background, linewidth=0)
            for right, interval in enumerate(pair.intervals.get(percent, ())):
                reach = np.array(interval) * 100
                across = 100 - reach if right else reach
                axes.plot(across, (place, place), color=theme.ink, linewidth=1.1, marker="|", markersize=5)
            axes.text(101.5, place, f"{a:,} : {b:,}", va="center", **text_style(theme))
            ticks.append(place)
            labels.append(f"above {percent} %")
        bold: dict[str, Any] = {"fontsize": 9.5, "fontweight": "bold", "va": "bottom"}
        axes.text(0, top - 0.58, pair.source_a, color=colours[pair.source_a], **bold)
        axes.text(100, top - 0.58, pair.source_b, color=colours[pair.source_b], ha="right", **bold)
        warning = "" if pair.independent else ": not independent, proves nothing"
        axes.text(
            50, top - 0.58, f"{pair.n:,} samples{warning}", ha="center", va="bottom", **text_style(theme, muted=True)
        )
    axes.set_yticks(ticks, labels)
    axes.set_ylim(len(shown) * 4.3 - 1.6, -1.5)
    axes.set_xlim(0, 100)
    axes.set_xticks([])
    axes.spines[["left", "bottom"]].set_visible(False)
    set_title(axes, "Which caption does the scorer prefer?", theme)
    return to_png(figure)


def original_vs_synthetic_scatter(
    original: ArrayLike, synthetic: ArrayLike, name: str, captioners: Sequence[str] = (), theme: Theme = LIGHT
) -> bytes:
    """The similarity of each image's original caption against that of a captioner's, as PNG.

    Args:
        original: similarities of the original captions, [n].
        synthetic: similarities of the captioner's, [n], in the same order; pairs that are not finite are left out.
        name: the captioner.
        captioners: the names of all captioners, so that each has the colour that it has in other plots.
        theme: the colours.
    """
    pairs = np.stack([_array(original), _array(synthetic)])
    pairs = pairs[:, np.isfinite(pairs).all(axis=0)]
    if not pairs.shape[1]:
        return placeholder("no sample has both captions", theme)
    figure, axes = new_figure(4.2, theme, width=4.6)
    x, y = pairs
    low, high = _limits(pairs)
    better = y > x
    axes.plot((low, high), (low, high), color=theme.muted, linewidth=1, zorder=1)
    size = float(np.clip(6000 / len(x), 3, 22))
    colour = theme.colours([*captioners, name])[name]
    axes.scatter(x, y, s=size, c=list(np.where(better, colour, theme.original)), alpha=0.6, linewidths=0, zorder=2)
    axes.set_xlim(low, high)
    axes.set_ylim(low, high)
    axes.set_aspect("equal")
    axes.set_xlabel("similarity of the original caption")
    axes.set_ylabel(f"similarity of {name}'s caption")
    axes.grid(visible=True, color=theme.grid)
    corner: dict[str, Any] = {"transform": axes.transAxes, "fontsize": 9, "fontweight": "bold"}
    share = _percent(int(better.sum()), len(x))
    axes.text(0.03, 0.97, f"{name} fits better: {share}", va="top", color=colour, **corner)
    share = _percent(int((~better).sum()), len(x))
    axes.text(0.97, 0.03, f"original fits as well or better: {share}", ha="right", color=theme.muted, **corner)
    set_title(axes, f"Original captions and {name}'s", theme)
    return to_png(figure)


def feature_histograms(features: Mapping[str, ArrayLike], theme: Theme = LIGHT) -> bytes:
    """The distribution of each measured feature, side by side, as PNG.

    Args:
        features: values of each feature, [n]; what is not finite is left out.
        theme: the colours.
    """
    finite = {name: values for name, values in _finite(features).items() if len(values)}
    if not finite:
        return placeholder("nothing measured", theme)
    columns = min(4, len(finite))
    lines = -(-len(finite) // columns)
    figure, grid = new_grid(lines, columns, 0.25 + 1.75 * lines, theme)
    for axes, (name, values) in zip(grid, finite.items(), strict=False):
        counts, edges = np.histogram(values, _edges(values, bins=_bins(len(values))))
        axes.stairs(counts, edges, fill=True, color=theme.sources[0], alpha=0.85)
        axes.axvline(float(np.median(values)), color=theme.ink, linewidth=1.2, linestyle=(0, (4, 3)))
        axes.set_yticks([])
        axes.spines["left"].set_visible(False)
        axes.locator_params(axis="x", nbins=4)
        set_title(axes, name.replace("_", " "), theme, size=10)
        axes.set_xlabel(f"median {float(np.median(values)):.3g}", fontsize=8.5)
    for axes in grid[len(finite) :]:
        axes.remove()
    return to_png(figure)


def cluster_sizes(sizes: Mapping[str, Sequence[int]], theme: Theme = LIGHT) -> bytes:
    """How many duplicate clusters of each size there are, for each kind of cluster, as PNG.

    Args:
        sizes: the sizes of the clusters of each kind, each 2 or more.
        theme: the colours.
    """
    kinds = {kind: np.asarray(values, dtype=np.int64) for kind, values in sizes.items() if len(values)}
    if not kinds:
        return placeholder("no duplicates", theme)
    figure, axes = new_figure(2.9, theme)
    bins = ((2, "2"), (3, "3"), (4, "4"), (5, "5 to 9"), (10, "10 to 99"), (100, "100 or more"))
    edges = [low for low, _ in bins] + [np.iinfo(np.int64).max]
    used = max(int(np.searchsorted(edges, values.max(), "right")) for values in kinds.values())
    width = 0.8 / len(kinds)
    for place, (kind, values) in enumerate(kinds.items()):
        counts = np.histogram(values, edges)[0][:used]
        x = np.arange(used) + (place - (len(kinds) - 1) / 2) * width
        label = f"{kind}: {len(values):,} clusters, {int(values.sum() - len(values)):,} redundant"
        axes.bar(x, counts, width * 0.92, color=theme.sources[place % len(theme.sources)], label=label)
        for at, count in zip(x, counts, strict=True):
            if count:
                axes.text(at, count, f"{count:,}", ha="center", va="bottom", **text_style(theme, muted=True))
    axes.set_xticks(np.arange(used), [label for _, label in bins[:used]])
    axes.set_xlabel("samples in the cluster")
    axes.set_yticks([])
    axes.spines["left"].set_visible(False)
    axes.margins(y=0.12)
    set_title(axes, "Duplicate clusters", theme)
    add_legend(axes, theme, columns=2)
    return to_png(figure)


def contact_sheet(
    images: Sequence[bytes], captions: Sequence[str] = (), columns: int = 6, theme: Theme = LIGHT
) -> bytes:
    """The pictures in rows, a line of text under each, as JPEG.

    Args:
        images: image files; one that cannot be read leaves its place empty.
        captions: the text under each, cut to one line; none for no text.
        columns: pictures in a row.
        theme: the colours.
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
            sheet.paste(picture, (x + (width - picture.width) // 2, y + (height - picture.height) // 2))
        if place < len(captions):
            text = _fitted(" ".join(captions[place].split()), font, width)
            canvas.text((x, y + height + 3), text, fill=theme.muted, font=font)
    return jpeg(sheet)


def thumbnail(data: bytes, size: tuple[int, int]) -> Image.Image | None:
    """A picture within a size, upright, in RGB, what is transparent on white; None where it cannot be read."""
    try:
        with Image.open(io.BytesIO(data)) as image:
            if image.width * image.height > MOST_PIXELS:
                return None
            image.draft("RGB", (2 * size[0], 2 * size[1]))
            upright = ImageOps.exif_transpose(image)
            if upright.mode in ("RGBA", "LA", "PA", "P"):
                upright = upright.convert("RGBA")
                ground = Image.new("RGBA", upright.size, "white")
                upright = Image.alpha_composite(ground, upright)
            picture = upright.convert("RGB")
            picture.thumbnail(size, Image.Resampling.LANCZOS)
            return picture
    except (OSError, ValueError, SyntaxError, UnidentifiedImageError, Image.DecompressionBombError):
        return None


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


_NO_BRACKETS = str.maketrans("[]\n", "() ")


def _array(values: ArrayLike) -> np.ndarray:
    return np.asarray(values, dtype=np.float64)


def _finite(series: Mapping[str, ArrayLike]) -> dict[str, np.ndarray]:
    arrays = {name: _array(values) for name, values in series.items()}
    return {name: values[np.isfinite(values)] for name, values in arrays.items()}


def _ordered(sources: Iterable[str]) -> list[str]:
    return sorted(sources, key=lambda name: (name != ORIGINAL, name))


def _limits(values: np.ndarray) -> tuple[float, float]:
    low, high = float(values.min()), float(values.max())
    margin = 0.04 * (high - low) or 0.05
    return low - margin, high + margin


def _edges(values: np.ndarray, bins: int) -> np.ndarray:
    low, high = float(values.min()), float(values.max())
    if high - low <= 1e-9 * max(1.0, abs(high)):
        low, high = low - 0.5, high + 0.5
    return np.linspace(low, high, bins + 1)


def _bins(values: int) -> int:
    """The square-root choice, somewhat finer, within what the eye can use."""
    return int(np.clip(1.5 * np.sqrt(values), 8, 36))


def _percent(part: int, whole: int) -> str:
    share = 100 * part / whole
    return f"{share:.0f} %" if part in (0, whole) or 1 <= share <= 99 else f"{share:.2g} %"


def text_style(theme: Theme, *, muted: bool = False) -> dict[str, Any]:
    """Text of axes and labels."""
    return {"color": theme.muted if muted else theme.ink, "fontsize": 8.5}


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

    figure = Figure(
        figsize=(width, height),
        dpi=DPI,
        facecolor=theme.background,
        layout=ConstrainedLayoutEngine(w_pad=0.12, h_pad=0.12),
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
    return figure, grid


def set_title(axes: Axes, title: str, theme: Theme, size: float = 11.5) -> None:
    """A title at the left, in bold."""
    axes.set_title(title, loc="left", color=theme.ink, fontsize=size, fontweight="bold", pad=8)


def add_legend(axes: Axes, theme: Theme, columns: int, below: float = 0.2) -> None:
    """A legend below the axes, by a share of their height."""
    legend = axes.legend(frameon=False, fontsize=8.5, loc="upper left", bbox_to_anchor=(0, -below), ncols=columns)
    for text in legend.get_texts():
        text.set_color(theme.ink)


def placeholder(message: str, theme: Theme) -> bytes:
    """A picture of a line of text, where there is nothing to draw."""
    figure, axes = new_figure(0.7, theme, width=4.0)
    axes.set_axis_off()
    axes.text(0.5, 0.5, message, ha="center", va="center", color=theme.muted, fontsize=10)
    return to_png(figure)


def to_png(figure: Figure) -> bytes:
    """A figure as PNG, in few colours: the same figure gives the same bytes."""
    out = io.BytesIO()
    figure.savefig(out, format="png", facecolor=figure.get_facecolor(), metadata={"Software": None})
    image = Image.open(out).convert("RGB").quantize(96, method=Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE)
    small = io.BytesIO()
    image.save(small, "PNG", optimize=True)
    return small.getvalue()


def _font(size: int) -> ImageFont.FreeTypeFont:
    import matplotlib as mpl

    return ImageFont.truetype(Path(mpl.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf", size)


def _fitted(text: str, font: ImageFont.FreeTypeFont, width: int) -> str:
    if font.getlength(text) <= width:
        return text
    while text and font.getlength(f"{text}…") > width:
        text = text[:-1]
    return f"{text.rstrip()}…"
