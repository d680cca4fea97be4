"""The metadata of these assets in the UI: figures, a preview, and plots."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dqe_assets.caption.views import COMPARISON
from dqe_assets.core.metadata import Markdown, Metadata, markdown_table, picture
from dqe_assets.filtering import plots as filter_plots

if TYPE_CHECKING:
    from dqe_assets.core.work import Manifest, Work
    from dqe_resources.warehouse import Warehouse


def warehouse(_: Work, output: Manifest, warehouse: Warehouse) -> Metadata:
    """How many samples of how many shards, the captioners side by side, what filters keep, and how to ask."""
    with warehouse.connect() as connection:
        captioners = connection.sql(COMPARISON).to_arrow_table()
        planted = connection.sql("SELECT filter, planted, share FROM filter_planted").fetchall()
    metadata: Metadata = {
        "database": str(warehouse.path),
        "samples": output.rows,
        "shards": len(output.facts["shards"]),
        "captioners": markdown_table(captioners.column_names, [list(row.values()) for row in captioners.to_pylist()]),
        "ask": Markdown('`dqe report`, or `dqe sql "SELECT * FROM worst_captions LIMIT 10"`'),
    }
    if planted:
        metadata["planted"] = picture(
            filter_plots.planted_shares(planted), "what each filter keeps of what was planted"
        )
    return metadata


def sample_gallery(_: Work, output: Manifest) -> Metadata:
    """Where the first page is, which pages there are, and how many samples they show."""
    return {"page": output.facts["path"], "pages": list(output.facts["pages"]), "samples_shown": output.rows}
