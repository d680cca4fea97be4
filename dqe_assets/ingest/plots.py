"""Plots of raw samples: what became of the rows, in all and at the hosts where most failed."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from dqe_assets.core.figures import (
    LIGHT,
    Theme,
    add_legend,
    new_figure,
    percent,
    placeholder,
    set_title,
    text_style,
    to_png,
)
from dqe_assets.ingest.fetch.reasons import OK
from dqe_assets.ingest.outcomes import host_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    import pyarrow as pa


def status_bars(reasons: Mapping[str, int], theme: Theme = LIGHT) -> bytes:
    """Samples by reason, ``ok`` first and apart, as PNG.

    Args:
        reasons: samples of each reason.
        theme: the colours.
    """
    ordered = sorted(reasons.items(), key=lambda item: (item[0] != OK, -item[1], item[0]))
    if not sum(reasons.values()):
        return placeholder("no samples", theme)
    figure, axes = new_figure(0.9 + 0.34 * len(ordered), theme)
    names, counts = zip(*ordered, strict=True)
    colours = [theme.good if name == OK else theme.bad for name in names]
    places = range(len(names))
    axes.barh(places, counts, height=0.66, color=colours)
    total = sum(counts)
    for place, count in zip(places, counts, strict=True):
        axes.text(
            count + 0.012 * max(counts),
            place,
            f"{count:,}  ({percent(count, total)})",
            va="center",
            **text_style(theme),
        )
    axes.set_yticks(places, [name.replace("_", " ") for name in names])
    axes.invert_yaxis()
    axes.set_xlim(0, max(counts) * 1.2)
    axes.set_xticks([])
    axes.spines["bottom"].set_visible(False)
    set_title(axes, f"{total:,} samples: can the image be read?", theme)
    return to_png(figure)


_MOST_HOSTS = 10
_MOST_REASONS = 5
_LONGEST_HOST = 32


def fetch_outcomes(table: pa.Table, theme: Theme = LIGHT) -> bytes:
    """What became of the rows that have a URL, in all and at the hosts where most failed, as PNG.

    A bar for each, divided by reason: ``ok``, the five most frequent others, the rest together.

    Args:
        table: rows of ``raw_samples``, with at least url and reason.
        theme: the colours.
    """
    by_host: dict[str, Counter[str]] = {}
    for url, reason in zip(table["url"].to_pylist(), table["reason"].to_pylist(), strict=True):
        if host := host_of(url):
            by_host.setdefault(host, Counter())[reason] += 1
    if not by_host:
        return placeholder("no URLs", theme)
    total: Counter[str] = sum(by_host.values(), Counter())
    failed = [reason for reason, _ in sorted(total.items(), key=lambda item: (-item[1], item[0])) if reason != OK]
    shown, others = failed[:_MOST_REASONS], failed[_MOST_REASONS:]
    worst = sorted(by_host, key=lambda host: (by_host[host][OK] - by_host[host].total(), host))[:_MOST_HOSTS]
    bars = [(_name(host), by_host[host]) for host in worst]
    if len(by_host) > 1:
        bars.insert(0, (f"all {len(by_host):,} hosts", total))

    figure, axes = new_figure(1.5 + 0.34 * len(bars), theme)
    segments = [(OK, [OK], theme.good)]
    palette = [colour for colour in theme.sources if colour != theme.good]
    segments += [(reason, [reason], palette[place % len(palette)]) for place, reason in enumerate(shown)]
    segments += [(f"{len(others)} other reasons", others, theme.muted)] if others else []
    places = [0.0, *(place + 0.35 for place in range(1, len(bars)))]
    left = [0.0] * len(bars)
    for label, reasons, colour in segments:
        shares = [100 * sum(counts[reason] for reason in reasons) / counts.total() for _, counts in bars]
        entry = f"{label.replace('_', ' ')}: {sum(total[reason] for reason in reasons):,}"
        axes.barh(places, shares, left=left, height=0.66, color=colour, label=entry)
        left = [start + share for start, share in zip(left, shares, strict=True)]
    for place, (_, counts) in zip(places, bars, strict=True):
        text = f"{counts.total():,} rows, {100 * counts[OK] / counts.total():.2g} % ok"
        axes.text(101.5, place, text, va="center", **text_style(theme))
    axes.set_yticks(places, [name for name, _ in bars])
    axes.invert_yaxis()
    axes.set_xlim(0, 136)
    axes.set_xticks([0, 25, 50, 75, 100], ["0", "25", "50", "75", "100 %"])
    axes.spines["bottom"].set_bounds(0, 100)
    where = ", by host" if len(bars) > 1 else ""
    set_title(axes, f"What became of {total.total():,} URLs{where}", theme)
    add_legend(axes, theme, columns=3)
    return to_png(figure)


def _name(host: str) -> str:
    short = host if len(host) <= _LONGEST_HOST else f"…{host[1 - _LONGEST_HOST :]}"
    return short.replace("$", r"\$")
