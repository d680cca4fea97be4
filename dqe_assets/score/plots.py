"""Plots of similarities and preferences."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from dqe_assets.core.figures import (
    LIGHT,
    Theme,
    add_legend,
    as_array,
    bin_count,
    bin_edges,
    finite_only,
    new_figure,
    percent,
    placeholder,
    set_title,
    some_of,
    text_style,
    to_png,
)
from dqe_assets.core.schema import ORIGINAL

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from numpy.typing import ArrayLike

    from dqe_assets.score.preference import PreferenceComparison


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
            {threshold: (one.above_a, one.above_b) for threshold, one in by_percent.items()},
            independent,
            {
                threshold: ((one.share_a_low, one.share_a_high), (one.share_b_low, one.share_b_high))
                for threshold, one in by_percent.items()
            },
        )


def similarity_histogram(scores: Mapping[str, ArrayLike], theme: Theme = LIGHT) -> bytes:
    """How well captions fit their images, a curve for each caption source, as PNG.

    Args:
        scores: similarities of each caption source, [n] in -1 to 1; what is not finite is left out.
        theme: the colours.
    """
    finite = {name: values for name, values in finite_only(scores).items() if len(values)}
    if not finite:
        return placeholder("no scores", theme)
    figure, axes = new_figure(3.1, theme)
    colours = theme.colours(scores)
    edges = bin_edges(np.concatenate(list(finite.values())), bins=bin_count(max(map(len, finite.values()))))
    for name in _originals_first(finite):
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
    counts stand next to it. A line across each end is its 95 % interval. A pair that is not independent is hatched and
    said to be so.
    """
    shown = [preference for preference in preferences if preference.n]
    if not shown:
        return placeholder("no sample has two captions to choose from", theme)
    colours = theme.colours([source for p in preferences for source in (p.source_a, p.source_b)])
    # A line more where there is something to say under the bars.
    pitch = 4.3 if all(pair.independent for pair in shown) else 5.1
    figure, axes = new_figure(0.95 + pitch / 4.3 * len(shown), theme)
    ticks, labels = [], []
    for block, pair in enumerate(shown):
        top = block * pitch
        for line, above in enumerate(sorted(pair.above)):
            a, b = pair.above[above]
            place = top + line
            widths = np.array([a, pair.n - a - b, b]) * 100 / pair.n
            lefts = np.cumsum([0, *widths[:-1]])
            fills = (colours[pair.source_a], theme.grid, colours[pair.source_b])
            for width, left, fill, side in zip(widths, lefts, fills, (True, False, True), strict=True):
                hatch = None if pair.independent or not side else "////"
                axes.barh(place, width, 0.86, left, color=fill, hatch=hatch, edgecolor=theme.background, linewidth=0)
            for right, interval in enumerate(pair.intervals.get(above, ())):
                reach = np.array(interval) * 100
                across = 100 - reach if right else reach
                axes.plot(across, (place, place), color=theme.ink, linewidth=1.1, marker="|", markersize=5)
            axes.text(101.5, place, f"{a:,} : {b:,}", va="center", **text_style(theme))
            ticks.append(place)
            labels.append(f"above {above} %")
        bold: dict[str, Any] = {"fontsize": 9.5, "fontweight": "bold", "va": "bottom"}
        axes.text(0, top - 0.58, pair.source_a, color=colours[pair.source_a], **bold)
        axes.text(100, top - 0.58, pair.source_b, color=colours[pair.source_b], ha="right", **bold)
        axes.text(101.5, top - 0.58, f"{pair.n:,} samples", va="bottom", **text_style(theme, muted=True))
        if not pair.independent:
            axes.text(0, top + 2.6, "not independent, proves nothing", va="top", **text_style(theme, muted=True))
    axes.set_yticks(ticks, labels)
    axes.set_ylim(len(shown) * pitch - 1.6, -1.5)
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
    pairs = np.stack([as_array(original), as_array(synthetic)])
    pairs = pairs[:, np.isfinite(pairs).all(axis=0)]
    if not pairs.shape[1]:
        return placeholder("no sample has both captions", theme)
    figure, axes = new_figure(4.2, theme, width=4.6)
    x, y = pairs
    low, high = _limits(pairs)
    better = y > x
    axes.plot((low, high), (low, high), color=theme.muted, linewidth=1, zorder=1)
    some = some_of(len(x))
    size = float(np.clip(6000 / len(some), 3, 22))
    colour = theme.colours([*captioners, name])[name]
    colours = np.where(better[some], colour, theme.original)
    axes.scatter(x[some], y[some], s=size, c=list(colours), alpha=0.6, linewidths=0, zorder=2)
    axes.set_xlim(low, high)
    axes.set_ylim(low, high)
    axes.set_aspect("equal")
    axes.set_xlabel("similarity of the original caption")
    axes.set_ylabel(f"similarity of {name}'s caption")
    axes.grid(visible=True, color=theme.grid)
    ground = {"facecolor": theme.background, "alpha": 0.85, "pad": 1.5, "edgecolor": "none"}
    corner: dict[str, Any] = {"transform": axes.transAxes, "fontsize": 9, "fontweight": "bold", "bbox": ground}
    share = percent(int(better.sum()), len(x))
    axes.text(0.03, 0.97, f"{name} fits better: {share}", va="top", color=colour, **corner)
    share = percent(int((~better).sum()), len(x))
    axes.text(0.97, 0.03, f"original fits as well or better: {share}", ha="right", color=theme.muted, **corner)
    set_title(axes, f"Original captions and {name}'s", theme)
    return to_png(figure)


def _originals_first(sources: Iterable[str]) -> list[str]:
    """Caption sources by name, the originals first."""
    return sorted(sources, key=lambda name: (name != ORIGINAL, name))


def _limits(values: np.ndarray) -> tuple[float, float]:
    """Ends of an axis that shows these values, with a margin."""
    low, high = float(values.min()), float(values.max())
    margin = 0.04 * (high - low) or 0.05
    return low - margin, high + margin
