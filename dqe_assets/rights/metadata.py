"""The metadata of this asset in the UI."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pyarrow.compute as pc

from dqe_assets.core.metadata import Metadata, preview, ranking
from dqe_assets.rights.tables import SAID_IN_FILE

if TYPE_CHECKING:
    import pyarrow as pa

    from dqe_assets.core.work import Work


def rights(_: Work, table: pa.Table) -> Metadata:
    """How many rows have a licence, and how many image files say something, with the most frequent licences."""
    said = ("license", "attribution", *SAID_IN_FILE)
    return {
        **{f"with_{name}": len(table) - table[name].null_count for name in said},
        "with_c2pa": pc.sum(table["c2pa"]).as_py() or 0,
        "licences": ranking(table["license"], "licence"),
        "preview": preview(table, ["license", "notice", "creator", "data_mining", "c2pa"]),
    }
