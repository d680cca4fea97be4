"""Plots of judgements."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from dqe_assets.core.figures import LIGHT, new_grid, placeholder, plain, set_title, text_style, to_png
from dqe_assets.improve.agreement import MEASURES

if TYPE_CHECKING:
    import pyarrow as pa

    from dqe_assets.core.figures import Theme


def marks_by_source(means: pa.Table, theme: Theme = LIGHT) -> bytes:
    """The mean mark of each caption source by each criterion, with its 95 % interval, as PNG.

    Args:
        means: as ``dqe_assets.improve.agreement.means`` gives them by ``caption_source``.
        theme: the colours.
    """
    if not means.num_rows:
        return placeholder("nothing judged", theme)
    sources = means["caption_source"].to_pylist()
    colours = theme.colours(sources)
    places = range(len(sources))
    figure, grid = new_grid(1, len(MEASURES), 1.15 + 0.36 * len(sources), theme, width=9.5)
    for axes, measure in zip(grid, MEASURES, strict=True):
        for place, row in zip(places, means.to_pylist(), strict=True):
            low, high = row[f"{measure}_low"], row[f"{measure}_high"]
            colour = colours[row["caption_source"]]
            if low is not None:
                axes.plot((max(low, 1), min(high, 5)), (place, place), color=colour, linewidth=2.2, alpha=0.55)
            axes.plot(row[measure], place, "o", color=colour, markersize=6)
            label = axes.text(row[measure], place - 0.24, f"{row[measure]:.2f}", ha="center", va="bottom")
            label.set(**text_style(theme))
        axes.set_xlim(0.7, 5.3)
        axes.set_xticks(np.arange(1, 6))
        axes.xaxis.grid(visible=True, color=theme.grid)
        axes.set_ylim(len(sources) - 0.4, -0.75)
        axes.set_yticks([])
        axes.spines["left"].set_visible(False)
        axes.set_xlabel("mean mark" if measure != MEASURES[0] else "mean mark, 95 % interval", fontsize=8.5)
        set_title(axes, measure.replace("_", " "), theme, size=10)
    judged = means["judged"].to_pylist()
    grid[0].set_yticks(places, [f"{plain(name)} ({n:,})" for name, n in zip(sources, judged, strict=True)])
    return to_png(figure)
