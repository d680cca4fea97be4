"""Plots of what is measured of the images."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from dqe_assets.core.figures import (
    LIGHT,
    Theme,
    bin_count,
    bin_edges,
    finite_only,
    new_grid,
    placeholder,
    set_title,
    to_png,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import ArrayLike


def feature_histograms(features: Mapping[str, ArrayLike], theme: Theme = LIGHT) -> bytes:
    """The distribution of each measured feature, side by side, as PNG.

    Args:
        features: values of each feature, [n]; what is not finite is left out.
        theme: the colours.
    """
    finite = {name: values for name, values in finite_only(features).items() if len(values)}
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
        set_title(axes, name.replace("_", " "), theme, size=10)
        axes.set_xlabel(f"median {float(np.median(values)):.3g}", fontsize=8.5)
    for axes in grid[len(finite) :]:
        axes.remove()
    return to_png(figure)
