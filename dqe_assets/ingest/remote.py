"""The part of a shard that is fetched: what is kept of it, what is asked for again, and when it is given up."""

from __future__ import annotations

from itertools import chain
from typing import TYPE_CHECKING

from dqe_assets.ingest.kept import Kept
from dqe_resources.storage import StorageError

if TYPE_CHECKING:
    from collections import Counter
    from collections.abc import Iterator

    from dqe_assets.ingest.fetch.shard import Canary
    from dqe_assets.ingest.rows import SourceRow
    from dqe_assets.stage import Work


def fetched_rows(work: Work, wanted: Iterator[tuple[str, SourceRow]], shard_rows: int) -> tuple[Kept, frozenset[str]]:
    """Fetch what is not kept from before: from an unfinished run, or from the shard's table as it was.

    Args:
        work: the shard.
        wanted: the rows to be fetched, with their uids.
        shard_rows: rows in the shard.

    Returns:
        The outcomes of all of them, and the digests of what is a placeholder.

    Raises:
        CanaryError: too few of the source's first rows have an image.
        StorageError: the store cannot be written.
    """
    # Only a shard with something to fetch has to load what fetches it.
    from dqe_assets.ingest.fetch.shard import fetch_rows

    settings = work.settings
    kept = _kept_before(work)
    canary = _canary(work, shard_rows, len(kept))
    captions: dict[str, str | None] = {}

    def missing() -> Iterator[tuple[str, SourceRow]]:
        for uid, row in wanted:
            captions[uid] = row.caption
            if not kept.has(uid, row.url):
                yield uid, row

    rows = missing()
    first = next(rows, None)
    if first is not None:
        meter, before = work.meter(shard_rows), len(kept)
        fetch_rows(
            chain([first], rows),
            settings.fetching,
            settings.images,
            work.checkpoint,
            canary,
            lambda reasons: meter.update(before + reasons.total(), _in_words(reasons)),
        )
        kept.add_checkpoint(work.checkpoint)
    rules = settings.fetching.placeholders
    return kept, kept.placeholders(captions, rules.same_bytes) | frozenset(rules.sha256)


def _kept_before(work: Work) -> Kept:
    kept = Kept()
    try:
        if work.store.get(work.asset, work.partition) is not None:
            kept.add_stored(work.store, work.asset, work.partition or "", work.settings.refetch)
    except StorageError as error:
        work.log(f"{error}: all rows of the shard are fetched again")
    kept.add_checkpoint(work.checkpoint)
    return kept


def _canary(work: Work, shard_rows: int, kept: int) -> Canary | None:
    """What a source must pass before its first shard is fetched; a shard no larger than that needs only its check."""
    from dqe_assets.ingest.fetch.shard import Canary

    source = work.settings.source_of(work.partition or "")
    rows = work.settings.fetching.canary_rows
    if not kept < rows < shard_rows or work.store.has_any(work.asset, f"{source.name}-"):
        return None
    return Canary(source.name, rows, source.min_success_rate)


def _in_words(reasons: Counter[str]) -> str:
    """The most frequent reasons: ``ok 3,120, http_404 410, dns 33``."""
    ranking = sorted(reasons.items(), key=lambda item: (item[0] != "ok", -item[1], item[0]))
    return ", ".join(f"{reason} {count:,}" for reason, count in ranking[:5])
