"""Plots of the map of the samples: by topic, by source, by score."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from dqe_assets.core.figures import (
    LIGHT,
    Theme,
    add_legend,
    any_script,
    new_figure,
    placeholder,
    set_title,
    some_of,
    to_png,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import pyarrow as pa
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.text import Text
    from numpy.typing import NDArray

HEIGHT = 5.2
_LEAST_SHARE = 0.01
_EMPTY = "no samples on the map"


@dataclass(frozen=True, slots=True)
class SampleMap:
    """What is on the map.

    Attributes:
        places: floats [n, 2].
        topics: topic of each sample, int [n].
        names: name of each topic.
        sources: source of each sample.
        scores: similarity of each sample's original caption, float [n]; not finite if there is none.
    """

    places: NDArray[np.floating]
    topics: NDArray[np.integer]
    names: Sequence[str]
    sources: Sequence[str]
    scores: NDArray[np.floating]


def sample_map(table: pa.Table) -> SampleMap:
    """What is on the map, from a table with the columns of ``COLLECTION_MAP``."""
    topics = table["topic"].to_numpy()
    named = dict(zip(topics.tolist(), table["topic_name"].to_pylist(), strict=True))
    return SampleMap(
        np.stack([table["x"].to_numpy(), table["y"].to_numpy()], axis=1),
        topics,
        [named[topic] for topic in sorted(named)],
        table["source"].to_pylist(),
        table["similarity"].to_numpy(),
    )


def map_by_topic(shown: SampleMap, theme: Theme = LIGHT) -> bytes:
    """The map with the topics coloured and named, as PNG."""
    if not len(shown.places):
        return placeholder(_EMPTY, theme)
    figure, axes = _empty_map(theme)
    centres = np.array([_middle(shown.places[shown.topics == topic]) for topic in range(len(shown.names))])
    colours = [theme.sources[number] for number in _apart(centres, len(theme.sources))]
    _scatter(axes, shown, np.array(colours)[shown.topics])
    labels = {
        axes.text(
            float(x),
            float(y),
            name,
            ha="center",
            va="center",
            fontsize=8,
            fontweight="bold",
            color=theme.ink,
            zorder=3,
            bbox={"facecolor": theme.background, "edgecolor": colour, "alpha": 0.86, "pad": 1.6, "linewidth": 1.2},
        ): colour
        for topic, ((x, y), name, colour) in enumerate(zip(centres, shown.names, colours, strict=True))
        if (shown.topics == topic).mean() >= _LEAST_SHARE
    }
    set_title(axes, f"What {len(shown.places):,} images show: {len(shown.names)} topics", theme)
    with any_script():
        _separate(figure, axes, labels)
    return to_png(figure)


def map_by_source(shown: SampleMap, theme: Theme = LIGHT) -> bytes:
    """The map with the sources coloured, as PNG."""
    if not len(shown.places):
        return placeholder(_EMPTY, theme)
    figure, axes = _empty_map(theme)
    sources = sorted(set(shown.sources))
    colours = {source: theme.sources[place % len(theme.sources)] for place, source in enumerate(sources)}
    _scatter(axes, shown, np.array([colours[source] for source in shown.sources]))
    for source in sources:
        axes.scatter([], [], s=30, color=colours[source], label=f"{source}: {list(shown.sources).count(source):,}")
    set_title(axes, "Where the images come from", theme)
    add_legend(axes, theme, columns=3)
    return to_png(figure)


def map_by_score(shown: SampleMap, theme: Theme = LIGHT) -> bytes:
    """The map with the similarity of image and original caption coloured, from the 2nd to the 98th %, as PNG."""
    if not len(shown.places):
        return placeholder(_EMPTY, theme)
    from matplotlib.colors import LinearSegmentedColormap

    figure, axes = _empty_map(theme)
    some = some_of(len(shown.places))
    scored = np.isfinite(shown.scores[some])
    axes.scatter(*_xy(shown.places[some[~scored]]), s=_size(len(some)), color=theme.grid, linewidths=0)
    if scored.any():
        colours = LinearSegmentedColormap.from_list("fit", [theme.bad, theme.original, theme.good])
        order = some[scored]
        low, high = np.percentile(shown.scores[order], [2, 98])
        # The worst are what one looks for: they are drawn last.
        order = order[np.argsort(-shown.scores[order], kind="stable")]
        points = axes.scatter(
            *_xy(shown.places[order]), s=_size(len(some)), c=shown.scores[order], cmap=colours, vmin=low, vmax=high,
            linewidths=0,
        )  # fmt: skip
        bar = figure.colorbar(points, ax=axes, shrink=0.7, aspect=28, pad=0.01)
        bar.ax.tick_params(colors=theme.muted, labelcolor=theme.ink, labelsize=8.5)
        bar.outline.set_visible(False)
        bar.set_label("similarity of image and original caption", color=theme.muted, fontsize=9)
    set_title(axes, "How well the original captions fit", theme)
    return to_png(figure)


def _empty_map(theme: Theme) -> tuple[Figure, Axes]:
    figure, axes = new_figure(HEIGHT, theme)
    axes.set_xticks([])
    axes.set_yticks([])
    axes.spines[["left", "bottom"]].set_visible(False)
    axes.margins(0.06)
    return figure, axes


def _size(count: int) -> float:
    return float(np.clip(20_000 / count, 2, 34))


def _scatter(axes: Axes, shown: SampleMap, colours: NDArray[np.str_]) -> None:
    order = some_of(len(shown.places))
    axes.scatter(*_xy(shown.places[order]), s=_size(len(order)), c=list(colours[order]), alpha=0.75, linewidths=0)


def _xy(places: NDArray[np.floating]) -> tuple[NDArray[np.floating], NDArray[np.floating]]:
    return places[:, 0], places[:, 1]


def _middle(places: NDArray[np.floating]) -> NDArray[np.floating]:
    """The place of the sample nearest to the median: of a topic in two parts, the middle may be empty."""
    return places[np.argmin(((places - np.median(places, axis=0)) ** 2).sum(axis=1))]


def _apart(centres: NDArray[np.floating], colours: int) -> list[int]:
    """A colour for each centre, so that those that share one are far from each other."""
    chosen: list[int] = []
    for centre in centres:
        distances = np.linalg.norm(centres[: len(chosen)] - centre, axis=1)
        nearest = [distances[np.array(chosen, int) == colour].min(initial=np.inf) for colour in range(colours)]
        chosen.append(int(np.argmax(nearest)))
    return chosen


def _separate(figure: Figure, axes: Axes, labels: Mapping[Text, str]) -> None:
    """Moves labels above what they name, or further until none covers another, with a line to where each belongs."""
    figure.draw_without_rendering()
    figure.set_layout_engine("none")
    to_data = axes.transData.inverted()
    within = figure.bbox
    taken: list[tuple[float, float, float, float]] = []
    for label, colour in labels.items():
        box = label.get_window_extent()
        left = min(max(box.x0, within.x0 + 8), within.x1 - box.width - 8)
        step = box.height + 5
        for move in sorted(range(-12, 13), key=lambda place: (abs(place - 1), place)):
            bottom = box.y0 + move * step
            spot = (left - 5, bottom - 3, left + box.width + 5, bottom + box.height + 3)
            free = all(
                spot[2] <= other[0] or other[2] <= spot[0] or spot[3] <= other[1] or other[3] <= spot[1]
                for other in taken
            )
            if free and axes.bbox.y0 <= spot[1] and spot[3] <= axes.bbox.y1:
                break
        taken.append(spot)
        old = label.get_position()
        x, y = to_data.transform(((spot[0] + spot[2]) / 2, (spot[1] + spot[3]) / 2)).tolist()
        label.set_position((x, y))
        axes.plot((old[0], x), (old[1], y), color=colour, linewidth=1, zorder=2.5)
