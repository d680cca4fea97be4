"""Plots of filters: what two of them both keep, what each step leaves, and how much planted data is kept."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from dqe_assets.core.figures import (
    LIGHT,
    add_legend,
    bin_count,
    bin_edges,
    finite_only,
    new_figure,
    percent,
    placeholder,
    plain,
    text_style,
    to_png,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from numpy.typing import ArrayLike

    from dqe_assets.core.figures import Theme

_LONGEST = 64
"""Characters of a condition that are shown."""

_WHOLE = 100
"""From here on a number has no decimals."""

_CELL = 10
"""Characters of a column's name that fit above its cells."""

_LINE = 0.27
"""Inches of a bar with its label."""


def overlap_matrix(names: Sequence[str], both: ArrayLike, theme: Theme = LIGHT) -> bytes:
    """The share of what each filter keeps that each other keeps too, as PNG.

    Args:
        names: the filters, [f].
        both: samples that both of two filters keep, [f, f]; on the diagonal what each keeps.
        theme: the colours.
    """
    if not names:
        return placeholder("no filters", theme)
    counts = np.asarray(both, np.float64)
    kept = np.diag(counts)
    with np.errstate(invalid="ignore"):
        shares = counts / kept[:, None]
    rows = [f"{name}\n{int(count):,} kept" for name, count in zip(names, kept, strict=True)]
    figure, axes = new_figure(1.5 + 0.52 * len(names), theme, width=max(5.6, 2.6 + 0.85 * len(names)))
    _cells(axes, shares, rows, names, theme)
    _set_title(figure, "Of what a filter keeps, the share that another keeps too", theme)
    return to_png(figure)


def funnels(filters: Sequence[tuple[str, Sequence[tuple[str, int]]]], samples: int, theme: Theme = LIGHT) -> bytes:
    """How many samples each step of each filter leaves, as PNG.

    Args:
        filters: each filter's name and its steps in order: the condition, and how many samples are left after it.
        samples: how many there were.
        theme: the colours.
    """
    if not filters or not samples:
        return placeholder("no filters" if samples else "no samples", theme)
    lines = sum(len(steps) + 2 for _, steps in filters)
    figure, axes = new_figure(0.75 + _LINE * lines, theme, width=8.4)
    place = 0.0
    for name, steps in filters:
        axes.text(0, place, plain(name), color=theme.ink, fontsize=9.5, fontweight="bold", va="center")
        before = samples
        for condition, left in steps:
            place += 1
            share, was = 100 * left / samples, 100 * before / samples
            axes.barh(place, was, 0.78, color=theme.grid)
            axes.barh(place, share, 0.78, color=theme.good)
            label = f"{left:,} left ({share:.3g} %), {before - left:,} removed"
            axes.text(101.5, place, label, va="center", **text_style(theme))
            axes.text(-1.5, place, plain(_short(condition)), va="center", ha="right", **text_style(theme, muted=True))
            before = left
        place += 2
    axes.set_ylim(place - 1, -0.8)
    axes.set_xlim(0, 100)
    axes.set_axis_off()
    _set_title(figure, f"What each step leaves of {samples:,} samples with an image", theme)
    return to_png(figure)


def planted_shares(shares: Sequence[tuple[str, str, float]], theme: Theme = LIGHT) -> bytes:
    """The share that each filter keeps of what was planted in the sample, as PNG.

    Args:
        shares: filter, what was planted, and the share of it that the filter keeps, 0 to 1.
        theme: the colours.
    """
    if not shares:
        return placeholder("nothing was planted", theme)
    filters = list(dict.fromkeys(name for name, _, _ in shares))
    kinds = list(dict.fromkeys(kind for _, kind, _ in shares))
    cells = np.full((len(kinds), len(filters)), np.nan)
    for name, kind, share in shares:
        cells[kinds.index(kind), filters.index(name)] = share
    figure, axes = new_figure(1.1 + 0.31 * len(kinds), theme, width=max(5.2, 3.0 + 0.85 * len(filters)))
    _cells(axes, cells, kinds, filters, theme)
    _set_title(figure, "The share of what was planted that each filter keeps", theme)
    return to_png(figure)


def tail(
    name: str, ranks: Sequence[int], before: Sequence[int], after: Sequence[int], t: float, theme: Theme = LIGHT
) -> bytes:
    """How many samples show each concept before and after balancing, on logarithmic axes, as PNG.

    Args:
        name: of the filter.
        ranks: places of concepts, 1 is the most frequent.
        before: samples that show the concept at each place.
        after: of those that are kept, the samples that show the concept which is then at that place.
        t: how many samples of a concept were wanted.
        theme: the colours.
    """
    if not ranks:
        return placeholder("no concept is shown", theme)
    figure, axes = new_figure(3.6, theme)
    for label, counts, colour in (("before", before, theme.original), ("after", after, theme.good)):
        shown = [(rank, count) for rank, count in zip(ranks, counts, strict=True) if count]
        marker = "." if len(shown) < 3 else None
        most = f"{label}: {max(counts):,} at most"
        axes.plot(*zip(*shown, strict=True), color=colour, linewidth=2, marker=marker, label=most)
    axes.axhline(t, color=theme.muted, linewidth=1, linestyle=(0, (4, 3)))
    axes.text(
        1,
        t,
        f"t = {t:,.0f}" if t >= _WHOLE else f"t = {t:.3g}",
        transform=axes.get_yaxis_transform(),
        ha="right",
        va="bottom",
        **text_style(theme),
    )
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlabel("concepts, the most frequent first")
    axes.set_ylabel("samples that show the concept")
    axes.grid(visible=True, color=theme.grid)
    add_legend(axes, theme, columns=2)
    _set_title(figure, plain(_short(name)), theme)
    return to_png(figure)


