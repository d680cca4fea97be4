"""Who has the rights to each image."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pyarrow as pa

from dqe_assets.core.checks import complete, unique
from dqe_assets.core.stage import stage
from dqe_assets.rights import metadata
from dqe_assets.rights.extract import COLUMNS
from dqe_assets.rights.extract import rights as rights_of
from dqe_assets.rights.tables import RIGHTS
from dqe_assets.rights.views import RELATIONS

if TYPE_CHECKING:
    from dqe_assets.core.work import Work
    from dqe_assets.ingest.settings import IngestSettings

_ROWS_AT_ONCE = 256


def _what_the_source_says(work: Work, ingest: IngestSettings) -> Any:
    source = ingest.source_of(work.partition or "")
    return [source.license, source.license_column, source.attribution_column]


@stage(
    kinds={"parquet", "python"},
    code_version="1",
    schema=RIGHTS,
    inputs=["raw_samples"],
    checks=[unique("uid"), complete()],
    metadata=metadata.rights,
    signature=_what_the_source_says,
    relations=RELATIONS,
)
def rights(work: Work, ingest: IngestSettings) -> pa.Table:
    """Licence and attribution of each row, and what its image file says: copyright, author, data mining, C2PA."""
    source = ingest.source_of(work.partition or "")
    batches = work.batches("raw_samples", COLUMNS, _ROWS_AT_ONCE)
    return pa.concat_tables([RIGHTS.empty_table(), *(rights_of(batch, source) for batch in batches)])
