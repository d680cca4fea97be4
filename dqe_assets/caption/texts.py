"""The captions of a shard, from every caption source."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dqe_assets.caption.normalise import normalise_captions
from dqe_assets.core.schema import ORIGINAL, SYNTHETIC_CAPTIONS_PREFIX

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pyarrow as pa

    from dqe_assets.caption.settings import CaptionSources
    from dqe_assets.core.work import Work


def shard_captions(work: Work, captions: CaptionSources) -> dict[str, pa.Array]:
    """A shard's captions by caption source, in the order of the samples: what is embedded and searched.

    Raises:
        StorageError: a table is not there, torn, or of another schema.
    """
    return {source: source_captions(work, source) for source in captions.names}


def source_captions(work: Work, source: str, rows: Sequence[int] | None = None, column: str = "caption") -> pa.Array:
    """A shard's captions of one source: of all samples, or of those in some rows, ascending.

    Args:
        work: the work.
        source: the caption source.
        rows: of which samples.
        column: of synthetic captions, the column to read.

    Raises:
        StorageError: as ``shard_captions``.
    """
    asset = caption_asset(source)
    column = "caption" if source == ORIGINAL else column
    table = work.read(asset, [column]) if rows is None else work.read_rows(asset, rows, [column])
    texts = table[column].combine_chunks()
    return normalise_captions(texts) if source == ORIGINAL else texts


def caption_asset(source: str) -> str:
    """The asset that has the captions of a source."""
    return "raw_samples" if source == ORIGINAL else SYNTHETIC_CAPTIONS_PREFIX + source
