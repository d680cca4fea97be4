"""Captions that several samples share, over all shards."""

from __future__ import annotations

from contextlib import ExitStack
from typing import IO, TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from dqe_assets.caption.texts import shard_captions, source_captions
from dqe_assets.core.checks import complete, finite, unique
from dqe_assets.core.shard_rows import ShardRows
from dqe_assets.core.stage import Stage, stage
from dqe_assets.core.uids import packed_uids
from dqe_assets.dedup import metadata
from dqe_assets.dedup.caption_duplicates import SourceCaptions, caption_clusters, signature_table, signed_captions
from dqe_assets.dedup.caption_text import HASHES
from dqe_assets.dedup.checks import one_representative
from dqe_assets.dedup.near_texts import NOTHING_KNOWN
from dqe_assets.dedup.tables import CAPTION_DUPLICATES, CAPTION_SIGNATURES
from dqe_resources.cache import data_directory, scratch_file
from dqe_resources.store import replace_file

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from dqe_assets.caption.settings import CaptionSources
    from dqe_assets.core.work import Work

_FORM = "1"


def caption_signatures_of(synthetic: Sequence[Stage]) -> Stage:
    """The asset ``caption_signatures``, of the captions of these stages."""

    @stage(
        kinds={"parquet", "python"},
        code_version="1",
        schema=CAPTION_SIGNATURES,
        inputs=["raw_samples", *(captions.name for captions in synthetic)],
        checks=[unique("uid", "caption_source"), complete(rows_each=1 + len(synthetic))],
        metadata=metadata.caption_signatures,
    )
    def caption_signatures(work: Work, captions: CaptionSources) -> pa.Table:
        """What tells of a shard's captions which are the same, and nearly the same, without reading them again."""
        return signature_table(work.read("raw_samples", ["uid"])["uid"], shard_captions(work, captions))

    return caption_signatures


def caption_duplicates_of(synthetic: Sequence[Stage]) -> Stage:
    """The asset ``caption_duplicates``, over the captions of these stages."""

    @stage(
        kinds={"parquet", "python"},
        code_version="3",
        schema=CAPTION_DUPLICATES,
        resources={"min_jaccard": "duplicates.min_jaccard"},
        inputs=["raw_samples", *(captions.name for captions in synthetic), "caption_signatures"],
        partitioned=False,
        checks=[
            unique("uid", "caption_source", "kind"),
            one_representative("caption_source", "kind", "cluster"),
            finite("similarity", 0, 1),
        ],
        metadata=metadata.caption_duplicates,
    )
    def caption_duplicates(work: Work, captions: CaptionSources, min_jaccard: float) -> pa.Table:
        """Captions that are given to several images in the same words, or nearly: what says little of any of them."""
        with ExitStack() as stack:
            files = {source: stack.enter_context(scratch_file()) for source in captions.names}
            signed = _signed(work, files)
            tables = [_clusters(work, source, found, min_jaccard) for source, found in signed.items()]
        _remove_others(captions.names)
        return pa.concat_tables([CAPTION_DUPLICATES.empty_table(), *tables])

    return caption_duplicates


def _clusters(work: Work, source: str, found: SourceCaptions, min_jaccard: float) -> pa.Table:
    """The clusters of a source; what captions were compared is kept for the next time."""
    path = _kept(source)
    known = np.load(path, mmap_mode="r") if path.exists() and not work.force else NOTHING_KNOWN
    table, compared = caption_clusters(source, found, min_jaccard, known)
    replace_file(path, lambda target: np.save(target, compared))
    return table


def _kept(source: str) -> Path:
    """Where is kept which captions of a source were compared, and how much they share."""
    return data_directory() / "duplicates" / "captions" / f"{source}.{_FORM}.npy"


def _remove_others(sources: Sequence[str]) -> None:
    wanted = {_kept(source) for source in sources}
    for path in _kept("").parent.glob("*.npy"):
        if path not in wanted:
            path.unlink(missing_ok=True)


def _signed(work: Work, files: dict[str, IO[bytes]]) -> dict[str, SourceCaptions]:
    """The signed captions of each source over all shards, their signatures in its file."""
    digests: dict[str, list[NDArray[np.uint64]]] = {source: [np.empty((0, 2), np.uint64)] for source in files}
    rows: dict[str, list[NDArray[np.int64]]] = {source: [] for source in files}
    for table in work.scan("caption_signatures", ["caption_source", "text_digest", "signature"]):
        for source, file in files.items():
            worded, found, signatures = signed_captions(table.filter(pc.equal(table["caption_source"], source)))
            rows[source].append(worded)
            digests[source].append(found)
            file.write(signatures.data)
    return {
        source: _source_captions(work, source, rows[source], np.concatenate(digests[source]), file)
        for source, file in files.items()
    }


def _source_captions(
    work: Work, source: str, rows: list[NDArray[np.int64]], digests: NDArray[np.uint64], file: IO[bytes]
) -> SourceCaptions:
    """Signed captions that are read from the store when they are asked for; ``rows`` are those of each shard."""
    file.flush()
    numbers = ShardRows(work.shards, [len(part) for part in rows])
    shards = [work.of_shard(shard) for shard in work.shards]

    def captions(wanted: NDArray[np.int64]) -> list[str]:
        found: list[str] = []
        for shard, places in numbers.by_shard(wanted):
            found += source_captions(shards[shard], source, rows[shard][places].tolist()).to_pylist()
        return found

    def uids(wanted: NDArray[np.int64]) -> NDArray[np.bytes_]:
        found = [pa.chunked_array([], pa.string())]
        for shard, places in numbers.by_shard(wanted):
            found.append(shards[shard].read_rows("raw_samples", rows[shard][places].tolist(), ["uid"])["uid"])
        return packed_uids(pa.chunked_array([chunk for column in found for chunk in column.chunks], pa.string()))

    signatures = np.empty((0, HASHES), np.uint8)
    if len(digests):
        signatures = np.memmap(file, np.uint8, "r", shape=(len(digests), HASHES))
    return SourceCaptions(digests, signatures, captions, uids)
