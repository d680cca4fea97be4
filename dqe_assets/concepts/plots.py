"""Plots of concept frequencies: their long tail, what recaptioning does to it, and the accuracy that they predict."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from dqe_assets.concepts.performance import predict_accuracy
from dqe_assets.concepts.plan import line_interval
from dqe_assets.concepts.tail import share_under
from dqe_assets.core.figures import LIGHT, add_legend, label_bars, new_figure, placeholder, plain, set_title, to_png
from dqe_assets.core.schema import IMAGE, ORIGINAL

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from matplotlib.axis import Axis
    from numpy.typing import ArrayLike

    from dqe_assets.concepts.plan import FittedModel
    from dqe_assets.core.figures import Theme

_BAND = 0.16
_CROWDED = 100_000
_THRESHOLDS = (1, 10, 100, 1_000)
_NONE_AT = 0.5
"""Where a count of 0 stands on a logarithmic axis: next to the others, so that concepts never shown can be seen."""


def rank_frequency(counts: Mapping[str, ArrayLike], theme: Theme = LIGHT) -> bytes:
    """How many samples show each concept, the most frequent first, on logarithmic axes, as PNG.

    Args:
        counts: for each caption source (and ``image``) the samples that show each concept, [n]; concepts that none
            shows have no place on the axis and are counted in the legend.
        theme: the colours.
    """
    drawn = {name: np.sort(np.asarray(values, dtype=np.int64))[::-1] for name, values in counts.items()}
    if not any(values.any() for values in drawn.values()):
        return placeholder("no concept is shown", theme)
    figure, axes = new_figure(4.0, theme)
    for name, values in drawn.items():
        shown = values[values > 0]
        label = f"{_named(name)}: {len(shown):,} of {len(values):,} concepts"
        axes.plot(
            np.arange(1, len(shown) + 1),
            shown,
            color=_colours(counts, theme)[name],
            linewidth=1.8,
            linestyle=(0, (5, 2)) if name == IMAGE else "solid",
            marker="o" if len(shown) < 2 else None,
            label=label,
        )
    axes.set_xscale("log")
    axes.set_yscale("log")
    _plain_ticks(axes.xaxis, axes.yaxis)
    axes.set_xlabel("concepts, the most frequent first")
    axes.set_ylabel("samples that show the concept")
    axes.grid(visible=True, color=theme.grid)
    set_title(axes, "The long tail: how often each concept is shown", theme)
    add_legend(axes, theme, columns=2)
    return to_png(figure)


def tail_shares(counts: Mapping[str, ArrayLike], theme: Theme = LIGHT) -> bytes:
    """The share of concepts that fewer than 1, 10, 100 and 1,000 samples show, side by side, as PNG.

    Args:
        counts: as for ``rank_frequency``.
        theme: the colours.
    """
    drawn = {name: np.asarray(values, dtype=np.int64) for name, values in counts.items() if len(np.atleast_1d(values))}
    if not drawn:
        return placeholder("no concepts", theme)
    figure, axes = new_figure(3.4, theme)
    width = 0.8 / len(drawn)
    bars = []
    for place, (name, values) in enumerate(drawn.items()):
        shares = [100 * share for share in share_under(values, _THRESHOLDS).values()]
        x = np.arange(len(_THRESHOLDS)) + (place - (len(drawn) - 1) / 2) * width
        axes.bar(x, shares, width * 0.92, color=_colours(counts, theme)[name], label=_named(name))
        bars += [(at, share, f"{share:.0f}") for at, share in zip(x.tolist(), shares, strict=True)]
    axes.set_xticks(np.arange(len(_THRESHOLDS)), ["never", *(f"fewer than {t:,}" for t in _THRESHOLDS[1:])])
    axes.set_xlabel("samples that show the concept")
    axes.set_ylabel("% of concepts")
    label_bars(axes, bars, width, theme)
    set_title(axes, "What the data hardly shows", theme)
    add_legend(axes, theme, columns=4)
    return to_png(figure)


def recaptioned(
    original: ArrayLike, synthetic: ArrayLike, name: str, sources: Sequence[str] = (), theme: Theme = LIGHT
) -> bytes:
    """How often each concept is shown by the original captions against a captioner's, as PNG.

    Args:
        original: samples whose original caption shows each concept, [n].
        synthetic: samples whose synthetic caption does, [n], of the same concepts in the same order.
        name: the captioner.
        sources: all caption sources, so that each has the colour that it has in other plots.
        theme: the colours.
    """
    x, y = (np.asarray(values, dtype=np.float64) for values in (original, synthetic))
    shown = (x > 0) | (y > 0)
    if not shown.any():
        return placeholder("no concept is shown", theme)
    figure, axes = new_figure(4.8, theme, width=5.2)
    colour = _colours([*sources, name], theme)[name]
    at = [np.where(values[shown] > 0, values[shown], _NONE_AT) for values in (x, y)]
    low, high = 0.4, max(values.max() for values in at) * 1.6
    axes.plot((low, high), (low, high), color=theme.muted, linewidth=1, zorder=1)
    more = y[shown] > x[shown]
    size = float(np.clip(6000 / shown.sum(), 4, 22))
    axes.scatter(
        at[0], at[1], s=size, c=list(np.where(more, colour, theme.original)), alpha=0.6, linewidths=0, zorder=2
    )
    for set_scale, set_limits in ((axes.set_xscale, axes.set_xlim), (axes.set_yscale, axes.set_ylim)):
        set_scale("log")
        set_limits(low, high)
    _plain_ticks(axes.xaxis, axes.yaxis, none_at=_NONE_AT)
    axes.set_xlabel("samples whose original caption shows the concept")
    axes.set_ylabel(f"samples whose caption by {_named(name)} does")
    axes.grid(visible=True, color=theme.grid)
    gained, lost = int(((x == 0) & (y > 0)).sum()), int(((x > 0) & (y == 0)).sum())
    ground = {"facecolor": theme.background, "alpha": 0.85, "pad": 1.5, "edgecolor": "none"}
    corner: dict[str, Any] = {"transform": axes.transAxes, "fontsize": 9, "fontweight": "bold", "bbox": ground}
    axes.text(0.1, 0.97, f"shown by {_named(name)} alone: {gained:,}", va="top", color=colour, **corner)
    axes.text(0.97, 0.1, f"by the originals alone: {lost:,}", ha="right", color=theme.muted, **corner)
    set_title(axes, f"What {_named(name)} does to the tail", theme)
    return to_png(figure)


def log_linear(fitted: FittedModel, theme: Theme = LIGHT) -> bytes:
    """The accuracy on each concept over its frequency, the bins' means and the line through them, as PNG.

    Args:
        fitted: a measured model with its fit.
        theme: the colours.
    """
    fit, colour = fitted.fit, theme.sources[0]
    figure, axes = new_figure(4.2, theme)
    counts = np.maximum(fitted.counts, 1)
    size = float(np.clip(6000 / len(counts), 3, 16))
    axes.scatter(counts, fitted.accuracy, s=size, color=theme.original, alpha=0.5, linewidths=0)
    axes.scatter([], [], s=12, color=theme.original, label="a concept")
    x = np.exp(np.linspace(fit.edges[0], fit.edges[-1], 200))
    axes.fill_between(x, *line_interval(fit, x), color=colour, alpha=_BAND, linewidth=0)
    axes.plot(x, predict_accuracy(fit, x), color=colour, linewidth=1.8, label=f"line, {fit.level:.0%} interval")
    filled = np.flatnonzero(fit.concepts_per_bin)
    inner = filled[(filled > 0) & (filled < len(fit.edges) - 1)]
    outer = np.setdiff1d(filled, inner)
    for places, face, label in ((inner, colour, "mean of a bin"), (outer, "none", "bin that the line leaves out")):
        axes.plot(
            np.exp(fit.edges[places]),
            fit.means[places],
            linestyle="none",
            marker="o",
            markersize=7,
            markerfacecolor=face,
            markeredgecolor=colour,
            label=label,
        )
    axes.set_xscale("log")
    axes.set_xlim(counts.min() * 0.8, counts.max() * 1.3)
    axes.set_ylim(bottom=min(0.0, float(fitted.accuracy.min())))
    _plain_ticks(axes.xaxis)
    axes.set_xlabel("samples of the training data that show the concept")
    axes.set_ylabel("zero-shot accuracy")
    axes.grid(visible=True, color=theme.grid)
    name = plain(fitted.model) + (" (made-up example)" if fitted.is_made_up else "")
    set_title(axes, f"{name}: r = {fit.r:.3f}, p = {fit.p_value:.1g}", theme)
    add_legend(axes, theme, columns=4)
    return to_png(figure)


def _named(source: str) -> str:
    """A caption source in words."""
    return {IMAGE: "image tags", ORIGINAL: "original captions"}.get(source) or plain(source)


def _colours(sources: Mapping[str, ArrayLike] | Sequence[str], theme: Theme) -> dict[str, str]:
    return theme.colours(name for name in sources if name != IMAGE) | {IMAGE: theme.ink}


def _plain_ticks(*axes: Axis, none_at: float | None = None) -> None:
    """Powers of ten as people write them, and ``none`` where nothing stands."""
    from matplotlib.ticker import NullLocator

    for axis in axes:
        low, high = axis.get_view_interval()
        powers = [10.0**power for power in range(int(np.floor(np.log10(high))) + 1) if 10.0**power >= low]
        # Over many powers, the first would touch what stands for none.
        names = [f"{power:,.0f}" if not none_at or power > 1 or high < _CROWDED else "" for power in powers]
        axis.set_minor_locator(NullLocator())
        axis.set_ticks(([none_at] if none_at else []) + powers, labels=(["none"] if none_at else []) + names)
