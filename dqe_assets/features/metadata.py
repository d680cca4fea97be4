"""The metadata of these assets in the UI: figures, a preview, and plots."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dqe_assets.core.figures import histograms
from dqe_assets.core.metadata import Metadata, picture, preview, ranking, valid_values

if TYPE_CHECKING:
    import pyarrow as pa

    from dqe_assets.core.work import Work


def image_features(_: Work, table: pa.Table) -> Metadata:
    """How light, sharp and colourful the images are, and what they show most."""
    measured = ("brightness", "contrast", "sharpness", "colourfulness")
    return {
        "images": len(table) - table["embedding"].null_count,
        "most_frequent_labels": ranking(table["top_label"], "label"),
        "features": picture(
            histograms({name: valid_values(table[name]) for name in measured}), "brightness to colourfulness"
        ),
        "preview": preview(table, ["top_label", "brightness", "sharpness", "colourfulness", "colours"]),
    }
