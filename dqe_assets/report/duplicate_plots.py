"""What the thresholds of duplicates are chosen by, as a picture."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from dqe_assets.report.plots import LIGHT, Theme, add_legend, new_grid, placeholder, set_title, text_style, to_png

if TYPE_CHECKING:
    import pyarrow as pa

_COSINE_STEP = 0.025
_BITS_STEP = 2


def duplicate_thresholds(pairs: pa.Table, min_cosine: float, max_distance: int, theme: Theme = LIGHT) -> bytes:
    """How alike copies of one photo are, and photos that are not, with the thresholds between them, as PNG.

    Args:
        pairs: ``same_photo``, ``cosine`` and ``distance`` of `dqe_assets.report.planted.pair_similarity`.
        min_cosine: cosine from which two images are semantic duplicates.
        max_distance: bits up to which two images are perceptual duplicates.
        theme: the colours.
    """
    same = pairs["same_photo"].to_numpy()
    if not same.any():
        return placeholder("no planted copies", theme)
    figure, (left, right) = new_grid(1, 2, 3.4, theme)
    cosine, distance = pairs["cosine"].to_numpy(), pairs["distance"].to_numpy().astype(np.float64)
    lowest = np.floor(cosine.min() / _COSINE_STEP)
    steps = np.arange(lowest, 1 / _COSINE_STEP + 1) * _COSINE_STEP
    # Between two numbers of bits, so that it is clear on which side each is.
    bits = np.arange(-0.5, distance.max() + _BITS_STEP, _BITS_STEP)
    panels = (
        (left, "Semantic", "cosine of the features", np.clip(cosine, -1, 1), steps),
        (right, "Perceptual", "bits in which the hashes differ", distance, bits),
    )
    rules = (
        (min_cosine, f"from {min_cosine:g}  ", "right"),
        (max_distance + 0.5, f"up to {max_distance} bits", "left"),
    )
    for (axes, title, label, values, edges), (threshold, rule, align) in zip(panels, rules, strict=True):
        for name, chosen, colour in (
            ("copies of one photo", same, theme.sources[0]),
            ("two photos", ~same, theme.sources[1]),
        ):
            counts, _ = np.histogram(values[chosen], edges)
            share = counts / max(1, int(chosen.sum()))
            axes.stairs(share, edges, fill=True, color=colour, alpha=0.55, label=f"{name}: {int(chosen.sum()):,} pairs")
        axes.axvline(threshold, color=theme.ink, linewidth=1.2, linestyle="--")
        axes.annotate(
            f"  duplicates {rule}",
            (threshold, 1.0),
            xycoords=("data", "axes fraction"),
            ha=align,
            va="top",
            **text_style(theme),
        )
        axes.set_xlabel(label)
        axes.yaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
        set_title(axes, title, theme)
    left.set_ylabel("share of the pairs")
    add_legend(left, theme, columns=1)
    return to_png(figure)
