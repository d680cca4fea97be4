"""The part of a shard that is fetched: what is kept of it, what is asked for again, and when it is given up."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from itertools import chain, islice
from typing import TYPE_CHECKING

from dqe_assets.ingest.kept import Kept
from dqe_assets.ingest.outcomes import OUTCOMES, host_of
from dqe_resources.storage import StorageError, fingerprint

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from dqe_assets.ingest.fetch.shard import Canary, Wanted
    from dqe_assets.ingest.kept import Key
    from dqe_assets.stage import Work
    from dqe_resources.checkpoint import Checkpoint


def fetched_rows(work: Work, wanted: Iterator[Wanted], shard_rows: int) -> tuple[Kept, frozenset[str]]:
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
    # What was fetched stays good when the list or a setting has changed meanwhile: rows are known by uid and URL.
    checkpoint = replace(work.checkpoint, version=fingerprint(OUTCOMES.to_string()))
    kept = _kept_before(work, checkpoint)
    captions: dict[Key, str | None] = {}

    def missing(some: Iterable[Wanted]) -> Iterator[Wanted]:
        for uid, row in some:
            captions[uid, row.url] = row.caption
            if (uid, row.url) not in kept:
                yield uid, row

    canary = _canary(work, wanted, kept, missing) if _has_canary(work, shard_rows) else None
    rest = missing(wanted)
    first = list(islice(rest, 1))
    if first or (canary and canary.wanted):
        meter, before = work.meter(shard_rows), len(kept)
        fetch_rows(
            chain(first, rest),
            settings.fetching,
            settings.images,
            checkpoint,
            canary,
            lambda reasons: meter.update(min(before + reasons.total(), shard_rows), _in_words(reasons)),
        )
        kept.add_checkpoint(checkpoint)
    rules = settings.fetching.placeholders
    return kept, kept.placeholders(captions, rules.same_bytes) | frozenset(rules.sha256)


def _kept_before(work: Work, checkpoint: Checkpoint) -> Kept:
    kept = Kept()
    try:
        if work.store.get(work.asset, work.partition) is not None:
            kept.add_stored(work.store, work.asset, work.partition or "", work.settings.refetch)
    except StorageError as error:
        work.log(f"{error}: all rows of the shard are fetched again")
    kept.add_checkpoint(checkpoint)
    return kept


def _has_canary(work: Work, shard_rows: int) -> bool:
    """Whether it is a source's first shard; one that is no larger than the canary needs only its check."""
    source, rows = work.settings.source_of(work.partition or ""), work.settings.fetching.canary_rows
    return 0 < rows < shard_rows and not work.store.has_any(work.asset, f"{source.name}-")


def _canary(
    work: Work, wanted: Iterator[Wanted], kept: Kept, missing: Callable[[Iterable[Wanted]], Iterator[Wanted]]
) -> Canary:
    from dqe_assets.ingest.fetch.shard import Canary

    source = work.settings.source_of(work.partition or "")
    head = list(islice(wanted, work.settings.fetching.canary_rows))
    known = Counter((kept.reason((uid, row.url)), host_of(row.url)) for uid, row in head if (uid, row.url) in kept)
    return Canary(source.name, source.min_success_rate, list(missing(head)), known)


def _in_words(reasons: Counter[str]) -> str:
    """The most frequent reasons: ``ok 3,120, http_404 410, dns 33``."""
    ranking = sorted(reasons.items(), key=lambda item: (item[0] != "ok", -item[1], item[0]))
    return ", ".join(f"{reason} {count:,}" for reason, count in ranking[:5])
