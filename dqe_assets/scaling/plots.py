"""Plots of scaling laws: fitted curves, utility by epoch, and what each mixture is predicted to give over compute."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from dqe_assets.core.figures import LIGHT, add_legend, new_figure, placeholder, plain, set_title, text_style, to_png
from dqe_assets.scaling.recommendation import amount

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.axes import Axes

    from dqe_assets.core.figures import Theme
    from dqe_assets.scaling.law import Array
    from dqe_assets.scaling.recommendation import FittedPools

_POINTS = 240
_BAND = 0.16
_HEIGHT = 4.1
_MARGIN = 1.3
_CROWDED = 1.6
_EDGE = 0.06
_MOST_TICKS = 9
_SEEN = "samples seen in training"


def fitted_curves(fitted: FittedPools, theme: Theme = LIGHT) -> bytes:
    """The measured errors of each pool, the law fitted to them and its 95 % interval, as PNG (figure 4 of the paper).

    Args:
        fitted: the pools of one metric.
        theme: the colours.
    """
    if not fitted.pools:
        return placeholder("no pools", theme)
    figure, axes = new_figure(_HEIGHT, theme)
    for place, name in enumerate(fitted.names):
        colour = _colour(theme, place)
        seen = np.geomspace(fitted.samples_seen[place].min(), fitted.samples_seen[place].max(), _POINTS)
        alone = fitted.only([name])
        drawn = alone.drawn_errors(1, seen)
        if len(drawn):
            axes.fill_between(seen, *alone.interval(1, seen), color=colour, alpha=_BAND, linewidth=0)
        axes.plot(seen, alone.best(seen).error[0], color=colour, linewidth=1.8, label=plain(name))
        axes.plot(
            fitted.samples_seen[place],
            fitted.error[place],
            linestyle="none",
            marker="o",
            markersize=5,
            markerfacecolor=colour,
            markeredgecolor=theme.background,
            markeredgewidth=0.8,
        )
    samples_axis(axes, *_range(fitted.samples_seen), _SEEN)
    axes.set_ylabel(f"error of {plain(fitted.metric)}")
    axes.grid(visible=True, color=theme.grid)
    set_title(axes, _titled(fitted, "What was measured, and the law fitted to it"), theme)
    add_legend(axes, theme, columns=4)
    return to_png(figure)


def utility_by_epoch(fitted: FittedPools, theme: Theme = LIGHT) -> bytes:
    """The utility that each pool has left in each pass over it, with its 95 % interval, as PNG (figure 1 of the paper).

    Args:
        fitted: the pools of one metric.
        theme: the colours.
    """
    if not fitted.pools:
        return placeholder("no pools", theme)
    figure, axes = new_figure(_HEIGHT, theme)
    most = max(seen.max() / size for seen, size in zip(fitted.samples_seen, fitted.sizes, strict=True))
    epochs = np.arange(1, int(np.clip(np.ceil(most), 4, 40)) + 1)
    for place, (name, pool) in enumerate(zip(fitted.names, fitted.pools, strict=True)):
        colour = _colour(theme, place)
        if len(fitted.draws):
            b, tau = fitted.draws[:, place, 1, None], fitted.draws[:, place, 2, None]
            low, high = np.quantile(-b * np.exp2(-(epochs - 1) / tau), (0.025, 0.975), axis=0)
            axes.fill_between(epochs, low, high, color=colour, alpha=_BAND, linewidth=0)
        decay = f"half-life {pool.tau:.3g} epochs" if np.isfinite(pool.tau) else "decay unknown"
        label = f"{plain(name)}: {decay}"
        axes.plot(epochs, -pool.utility(epochs), color=colour, linewidth=1.8, marker="o", markersize=4, label=label)
    first = -fitted.pools[-1].b
    axes.axhline(first, color=theme.muted, linewidth=1, linestyle=(0, (4, 3)))
    axes.annotate(
        f"{plain(fitted.names[-1])}, seen for the first time",
        (epochs[-1], first),
        (0, 2),
        textcoords="offset points",
        ha="right",
        va="bottom",
        **text_style(theme, muted=True),
    )
    axes.set_xlabel("pass over the pool (epoch)")
    axes.set_ylabel("utility that is left (-b)")
    axes.set_ylim(bottom=0)
    axes.locator_params(axis="x", integer=True)
    axes.grid(visible=True, color=theme.grid)
    set_title(axes, _titled(fitted, "How fast repetition uses data up"), theme)
    add_legend(axes, theme, columns=2)
    return to_png(figure)


def mixtures_over_compute(fitted: FittedPools, budgets: Sequence[int], theme: Theme = LIGHT) -> bytes:
    """The error predicted of the best 1, 2 ... pools over compute, with the crossings, as PNG (figure 5 of the paper).

    Args:
        fitted: the pools of one metric.
        budgets: the compute in question, marked on the axis.
        theme: the colours.
    """
    if not fitted.pools:
        return placeholder("no pools", theme)
    figure, axes = new_figure(4.5, theme)
    mixed = [float(at) for mixture in fitted.mixtures for at in mixture.samples_seen]
    low = min([max(min(budgets) / 4, min(*budgets, fitted.measured[0])), *mixed])
    high = max(*budgets, fitted.measured[1], *mixed) * _MARGIN
    seen = np.geomspace(low, high, _POINTS)
    best = fitted.best(seen)
    for keep in range(1, len(fitted.pools) + 1):
        colour = _colour(theme, keep - 1)
        if len(fitted.draws):
            axes.fill_between(seen, *fitted.interval(keep, seen), color=colour, alpha=_BAND, linewidth=0)
        label = f"keep {keep}: {'+ ' if keep > 1 else ''}{plain(fitted.names[keep - 1])}"
        axes.plot(seen, best.error[keep - 1], color=colour, linewidth=1.8, label=label)
    axes.plot(seen, best.error.min(axis=0), color=theme.ink, linewidth=5, alpha=0.14, zorder=1, solid_capstyle="round")
    for mixture in fitted.mixtures:
        kept = [place for place in range(len(fitted.names)) if {*fitted.names[: place + 1]} == {*mixture.pools}]
        axes.plot(
            mixture.samples_seen,
            mixture.error,
            linestyle="none",
            marker="D",
            markersize=6,
            color=_colour(theme, kept[0]) if kept else theme.muted,
            markeredgecolor=theme.ink,
            markeredgewidth=0.9,
            label=f"measured: {plain(mixture.name)}",
            zorder=4,
        )
    bottom, top = axes.get_ylim()
    bottom -= 0.32 * (top - bottom)
    axes.set_ylim(bottom, top)
    for crossing in best.crossings:
        error = float(fitted.best([crossing.samples_seen]).error.min())
        axes.plot(
            crossing.samples_seen, error, marker="o", markersize=8, color=theme.ink, markerfacecolor="none", zorder=5
        )
        at = np.log(crossing.samples_seen / low) / np.log(high / low)
        axes.annotate(
            f"{amount(crossing.samples_seen)}\n{crossing.before} → {crossing.after}",
            (crossing.samples_seen, error),
            (0, -9),
            textcoords="offset points",
            ha="left" if at < _EDGE else "right" if at > 1 - _EDGE else "center",
            va="top",
            **text_style(theme),
        )
    if high > fitted.measured[1] * _MARGIN:
        axes.axvspan(fitted.measured[1], high, color=theme.muted, alpha=0.1, linewidth=0, zorder=0)
        middle = np.sqrt(fitted.measured[1] * high)
        axes.text(middle, top, "not measured", ha="center", va="top", **text_style(theme, muted=True))
    ordered = sorted(set(budgets))
    for place, budget in enumerate(ordered):
        axes.axvline(budget, color=theme.muted, linewidth=1, linestyle=(0, (2, 3)), zorder=1)
        crowded = any(other != budget and 1 / _CROWDED < other / budget < _CROWDED for other in ordered)
        axes.text(
            budget,
            bottom + (0.02 + 0.11 * (place % 2 if crowded else 0)) * (top - bottom),
            f"{amount(budget)}\nkeep {int(fitted.best([budget]).keep[0])}",
            ha="center",
            va="bottom",
            color=theme.ink,
            fontsize=8.5,
            fontweight="bold",
            bbox={"facecolor": theme.background, "pad": 1.5, "edgecolor": "none"},
        )
    samples_axis(axes, low, high, _SEEN)
    axes.set_ylabel(f"predicted error of {plain(fitted.metric)}")
    axes.grid(visible=True, color=theme.grid)
    set_title(axes, _titled(fitted, "Which data for which compute"), theme)
    add_legend(axes, theme, columns=2)
    return to_png(figure)


def _titled(fitted: FittedPools, title: str) -> str:
    return f"{title} (made-up example)" if fitted.is_made_up else title


def _colour(theme: Theme, place: int) -> str:
    return theme.sources[place % len(theme.sources)]


def _range(samples_seen: Sequence[Array]) -> tuple[float, float]:
    return min(float(seen.min()) for seen in samples_seen), max(float(seen.max()) for seen in samples_seen)


def samples_axis(axes: Axes, low: float, high: float, label: str) -> None:
    """A logarithmic axis of samples that doubles from tick to tick, or over many doublings grows by ten.

    Args:
        axes: whose horizontal axis it becomes.
        low: the fewest samples.
        high: the most.
        label: of the axis.
    """
    from matplotlib.ticker import FixedLocator, NullLocator

    axes.set_xscale("log")
    unit = 1e6 if high >= 1e6 else 1e3 if high >= 1e3 else 1.0
    margin = max((high / low) ** 0.015, 1.01)
    doublings = np.arange(np.floor(np.log2(low / unit)), np.ceil(np.log2(high / unit)) + 1)
    ticks = unit * np.exp2(doublings)
    if len(doublings) > _MOST_TICKS:
        ticks = 10.0 ** np.arange(np.floor(np.log10(low)), np.ceil(np.log10(high)) + 1)
    ticks = ticks[(ticks >= low / margin) & (ticks <= high * margin)]
    if len(ticks) < 2:
        ticks = np.unique(np.round([low, high]))
    labels: dict[str, Any] = {"labels": [amount(tick) for tick in ticks]}
    axes.xaxis.set_major_locator(FixedLocator(ticks.tolist()))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xticks(ticks, **labels)
    axes.set_xlim(low / margin, high * margin)
    axes.set_xlabel(label)
