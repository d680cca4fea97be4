"""A plot of the effect of choosing the best caption: how well captions fit before and after."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from dqe_assets.core.figures import LIGHT, add_legend, new_figure, placeholder, set_title, text_style, to_png

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

    from dqe_assets.core.figures import Theme


def before_and_after(original: ArrayLike, best: ArrayLike, independent: ArrayLike, theme: Theme = LIGHT) -> bytes:
    """The distributions of the originals' similarities and of the best captions', with both medians, as PNG.

    Best captions whose similarity proves nothing are hatched.

    Args:
        original: similarity of each sample's original caption, [n]; NaN if it has none.
        best: similarity of its best caption, [n]; NaN if it has none.
        independent: bool [n], false where the scorer shares a backbone with who wrote the best caption.
        theme: the colours.
    """
    before, after = np.asarray(original, np.float64), np.asarray(best, np.float64)
    scored = np.isfinite(after)
    shared = scored & ~np.asarray(independent, bool)
    if not scored.any():
        return placeholder("no scores", theme)
    figure, axes = new_figure(3.7, theme)
    originals, chosen = before[np.isfinite(before)], after[scored]
    everything = np.concatenate([originals, chosen])
    edges = np.histogram_bin_edges(everything, int(np.clip(1.5 * np.sqrt(len(chosen)), 8, 36)))
    for name, values, colour in (("original", originals, theme.original), ("best", chosen, theme.good)):
        if len(values):
            median = float(np.median(values))
            share = 100 * np.histogram(values, edges)[0] / len(values)
            axes.stairs(share, edges, fill=True, alpha=0.22, color=colour)
            axes.stairs(share, edges, color=colour, linewidth=1.8, label=f"{name} captions, median {median:.3f}")
            axes.axvline(median, color=colour, linewidth=1.2, linestyle=(0, (4, 3)))
    if shared.any():
        share = 100 * np.histogram(after[shared], edges)[0] / len(chosen)
        label = f"{_percent(shared[scored])} of them by captioners that share a backbone with the scorer: no proof"
        axes.stairs(share, edges, fill=True, facecolor="none", edgecolor=theme.good, hatch="////", lw=0, label=label)
    axes.set_xlabel("similarity of caption and image")
    axes.set_ylabel("% of captions")
    axes.yaxis.grid(visible=True, color=theme.grid)
    axes.set_ylim(0, 1.15 * axes.get_ylim()[1])
    place: dict[str, Any] = {"transform": axes.transAxes, "va": "top", "ha": "right"}
    axes.text(0.99, 0.98, _gains(before, after), **place, **text_style(theme))
    set_title(axes, "How well do the captions fit, before and after?", theme)
    add_legend(axes, theme, columns=1)
    return to_png(figure)


def _gains(before: np.ndarray, after: np.ndarray) -> str:
    """How many samples have a caption that fits better than the original."""
    gain = (after - before)[np.isfinite(after) & np.isfinite(before)]
    if not len(gain):
        return "no sample has an original caption"
    worse = f", {_percent(gain < 0)} worse" if (gain < 0).any() else ""
    changes = f"{_percent(gain > 0)} fit better, {_percent(gain == 0)} as before{worse}"
    return f"of {len(gain):,} samples with both\n{changes}"


def _percent(which: np.ndarray) -> str:
    return f"{100 * which.mean():.0f} %"
