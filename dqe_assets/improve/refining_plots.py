"""A plot of what asking again for captions gained."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pyarrow.compute as pc

from dqe_assets.core.figures import LIGHT, Theme, new_figure, placeholder, set_title, text_style, to_png

if TYPE_CHECKING:
    import pyarrow as pa


def similarity_by_round(answers: pa.Table) -> np.ndarray:
    """How well the captions that were asked for again fit before the first round and after each.

    Args:
        answers: ``REFINED_CAPTIONS``.

    Returns:
        float32 [rounds + 1, samples], NaN if there was no caption; a sample that is asked about no more keeps what
        it has.
    """
    uids = pc.unique(answers["uid"])
    rounds = pc.max(answers["round"]).as_py() or 0
    found = np.full((rounds + 1, len(uids)), np.nan, np.float32)
    places = pc.index_in(answers["uid"], value_set=uids).to_numpy()
    numbers, accepted = answers["round"].to_numpy(), answers["accepted"].to_numpy()
    before, after = (answers[name].to_numpy().astype(np.float32) for name in ("previous_similarity", "similarity"))
    found[0, places[numbers == 1]] = before[numbers == 1]
    for number in range(1, rounds + 1):
        found[number] = found[number - 1]
        taken = accepted & (numbers == number)
        found[number, places[taken]] = after[taken]
    return found


def similarity_before_and_after(answers: pa.Table, theme: Theme = LIGHT) -> bytes:
    """The similarity of the captions that were asked for again, before the first round and after each, as PNG.

    A box holds the middle half, its line is the median and the point the mean; whiskers reach to the 5th and the 95th
    percentile.

    Args:
        answers: ``REFINED_CAPTIONS``.
        theme: the colours.
    """
    found = similarity_by_round(answers)
    if not np.isfinite(found).any():
        return placeholder("no caption was asked for again", theme)
    figure, axes = new_figure(0.9 + 0.55 * len(found), theme)
    names = ["before", *(f"after round {number}" for number in range(1, len(found)))]
    for line, similarities in enumerate(found):
        values = similarities[np.isfinite(similarities)]
        if not values.size:
            continue
        colour = theme.original if line == 0 else theme.good
        lowest, low, median, high, highest = np.quantile(values, (0.05, 0.25, 0.5, 0.75, 0.95))
        axes.hlines(line, lowest, highest, color=colour, linewidth=1.4)
        axes.barh(line, high - low, 0.5, low, color=colour, alpha=0.45)
        axes.vlines(median, line - 0.25, line + 0.25, color=colour, linewidth=2)
        axes.plot(values.mean(), line, "o", color=theme.ink, markersize=4)
        axes.annotate(
            f"mean {values.mean():.3f}",
            (1.01, line),
            xycoords=("axes fraction", "data"),
            va="center",
            **text_style(theme),
        )
    axes.set_yticks(range(len(names)), names)
    axes.invert_yaxis()
    axes.set_xlabel("similarity of caption and image")
    axes.xaxis.grid(visible=True, color=theme.grid)
    set_title(axes, f"{found.shape[1]:,} captions that were asked for again", theme)
    return to_png(figure)
