"""The captions of a shard, from every caption source."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dqe_assets.caption.normalise import normalise_captions
from dqe_assets.core.schema import ORIGINAL, SYNTHETIC_CAPTIONS_PREFIX

if TYPE_CHECKING:
    import pyarrow as pa

    from dqe_assets.caption.settings import CaptionSources
    from dqe_assets.core.work import Work


def shard_captions(work: Work, captions: CaptionSources) -> dict[str, pa.Array]:
    """A shard's captions by caption source, in the order of the samples: what is embedded and searched.

    Raises:
        StorageError: a table is not there, torn, or of another schema.
    """
    original = work.read("raw_samples", ["caption"])["caption"].combine_chunks()
    synthetic = {
        name: work.read(SYNTHETIC_CAPTIONS_PREFIX + name, ["caption"])["caption"].combine_chunks()
        for name in captions.captioners
    }
    return {ORIGINAL: normalise_captions(original), **synthetic}
