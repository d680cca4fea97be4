"""Plots of evaluations: subsets compared, over their size, and over the samples seen."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

from dqe_assets.core.figures import LIGHT, add_legend, new_figure, placeholder, plain, set_title, to_png
from dqe_assets.evaluation.leaderboard import LOSS
from dqe_assets.scaling.plots import samples_axis
from dqe_assets.scaling.recommendation import amount

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

    from dqe_assets.core.figures import Theme

_MOST = 20
_LINES = 12
_MARKERS = "osD^v"
_HEIGHT = 3.9
_ROOM = 1.1


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
    axes.set_ylim(-0.7, len(shown) - 0.3)
    axes.set_yticks(list(places), [plain(f"{row['data']} ({row['data_size']:,})") for row in shown])
    axes.set_xlabel("grey: all samples, and what may be chance")
    set_title(axes, plain(f"{shown[0]['scale']}: {shown[0]['score']}"), theme)
    return to_png(figure)


def over_size(rows: Sequence[Mapping[str, Any]], theme: Theme = LIGHT) -> bytes:
    """One score at one scale over the number of samples in the subset (DataComp's figure 3), as PNG.

    Args:
        rows: of ``LEADERBOARD``, of one score at one scale.
        theme: the colours.
    """
    if not rows:
        return placeholder("nothing is evaluated yet", theme)
    figure, axes = new_figure(_HEIGHT, theme)
    shown = sorted(rows, key=lambda row: -row["value"])[:_MOST]
    for place, row in enumerate(shown):
        axes.errorbar(
            [row["data_size"]],
            [row["value"]],
            yerr=[row["spread"] or 0],
            color=theme.sources[place % len(theme.sources)],
            marker=_MARKERS[place // len(theme.sources) % len(_MARKERS)],
            linestyle="none",
            markersize=7,
            elinewidth=1.4,
            label=plain(row["data"]),
        )
    sizes = [row["data_size"] for row in shown]
    samples_axis(axes, min(sizes) / _ROOM, max(sizes) * _ROOM, "samples in the subset")
    axes.margins(y=0.15)
    axes.set_ylabel(plain(shown[0]["score"]))
    axes.grid(visible=True, color=theme.grid)
    set_title(axes, plain(f"{shown[0]['scale']}: each has seen {amount(shown[0]['samples_seen'])} samples"), theme)
    add_legend(axes, theme, columns=3)
    return to_png(figure)


def over_samples_seen(metric: str, rows: Sequence[Mapping[str, Any]], theme: Theme = LIGHT) -> bytes:
    """What each pool reaches over the samples seen, with its spread over seeds, as PNG.

    Args:
        metric: of the rows. A loss is shown as it is, and of all others the value, 1 - error.
        rows: of ``TRAINING_CURVES``, of one metric.
        theme: the colours.
    """
    if not rows:
        return placeholder("nothing is evaluated yet", theme)
    lines: dict[str, list[Mapping[str, Any]]] = defaultdict(list)
    for row in rows:
        lines[row["pool"]].append(row)
    is_loss = metric.endswith(LOSS)

    def reached(points: Sequence[Mapping[str, Any]]) -> list[float]:
        return [row["error"] if is_loss else 1 - row["error"] for row in points]

    best = sorted(lines, key=lambda pool: lines[pool][-1]["error"])[:_LINES]
    figure, axes = new_figure(_HEIGHT, theme)
    for place, pool in enumerate(best):
        points = lines[pool]
        axes.errorbar(
            [row["samples_seen"] for row in points],
            reached(points),
            yerr=[row["spread"] or 0 for row in points],
            color=theme.sources[place % len(theme.sources)],
            marker=_MARKERS[place // len(theme.sources) % len(_MARKERS)],
            markersize=4.5,
            linewidth=1.6,
            label=plain(pool),
        )
    seen = [row["samples_seen"] for pool in best for row in lines[pool]]
    samples_axis(axes, min(seen) / _ROOM, max(seen) * _ROOM, "samples seen in training")
    axes.set_ylabel("loss / ln(batch)" if is_loss else plain(metric.rpartition(" ")[2]))
    axes.grid(visible=True, color=theme.grid)
    more = f" (best {_LINES} of {len(lines)})" if len(lines) > _LINES else ""
    set_title(axes, plain(metric) + more, theme)
    add_legend(axes, theme, columns=3)
    return to_png(figure)
