"""The metadata of these assets in the UI: pictures, and how to open the view."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dqe_assets.core.figures import contact_sheet
from dqe_assets.core.metadata import SHEET_IMAGES, Markdown, Metadata, picture

if TYPE_CHECKING:
    import pyarrow as pa

    from dqe_assets.core.work import Manifest, Work

PORT = 5055
"""Where ``dqe view`` listens, unless it is told otherwise."""


def thumbnails(work: Work, output: pa.Table) -> Metadata:
    """The first of them."""
    first = range(min(SHEET_IMAGES, output.num_rows))
    made = work.read_rows("thumbnails", first, ["thumbnail"])["thumbnail"].drop_null().to_pylist()
    return {"pictures": picture(contact_sheet(made), "the first of the images")}


def sample_view(_: Work, output: Manifest) -> Metadata:
    """How to open it, where it then is, and what it is made of."""
    address = f"http://127.0.0.1:{PORT}"
    return {
        "open": Markdown(f"`dqe view`, then [{address}]({address})"),
        "samples_shown": output.rows,
        "columns": output.facts["columns"],
        "file": output.facts["path"],
    }
