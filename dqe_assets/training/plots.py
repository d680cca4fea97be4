"""Plots of a training run: its loss and its learning rate over the samples seen."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dqe_assets.core.figures import LIGHT, add_legend, new_figure, placeholder, plain, set_title, to_png
from dqe_assets.scaling.recommendation import amount

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

    from dqe_assets.core.figures import Theme


def loss_curve(title: str, log: Sequence[Mapping[str, Any]], checkpoints: Sequence[int], theme: Theme = LIGHT) -> bytes:
    """The training loss, the learning rate and the checkpoints over the samples seen, as PNG.

    Args:
        title: of the run.
        log: the lines of its log, with ``samples_seen``, ``loss`` and ``learning_rate``.
        checkpoints: samples seen at each checkpoint.
        theme: the colours.
    """
    if not log:
        return placeholder("no log", theme)
    seen = [line["samples_seen"] for line in log]
    figure, axes = new_figure(3.2, theme)
    (loss,) = axes.plot(seen, [line["loss"] for line in log], color=theme.sources[0], linewidth=1.8, label="loss")
    for at in checkpoints:
        axes.axvline(at, color=theme.grid, linewidth=1, zorder=0)
    rates = axes.twinx()
    (rate,) = rates.plot(
        seen,
        [line["learning_rate"] for line in log],
        color=theme.muted,
        linewidth=1.2,
        linestyle="--",
        label="learning rate (right)",
    )
    rates.tick_params(colors=theme.muted, labelsize=8)
    rates.set_ylim(bottom=0)
    rates.spines[:].set_visible(False)
    axes.xaxis.set_major_formatter(lambda seen, _: amount(seen))
    axes.set_xlabel("samples seen")
    axes.set_ylabel("training loss")
    set_title(axes, plain(title), theme)
    add_legend(axes, theme, columns=2, handles=[loss, rate])
    return to_png(figure)
