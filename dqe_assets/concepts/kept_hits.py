"""What each shard shows, as numbers, kept in files that can be mapped: of the names, those of a new shard are read.

All of it can be made again from ``concept_hits``. A file is named by the shard, by what that was made from, and by the
concepts. It is written whole or not at all, and made again where it cannot be read.
"""

from __future__ import annotations

from functools import reduce
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc

from dqe_assets.concepts.corpus import CorpusHits, numbered
from dqe_assets.core.kept_tables import keep_table, kept_table
from dqe_resources.cache import data_directory
from dqe_resources.fingerprint import fingerprint

if TYPE_CHECKING:
    from collections.abc import Collection
    from pathlib import Path

    from dqe_assets.caption.settings import CaptionSources
    from dqe_assets.concepts.settings import ConceptLists
    from dqe_assets.core.work import Work

ASSET = "concept_hits"

_FORM = "1"


def corpus_hits(work: Work, lists: ConceptLists, captions: CaptionSources) -> CorpusHits:
    """What the samples of all shards show; what is kept of shards and concepts as they were before goes.

    Args:
        work: reads ``concept_hits``; where it is forced, all that is kept goes.
        lists: the concepts, and how they are counted.
        captions: the caption sources.

    Raises:
        ConceptsError: a list cannot be read.
        StorageError: a shard is not there.
    """
    counting = lists.counting()
    by = fingerprint(_FORM, counting.digest, list(captions.names))
    # Taken before hits are read: later changes were not looked at.
    versions = {shard: work.of_shard(shard).version_of(ASSET) for shard in work.shards}
    paths = {shard: _folder() / f"{shard}.{version}.{by}.arrow" for shard, version in versions.items()}
    _remove_others(work, set() if work.force else set(paths.values()))

    def hits_of(shard: str) -> pa.Table:
        found = kept_table(paths[shard])
        if found is None:
            found = numbered(shard, work.of_shard(shard).read(ASSET), counting, captions.names)
            keep_table(paths[shard], found)
        return found

    return CorpusHits(counting, captions.names, lambda: ((shard, hits_of(shard)) for shard in work.shards))


def places_of(uids: Collection[str]) -> list[tuple[Path, int]]:
    """The files that say what any of these samples shows, and of how many of them."""
    wanted, found = pa.array(sorted(uids), pa.string()), []
    for path in sorted(_folder().glob("*.arrow")):
        if (table := kept_table(path)) is not None:
            shown = reduce(pc.or_, [lists.is_valid() for lists in table.drop_columns(["uid"]).columns])
            count = pc.sum(pc.and_(shown, pc.is_in(table["uid"], value_set=wanted))).as_py() or 0
            found += [(path, count)] if count else []
    return found


def _remove_others(work: Work, wanted: set[Path]) -> None:
    for path in _folder().glob("*.arrow"):
        # Of shards that are left out nothing is known.
        if path not in wanted and path.name.rsplit(".", 3)[0] not in work.left_out:
            path.unlink(missing_ok=True)


def _folder() -> Path:
    return data_directory() / "concepts"
