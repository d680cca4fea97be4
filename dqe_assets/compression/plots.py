"""Plots of codebooks and clusters."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from dqe_assets.core.figures import LIGHT, new_figure, new_grid, placeholder, set_title, to_png

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from dqe_assets.core.figures import Theme


def codebook(facts: Mapping[str, Any], theme: Theme = LIGHT) -> bytes:
    """How often the codes occur, and for a trained codebook its losses after each pass, as PNG.

    Args:
        facts: of the asset ``codebook``: counts, perplexity, and epochs where it was trained.
        theme: the colours.
    """
    epochs = facts.get("epochs") or []
    figure, panels = new_grid(1, 2 if epochs else 1, 3.2, theme)
    counts = np.sort(np.asarray(facts["counts"]))[::-1]
    panels[0].fill_between(np.arange(1, len(counts) + 1), counts, step="mid", color=theme.sources[0], alpha=0.8)
    panels[0].set_xlabel("codes, the most frequent first")
    panels[0].set_ylabel("tokens")
    title = f"{facts['codes_used']:,} of {facts['codes']:,} codes, perplexity {facts['perplexity']:.0f}"
    set_title(panels[0], title, theme)
    if epochs:
        passes = [one["epoch"] for one in epochs]
        for name, colour in (("caption_loss", theme.muted), ("held_out_loss", theme.sources[0])):
            label = name.replace("_", " ")
            panels[1].plot(passes, [one[name] for one in epochs], color=colour, marker="o", markersize=3, label=label)
        panels[1].axhline(facts["unigram_loss"], color=theme.ink, linewidth=1, linestyle="--", label="words alone")
        panels[1].set_xlabel("pass")
        panels[1].set_ylabel("nats a token")
        panels[1].legend(frameon=False, fontsize=8.5, labelcolor=theme.ink)
        set_title(panels[1], "Captions from the codes", theme)
    return to_png(figure)


def cluster_sizes(sizes: Sequence[int], theme: Theme = LIGHT) -> bytes:
    """The sizes of the clusters, the largest first, as PNG."""
    if not sizes:
        return placeholder("no image has codes", theme)
    figure, axes = new_figure(2.8, theme)
    axes.fill_between(range(1, len(sizes) + 1), sizes, step="mid", color=theme.sources[0], alpha=0.8)
    axes.set_xlabel("clusters, the largest first")
    axes.set_ylabel("images")
    set_title(axes, f"{len(sizes):,} clusters of {sum(sizes):,} images", theme)
    return to_png(figure)
