"""The first stage: rows of a source become raw samples."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dqe_assets import describe
from dqe_assets.ingest.checks import RAW_SAMPLES_CHECKS, shard_source
from dqe_assets.ingest.raw import raw_samples as make_raw_samples
from dqe_assets.stage import Work, stage

if TYPE_CHECKING:
    import pyarrow as pa


def _source_state(work: Work) -> Any:
    source = shard_source(work)
    return [source.signature(), source.shard(work.partition or "").digest, work.settings.images.model_dump()]


@stage(
    group="ingest",
    kinds={"parquet", "python"},
    code_version="1",
    checks=RAW_SAMPLES_CHECKS,
    describe=describe.raw_samples,
    signature=_source_state,
)
def raw_samples(work: Work) -> pa.Table:
    """Every row of the source's shard with its image, or with the reason why it has none."""
    source, limits = shard_source(work), work.settings.images
    shard = source.shard(work.partition or "")
    return make_raw_samples(
        work.track(source.rows(shard.index), shard.rows),
        source=source.name,
        shard=source.key(shard.index),
        max_bytes=limits.max_bytes,
        max_pixels=limits.max_pixels,
    )