def mixture(name: str, parts: Sequence[Mapping[str, Any]], theme: Theme = LIGHT) -> bytes:
    """The share of each part of a mixture, beside what its weight asks for, as PNG.

    Args:
        name: of the mixture.
        parts: each with part, share, weight_share, samples, drawn and repeats.
        theme: the colours.
    """
    figure, axes = new_figure(0.9 + 0.55 * len(parts), theme, width=8.4)
    for place, part in enumerate(parts):
        share = 100 * part["share"]
        axes.barh(place, share, 0.6, color=theme.good)
        axes.plot([100 * part["weight_share"]] * 2, [place - 0.38, place + 0.38], color=theme.ink, linewidth=1.6)
        said = f"{share:.3g} %: {part['drawn']:,} drawn of {part['samples']:,}, {part['repeats']:.3g} times each"
        axes.text(101.5, place, said, va="center", **text_style(theme))
        axes.text(-1.5, place, plain(_short(part["part"])), va="center", ha="right", **text_style(theme))
    axes.set_ylim(len(parts) - 0.4, -0.6)
    axes.set_xlim(0, 100)
    axes.set_axis_off()
    _set_title(figure, f"{plain(name)}: the share of each part, and by a line what its weight asks for", theme)
    return to_png(figure)


def coverage(name: str, distances: Mapping[str, Sequence[float]], theme: Theme = LIGHT) -> bytes:
    """How far samples are from the nearest that is kept, by a rule and at random, as PNG.

    Args:
        name: of the filter.
        distances: quantiles of 1 - the cosine, from the least to the largest, by ``cover`` and ``random``.
        theme: the colours.
    """
    figure, axes = new_figure(3.2, theme)
    for (label, found), colour in zip(distances.items(), (theme.good, theme.original), strict=True):
        shares = np.linspace(0, 100, len(found))
        axes.plot(shares, found, color=colour, linewidth=2, label=f"{label}: {found[-1]:.2f} at most")
    axes.set_xlabel("% of the samples, the best covered first")
    axes.set_ylabel("1 - cosine to the nearest kept")
    axes.grid(visible=True, color=theme.grid)
    add_legend(axes, theme, columns=2)
    _set_title(figure, plain(_short(name)), theme)
    return to_png(figure)


def caption_mix(similarities: Mapping[str, ArrayLike], mix: Mapping[str, Any], theme: Theme = LIGHT) -> bytes:
    """How original and synthetic captions fit, and from where on they are taken, as PNG.

    Args:
        similarities: of the original captions, first, and of the captioner's, [n] by name.
        mix: its name, threshold, samples, original, synthetic and dropped.
        theme: the colours.
    """
    finite = finite_only(similarities)
    if not all(map(len, finite.values())):
        return placeholder("no captions of one of the two", theme)
    figure, axes = new_figure(3.1, theme)
    everything = np.concatenate(list(finite.values()))
    edges = bin_edges(everything, bin_count(len(everything)))
    taken = (mix["original"], mix["synthetic"])
    for (name, values), colour, count in zip(finite.items(), (theme.original, theme.good), taken, strict=True):
        axes.hist(values, edges.tolist(), color=colour, alpha=0.6, label=f"{plain(name)}: {count:,} taken")
    axes.axvline(
        mix["threshold"], color=theme.ink, linewidth=1.2, linestyle="--", label=f"threshold {mix['threshold']:.3g}"
    )
    axes.set_xlabel("similarity of caption and image")
    axes.set_ylabel("captions")
    add_legend(axes, theme, columns=3)
    dropped = percent(mix["dropped"], max(mix["samples"], 1))
    _set_title(figure, f"{plain(mix['name'])}: {dropped} of {mix['samples']:,} samples have neither", theme)
    return to_png(figure)


def _set_title(figure: Figure, title: str, theme: Theme) -> None:
    """A title of the whole figure: long labels may leave little room above the axes."""
    figure.suptitle(title, x=0.012, ha="left", color=theme.ink, fontsize=10.5, fontweight="bold")


def _cells(axes: Axes, shares: np.ndarray, rows: Sequence[str], columns: Sequence[str], theme: Theme) -> None:
    """A table of shares, the larger the darker; a cell without a share is empty."""
    from matplotlib.colors import LinearSegmentedColormap

    colours = LinearSegmentedColormap.from_list("shares", [theme.background, theme.good])
    axes.imshow(np.nan_to_num(shares), cmap=colours, vmin=0, vmax=1.15, aspect="auto")
    for row, column in np.argwhere(np.isfinite(shares)):
        share = shares[row, column]
        ink = theme.background if share > 0.6 else theme.ink
        axes.text(column, row, f"{100 * share:.0f} %", ha="center", va="center", color=ink, fontsize=8.5)
    axes.set_xticks(range(len(columns)), [plain(name) for name in columns])
    axes.set_yticks(range(len(rows)), [plain(name) for name in rows])
    axes.tick_params(length=0, top=True, labeltop=True, bottom=False, labelbottom=False)
    if len(columns) > 1 and max(map(len, columns)) > _CELL:
        for label in axes.get_xticklabels():
            label.set(rotation=25, ha="left", va="bottom", rotation_mode="anchor")
    for line in np.arange(1, len(rows)) - 0.5:
        axes.axhline(line, color=theme.grid, linewidth=1)
    for line in np.arange(1, len(columns)) - 0.5:
        axes.axvline(line, color=theme.grid, linewidth=1)
    axes.spines[["left", "bottom"]].set_visible(False)


def _short(text: str) -> str:
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 1]}…"
