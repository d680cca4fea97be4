"""Plots of evaluations: subsets compared, over their size, and over the samples seen."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

from dqe_assets.core.figures import LIGHT, new_figure, placeholder, plain, set_title, to_png

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

    from dqe_assets.core.figures import Theme

_MOST = 20
_LINES = 8


def leaderboard(rows: Sequence[Mapping[str, Any]], theme: Theme = LIGHT) -> bytes:
    """The value of each subset by one score at one scale, best first, with its spread over seeds, as PNG.

    Args:
        rows: of ``LEADERBOARD``.
        theme: the colours.
    """
    if not rows:
        return placeholder("nothing is evaluated yet", theme)
    shown = sorted(rows, key=lambda row: row["value"])[-_MOST:]
    figure, axes = new_figure(0.9 + 0.34 * len(shown), theme)
    told_apart = [row["rank"] is not None for row in shown]
    colours = [theme.sources[0] if clear else theme.muted for clear in told_apart]
    places = range(len(shown))
    axes.barh(places, [row["value"] for row in shown], color=colours, height=0.62)
    axes.errorbar(
        [row["value"] for row in shown],
        places,
        xerr=[row["spread"] or 0 for row in shown],
        fmt="none",
        ecolor=theme.ink,
        elinewidth=1.2,
    )
    axes.set_yticks(list(places), [plain(f"{row['data']} ({row['data_size']:,})") for row in shown])
    axes.set_xlabel(plain(shown[0]["score"]))
    set_title(axes, plain(f"{shown[0]['scale']}: grey where it cannot be told from all"), theme)
    return to_png(figure)


def over_size(rows: Sequence[Mapping[str, Any]], theme: Theme = LIGHT) -> bytes:
    """One score at one scale over the number of samples in the subset (DataComp's figure 3), as PNG; as above."""
    figure, axes = new_figure(3.4, theme)
    axes.errorbar(
        [row["data_size"] for row in rows],
        [row["value"] for row in rows],
        yerr=[row["spread"] or 0 for row in rows],
        fmt="o",
        color=theme.sources[0],
        ecolor=theme.muted,
        markersize=6,
    )
    for row in rows:
        axes.annotate(
            plain(row["data"]),
            (row["data_size"], row["value"]),
            xytext=(6, 4),
            textcoords="offset points",
            fontsize=8.5,
            color=theme.ink,
        )
    axes.set_xscale("log")
    axes.margins(x=0.15)
    axes.set_xlabel("samples in the subset")
    axes.set_ylabel(plain(rows[0]["score"]))
    set_title(axes, plain(f"{rows[0]['scale']}: {rows[0]['samples_seen']:,} samples seen by each"), theme)
    return to_png(figure)


def over_samples_seen(title: str, rows: Sequence[Mapping[str, Any]], theme: Theme = LIGHT) -> bytes:
    """Error over the samples seen, a line for each pool, as PNG.

    Args:
        title: of the plot.
        rows: of ``TRAINING_CURVES``, of one metric.
        theme: the colours.
    """
    if not rows:
        return placeholder("nothing is evaluated yet", theme)
    lines: dict[str, list[Mapping[str, Any]]] = defaultdict(list)
    for row in rows:
        lines[row["pool"]].append(row)
    figure, axes = new_figure(3.4, theme)
    for place, (pool, points) in enumerate(list(lines.items())[:_LINES]):
        axes.errorbar(
            [row["samples_seen"] for row in points],
            [row["error"] for row in points],
            yerr=[row["spread"] or 0 for row in points],
            color=theme.sources[place % len(theme.sources)],
            marker="o",
            markersize=4,
            linewidth=1.6,
            label=plain(pool),
        )
    axes.set_xlabel("samples seen")
    axes.set_ylabel("error")
    set_title(axes, plain(title), theme)
    axes.legend(frameon=False, fontsize=8.5, labelcolor=theme.ink)
    return to_png(figure)
