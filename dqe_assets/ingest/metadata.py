"""The metadata of these assets in the UI: figures, a preview, and plots."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from dqe_assets.core.figures import contact_sheet
from dqe_assets.core.metadata import SHEET_IMAGES, Metadata, picture, preview, value_counts
from dqe_assets.core.schema import has_image
from dqe_assets.ingest.plots import fetch_outcomes, status_bars

if TYPE_CHECKING:
    from dqe_assets.core.work import Work
    from dqe_assets.ingest.settings import IngestSettings


def raw_samples(work: Work, table: pa.Table, ingest: IngestSettings) -> Metadata:
    """Rows by reason, and by host where they were fetched, what is no row, a contact sheet and a preview."""
    reasons = value_counts(table["reason"])
    ok = reasons.get("ok", 0)
    shown = np.flatnonzero(has_image(table).to_numpy())[:SHEET_IMAGES].tolist()
    sheet = work.read_rows("raw_samples", shown, ["image", "caption"]).to_pylist()
    return {
        "ok": ok,
        "failed": table.num_rows - ok,
        "success_rate": round(ok / table.num_rows, 4) if table.num_rows else None,
        "reasons": picture(status_bars(reasons), "rows by reason"),
        **_fetching(table),
        "left_out": dict(ingest.source_of(work.partition or "").shard(work.partition or "").left_out.counts),
        "images": picture(
            contact_sheet([row["image"]["bytes"] for row in sheet], [row["caption"] or "" for row in sheet]),
            "the first images of the shard",
        ),
        "preview": preview(table, ["image_name", "caption", "format", "width", "height", "reason"]),
    }


def _fetching(table: pa.Table) -> Metadata:
    fetched = table.filter(pc.is_valid(table["attempts"]))
    if not fetched.num_rows:
        return {}
    return {
        "fetched": fetched.num_rows,
        "requests": pc.sum(fetched["attempts"]).as_py(),
        "outcomes": picture(fetch_outcomes(fetched), "rows by host, and what became of them"),
    }
