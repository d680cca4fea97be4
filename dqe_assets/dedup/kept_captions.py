"""What captions are compared by, kept for each shard and source in files that can be mapped, and what was found.

All of it can be made again from the store. A file of a shard is named by it and by what it was made from. Each file is
written whole or not at all, and made again where it is not what was written: so whatever is killed, added, changed or
removed, what is read is right.
"""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc

from dqe_assets.caption.texts import caption_asset, source_captions
from dqe_assets.core.kept_tables import keep_table, kept_table
from dqe_assets.dedup.caption_duplicates import (
    NOTHING_KNOWN,
    WORDED_CAPTIONS,
    Known,
    SourceCaptions,
    worded_captions,
)
from dqe_resources.cache import data_directory
from dqe_resources.fingerprint import fingerprint

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence
    from pathlib import Path

    from dqe_assets.core.work import Work

VERSION = "4"
"""To be raised when captions are compared in another way: the code version of ``caption_duplicates``."""

_KNOWN = pa.schema(
    [
        pa.field("texts", pa.string()),
        pa.field("compared", pa.large_list(pa.uint64())),
        pa.field("components", pa.large_list(pa.int64())),
    ]
)


def kept_captions(work: Work, sources: Sequence[str]) -> dict[str, SourceCaptions]:
    """The captions of each source over all shards. What is not kept yet is made, and what is not needed any more goes.

    Args:
        work: reads ``raw_samples``, ``caption_signatures`` and the synthetic captions; where it is forced, nothing that
            is kept is used.
        sources: the caption sources.
    """
    if work.force:
        shutil.rmtree(_folder(), ignore_errors=True)
    # Named before captions are read: later changes were not looked at.
    paths = {(shard, source): _path(work.of_shard(shard), source) for shard in work.shards for source in sources}
    tables: dict[str, list[pa.Table]] = {source: [] for source in sources}
    for shard in work.shards:
        found = {source: kept_table(paths[shard, source], WORDED_CAPTIONS) for source in sources}
        missing = [source for source, table in found.items() if table is None]
        if missing:
            signed = work.of_shard(shard).read("caption_signatures")
            for source in missing:
                of_source = signed.filter(pc.equal(signed["caption_source"], source))
                made = worded_captions(of_source, source_captions(work.of_shard(shard), source))
                keep_table(paths[shard, source], made)
                # Mapped, it takes no memory.
                found[source] = kept_table(paths[shard, source], WORDED_CAPTIONS)
        for source, table in found.items():
            tables[source].append(table)
    _remove_others({*paths.values(), *map(_known_path, sources)})
    return {source: SourceCaptions(of_source) for source, of_source in tables.items()}


def known_of(source: str) -> Known:
    """What was found of a source the last time."""
    table = kept_table(_known_path(source), _KNOWN)
    if table is None:
        return NOTHING_KNOWN
    compared, components = (table[name].chunk(0).values.to_numpy() for name in ("compared", "components"))
    return Known(compared.reshape(2, -1), table["texts"][0].as_py(), components)


def keep_known(source: str, known: Known) -> None:
    """Keep what was found of a source for the next time."""
    lists = [
        pa.LargeListArray.from_arrays([0, numbers.size], pa.array(numbers.ravel()))
        for numbers in (known.compared, known.components)
    ]
    keep_table(_known_path(source), pa.table([pa.array([known.texts]), *lists], schema=_KNOWN))


def places_of(uids: Collection[str]) -> list[tuple[Path, int]]:
    """The files that have any of these samples, and how many of them."""
    found = []
    for path in sorted(_folder().glob("*/*.arrow")):
        if (table := kept_table(path, WORDED_CAPTIONS)) is not None:
            there = pc.is_in(table["uid"], value_set=pa.array(sorted(uids), pa.string()))
            found += [(path, count)] if (count := pc.sum(there).as_py()) else []
    return found


def _folder() -> Path:
    return data_directory() / "duplicates" / "captions"


def _path(work: Work, source: str) -> Path:
    version = fingerprint(VERSION, *(work.version_of(asset) for asset in ("caption_signatures", caption_asset(source))))
    return _folder() / source / f"{work.partition}.{version}.arrow"


def _known_path(source: str) -> Path:
    return _folder() / source / f"known.{VERSION}.arrow"


def _remove_others(wanted: Collection[Path]) -> None:
    for path in _folder().rglob("*"):
        if path not in wanted and path.is_file() and not path.name.startswith("."):
            path.unlink(missing_ok=True)
