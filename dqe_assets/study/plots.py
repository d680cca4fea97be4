"""Plots of a study: accuracies and differences with their intervals, accuracy over frequency, loss over compute."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from dqe_assets.concepts.performance import predict_accuracy
from dqe_assets.core.figures import LIGHT, new_figure, new_grid, plain, set_title, to_png
from dqe_assets.training.settings import ALL

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from matplotlib.axes import Axes

    from dqe_assets.core.figures import Theme
    from dqe_assets.study.results import ByFrequency, MeasuredArm, MeasuredLaw, Result, Spread


def accuracies(arms: Sequence[MeasuredArm], chance: float, theme: Theme = LIGHT) -> bytes:
    """The accuracy of each arm: the mean with its interval over seeds, and each seed as a small dot, as PNG.

    Args:
        arms: from top to bottom.
        chance: the accuracy of a guess.
        theme: the colours.
    """
    figure, axes = new_figure(1.1 + 0.36 * len(arms), theme)
    axes.axvline(chance, color=theme.muted, linewidth=1, linestyle=":")
    _rows(axes, [one.accuracy for one in arms], [theme.sources[0]] * len(arms), theme)
    axes.set_yticks(range(len(arms)), [plain(f"{one.arm.name} ({one.samples:,.0f})") for one in arms])
    axes.set_xlabel("zero-shot accuracy; dotted: a guess")
    axes.set_xlim(left=0)
    set_title(axes, "The same number of samples seen by each", theme)
    return to_png(figure)


def differences(result: Result, theme: Theme = LIGHT) -> bytes:
    """The difference of each comparison with its interval, controls in grey, as PNG."""
    rows = result.differences
    figure, axes = new_figure(1.0 + 0.36 * len(rows), theme)
    axes.axvline(0, color=theme.muted, linewidth=1)
    colours = [theme.sources[0] if one.is_claim else theme.original for one in rows]
    _rows(axes, [one.spread for one in rows], colours, theme)
    axes.set_yticks(range(len(rows)), [plain(one.name) for one in rows])
    axes.set_xlabel("difference, of models of the same seed; grey: controls")
    set_title(axes, "Differences, with 95 % intervals over seeds", theme)
    return to_png(figure)


def _rows(axes: Axes, spreads: Sequence[Spread], colours: Sequence[str], theme: Theme) -> None:
    axes.invert_yaxis()
    axes.set_ylim(len(spreads) - 0.5, -0.5)
    axes.grid(axis="x", color=theme.grid)
    for place, (spread, colour) in enumerate(zip(spreads, colours, strict=True)):
        mean, low, high = spread.interval
        values = [*spread.by_seed.values()]
        axes.scatter(values, np.full(len(values), place + 0.22), s=9, color=theme.muted, linewidths=0)
        if low is not None and high is not None:
            axes.plot([low, high], [place, place], color=colour, linewidth=2.2, solid_capstyle="round")
        axes.scatter([mean], [place], s=42, color=colour, zorder=3)


def over_frequency(measured: Sequence[ByFrequency], theme: Theme = LIGHT) -> bytes:
    """Accuracy of each class over how often captions name it, for each arm, all seeds in one, as PNG."""
    figure, all_axes = new_grid(1, len(measured), 3.4, theme)
    for axes, one in zip(all_axes, measured, strict=True):
        for place, (seed, points) in enumerate(one.points.items()):
            counts, accuracy = np.array(points, np.float64).T
            colour = theme.sources[place % len(theme.sources)]
            axes.scatter(np.maximum(counts, 1), accuracy, s=7, alpha=0.35, color=colour, linewidths=0)
            ends = np.geomspace(1, max(2.0, counts.max()), 40)
            axes.plot(ends, np.clip(predict_accuracy(one.fits[seed], ends), 0, 1), color=colour, label=f"seed {seed}")
        axes.set_xscale("log")
        axes.set_xlabel("captions of the subset that name the class")
        axes.set_ylabel("accuracy on the class")
        axes.legend(frameon=False, fontsize=8, labelcolor=theme.ink, loc="upper left")
        set_title(axes, plain(one.arm.what), theme)
    return to_png(figure)


def over_compute(measured: MeasuredLaw, theme: Theme = LIGHT) -> bytes:
    """The loss of each part of the pool over samples seen, means over seeds, and what is predicted of mixtures, as PNG.

    Args:
        measured: what was followed.
        theme: the colours.
    """
    figure, (left, right) = new_grid(1, 2, 3.6, theme)
    for place, name in enumerate(dict.fromkeys([*(arm.name for arm in measured.law.kept.values()), ALL])):
        colour = theme.original if name == ALL else theme.sources[place % len(theme.sources)]
        seen, low, mean, high = _curve(measured.loss[name])
        left.fill_between(seen, low, high, color=colour, alpha=0.12, linewidth=0)
        left.plot(seen, mean, color=colour, marker="o", markersize=3, label=plain(name))
    for place, name in enumerate(name for name, points in measured.predicted.items() if points):
        colour = theme.sources[(place + 1) % len(theme.sources)]
        told = [
            (one.mean, measured.loss[name][seen].of(one.by_seed).mean) for seen, one in measured.predicted[name].items()
        ]
        right.plot(*zip(*told, strict=True), "o", color=colour, markersize=4, label=plain(name))
    ends = [*right.get_xlim(), *right.get_ylim()]
    right.plot([min(ends), max(ends)], [min(ends), max(ends)], color=theme.muted, linewidth=1, label="as predicted")
    left.set_xlabel("samples seen")
    left.set_ylabel("loss of held-out pairs; 1 is a guess")
    right.set_xlabel("predicted by the law")
    right.set_ylabel("measured")
    set_title(left, "How much of the best to keep", theme)
    set_title(right, "What mixtures come to", theme)
    for axes in (left, right):
        axes.legend(frameon=False, fontsize=8, labelcolor=theme.ink)
    return to_png(figure)


def _curve(points: Mapping[int, Spread]) -> tuple[list[int], list[float], list[float], list[float]]:
    """Samples seen, and the least, the mean and the most of all seeds."""
    values = [[*one.by_seed.values()] for one in points.values()]
    return [*points], [min(some) for some in values], [one.mean for one in points.values()], [max(v) for v in values]
