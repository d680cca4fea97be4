"""The first stage: rows of a source become raw samples."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dqe_assets.core.stage import stage
from dqe_assets.ingest import metadata
from dqe_assets.ingest.checks import RAW_SAMPLES_CHECKS
from dqe_assets.ingest.raw import raw_samples as make_raw_samples
from dqe_assets.ingest.remote import Fetches
from dqe_assets.ingest.tables import RAW_SAMPLES
from dqe_assets.ingest.takedowns.matching import ROW_COLUMNS
from dqe_assets.ingest.takedowns.shard import ShardTakedowns, stored_hashes
from dqe_assets.ingest.views import RELATIONS

if TYPE_CHECKING:
    import pyarrow as pa

    from dqe_assets.core.work import Batches, Work
    from dqe_assets.ingest.settings import IngestSettings
    from dqe_resources.store import Stamp


def _source_state(work: Work, ingest: IngestSettings) -> Any:
    source = ingest.source_of(work.partition or "")
    return [
        source.signature(),
        source.shard(work.partition or "").digest,
        ingest.images.model_dump(),
        ingest.fetching.placeholders.model_dump(),
    ]


def _found(table: pa.Table) -> Any:
    """The images that the web gave: asked again, it may give others."""
    return table.select(["uid", "sha256", "reason"]).to_pydict()


def _takedowns_are_honoured(work: Work, _: Stamp, ingest: IngestSettings) -> bool:
    matcher, shard = ingest.matcher(work.store), work.partition or ""
    if not matcher:
        return True
    rows = work.read("raw_samples", ROW_COLUMNS)
    return matcher.is_honoured(rows, stored_hashes(work.store, shard, matcher))


def _is_fetched(work: Work, ingest: IngestSettings) -> bool:
    """Whether hosts are asked: what may be asked of a host is kept by each process for itself."""
    return ingest.source_of(work.partition or "").fetches


@stage(
    kinds={"parquet", "python"},
    relations=RELATIONS,
    code_version="3",
    schema=RAW_SAMPLES,
    checks=RAW_SAMPLES_CHECKS,
    metadata=metadata.raw_samples,
    signature=_source_state,
    is_valid=_takedowns_are_honoured,
    apart=_is_fetched,
    content=_found,
)
def raw_samples(work: Work, ingest: IngestSettings) -> Batches:
    """Every row of the source's shard with its image, or with the reason why it has none."""
    source = ingest.source_of(work.partition or "")
    shard = source.shard(work.partition or "")
    takedowns = ShardTakedowns(ingest.matcher(work.store), work.store, source.key(shard.index), work.log)
    yield from make_raw_samples(
        lambda: source.rows(shard.index),
        source=source.name,
        shard=source.key(shard.index),
        limits=ingest.images,
        takedowns=takedowns,
        fetch=lambda wanted: Fetches(work, ingest, wanted, shard.rows),
        track=lambda rows: work.track(rows, shard.rows),
    )
    takedowns.finish()
