"""Plots of codebooks and clusters."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from dqe_assets.core.figures import (
    LIGHT,
    add_legend,
    bin_count,
    bin_edges,
    finite_only,
    new_figure,
    new_grid,
    placeholder,
    plain,
    set_title,
    to_png,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import ArrayLike

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
        panels[1].set_xlim(passes[0] - 0.5, passes[-1] + 0.5)
        panels[1].locator_params(axis="x", integer=True)
        add_legend(panels[1], theme, columns=3)
        set_title(panels[1], "Captions from the codes", theme)
    return to_png(figure)


def scores(of: Mapping[str, ArrayLike], theme: Theme = LIGHT) -> bytes:
    """How well captions fit before and after data was left out, as PNG: the paper's picture of matching scores.

    Args:
        of: the scores [n] of all samples, first, and of each way of keeping some of them, by name; what is not finite
            is left out.
        theme: the colours.
    """
    finite = {name: values for name, values in finite_only(of).items() if len(values)}
    if not finite:
        return placeholder("no scores", theme)
    figure, axes = new_figure(3.1, theme)
    edges = bin_edges(np.concatenate(list(finite.values())), bin_count(min(map(len, finite.values()))))
    for place, (name, values) in enumerate(finite.items()):
        share = 100 * np.histogram(values, edges)[0] / len(values)
        colour = theme.sources[(place - 1) % len(theme.sources)] if place else theme.original
        label = f"{plain(name)}: {len(values):,}, mean {values.mean():.3f}"
        # Lines that lie on each other are all seen.
        style = (0, (4, 2, *[1, 2] * (place - 2))) if place > 1 else "-"
        axes.stairs(
            share,
            edges,
            color=colour,
            linewidth=1.8,
            linestyle=style,
            label=label,
            fill=not place,
            alpha=0.9 if place else 0.35,
        )
    axes.set_xlabel("similarity of original caption and image")
    axes.set_ylabel("% of the samples")
    axes.set_ylim(bottom=0)
    set_title(axes, "How well captions fit, of all samples and of those kept", theme)
    add_legend(axes, theme, columns=2)
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
