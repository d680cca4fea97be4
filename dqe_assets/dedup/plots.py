"""Plots of duplicates: how large clusters are, and what the thresholds are chosen by."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from dqe_assets.core.figures import (
    LIGHT,
    Theme,
    add_legend,
    label_bars,
    mark_threshold,
    new_figure,
    new_grid,
    placeholder,
    set_title,
    to_png,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import pyarrow as pa


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
    width, bars = 0.8 / len(kinds), []
    for place, (kind, values) in enumerate(kinds.items()):
        counts = np.histogram(values, edges)[0][:used]
        x = np.arange(used) + (place - (len(kinds) - 1) / 2) * width
        label = f"{kind}: {len(values):,} clusters, {int(values.sum() - len(values)):,} redundant"
        axes.bar(x, counts, width * 0.92, color=theme.sources[place % len(theme.sources)], label=label)
        bars += [(at, count, f"{count:,}") for at, count in zip(x.tolist(), counts.tolist(), strict=True) if count]
    axes.set_xticks(np.arange(used), [label for _, label in bins[:used]])
    axes.set_xlabel("samples in the cluster")
    axes.set_yticks([])
    axes.spines["left"].set_visible(False)
    label_bars(axes, bars, width, theme)
    set_title(axes, "Duplicate clusters", theme)
    add_legend(axes, theme, columns=2)
    return to_png(figure)


_COSINE_STEP = 0.025
_BITS_STEP = 2


def duplicate_thresholds(pairs: pa.Table, min_cosine: float, max_distance: int, theme: Theme = LIGHT) -> bytes:
    """How alike copies of one photo are, and photos that are not, with the thresholds between them, as PNG.

    Args:
        pairs: ``same_photo``, ``cosine`` and ``distance`` of ``dqe_assets.ingest.planted.pair_similarity``.
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
        mark_threshold(axes, theme, threshold, f"  duplicates {rule}", align)
        axes.set_xlabel(label)
        set_title(axes, title, theme)
    left.set_ylabel("share of the pairs")
    add_legend(left, theme, columns=1)
    return to_png(figure)
