"""What the thresholds of contamination are chosen by, as a plot."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from dqe_assets.core.figures import LIGHT, Theme, add_legend, mark_threshold, new_grid, placeholder, set_title, to_png

if TYPE_CHECKING:
    import pyarrow as pa

    from dqe_assets.contamination.settings import ContaminationRules

_COSINE_STEP = 0.025
_BITS_STEP = 2


def planted_copies(copies: pa.Table, rules: ContaminationRules, theme: Theme = LIGHT) -> bytes:
    """How near copies are to their own picture and to the nearest other one, with the thresholds between, as PNG.

    Args:
        copies: table of ``PLANTED_COPIES``.
        rules: the thresholds.
        theme: the colours.
    """
    kinds = list(dict.fromkeys(copies["copy"].to_pylist()))
    if not kinds:
        return placeholder("no planted copies", theme)
    of_kind = np.array(copies["copy"].to_pylist())
    figure, (left, right) = new_grid(1, 2, 3.4, theme)
    cosine, other_cosine = (
        copies[name].fill_null(-1).to_numpy().astype(np.float64) for name in ("cosine", "other_cosine")
    )
    distance, other_distance = (
        copies[name].fill_null(64).to_numpy().astype(np.float64) for name in ("distance", "other_distance")
    )
    lowest = np.floor(max(-1.0, min(cosine.min(), other_cosine.min())) / _COSINE_STEP)
    steps = np.arange(lowest, 1 / _COSINE_STEP + 1) * _COSINE_STEP
    # Between two numbers of bits, so that it is clear on which side each is.
    bits = np.arange(-0.5, max(distance.max(), other_distance.max()) + _BITS_STEP, _BITS_STEP)
    panels = (
        (left, "Semantic", "cosine of the features", np.clip(cosine, -1, 1), np.clip(other_cosine, -1, 1), steps),
        (right, "Perceptual", "bits in which the hashes differ", distance, other_distance, bits),
    )
    marks = (
        (rules.min_cosine, f"from {rules.min_cosine:g}  ", "right"),
        (rules.max_distance + 0.5, f"up to {rules.max_distance} bits", "left"),
    )
    for (axes, title, label, own, others, edges), (threshold, rule, align) in zip(panels, marks, strict=True):
        axes.stairs(
            _share(others, edges), edges, fill=True, color=theme.original, alpha=0.45, label="nearest other picture"
        )
        for place, kind in enumerate(kinds):
            colour = theme.sources[place % len(theme.sources)]
            axes.stairs(_share(own[of_kind == kind], edges), edges, color=colour, linewidth=1.6, label=kind)
        mark_threshold(axes, theme, threshold, f"  found {rule}", align)
        axes.set_xlabel(label)
        set_title(axes, title, theme)
    left.set_ylabel("share of the copies")
    add_legend(left, theme, columns=2)
    return to_png(figure)


def _share(values: np.ndarray, edges: np.ndarray) -> np.ndarray:
    return np.histogram(values, edges)[0] / max(1, len(values))
