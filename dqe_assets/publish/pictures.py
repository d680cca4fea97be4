"""Pictures of a publication."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from dqe_assets.core.figures import LIGHT, add_legend, new_figure, placeholder, set_title, to_png

if TYPE_CHECKING:
    from collections.abc import Mapping

    from dqe_assets.core.figures import Theme

BINS = 25
"""Bins of similarity in an interval of length 1."""


def before_and_after(before: Mapping[int, int], after: Mapping[int, int], theme: Theme = LIGHT) -> bytes:
    """How well the captions fit, of all samples with an image and of what is published, as PNG.

    Args:
        before: original captions in each bin, n / ``BINS`` being the lower edge of bin n.
        after: published captions in each bin.
        theme: the colours.
    """
    used = [*before, *after]
    if not used:
        return placeholder("no scores", theme)
    bins = np.arange(min(used), max(used) + 2)
    figure, axes = new_figure(3.1, theme)
    for name, counts, colour in (
        ("original captions of all images", before, theme.original),
        ("published captions", after, theme.good),
    ):
        shown = np.array([counts.get(int(n), 0) for n in bins[:-1]])
        total = shown.sum()
        if total:
            axes.stairs(100 * shown / total, bins / BINS, fill=True, alpha=0.22, color=colour)
            axes.stairs(100 * shown / total, bins / BINS, color=colour, linewidth=1.8, label=f"{name}: {total:,}")
    axes.set_xlabel("similarity of caption and image")
    axes.set_ylabel("% of captions")
    axes.yaxis.grid(visible=True, color=theme.grid)
    set_title(axes, "How well do the captions fit?", theme)
    add_legend(axes, theme, columns=2)
    return to_png(figure)
