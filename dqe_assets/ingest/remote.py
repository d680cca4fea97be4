"""The rows of a shard that are fetched: which are kept, which are fetched again, and when to give up."""

from __future__ import annotations

from collections import Counter
from contextlib import closing
from dataclasses import replace
from itertools import chain, islice
from typing import TYPE_CHECKING

from dqe_assets.core.work import StartOverError
from dqe_assets.ingest.ledger import Ledger
from dqe_assets.ingest.outcomes import OUTCOMES, host_of
from dqe_resources.fingerprint import fingerprint
from dqe_resources.store import StorageError, TornError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    import pyarrow as pa

    from dqe_assets.core.work import Work
    from dqe_assets.ingest.fetch.shard import Canary, Steps, Wanted
    from dqe_assets.ingest.ledger import Key
    from dqe_assets.ingest.settings import IngestSettings
    from dqe_resources.store import Checkpoint

_END = object()


class Fetches:
    """Outcomes of the rows of a shard that are fetched: those kept from before at once, the others as they come.

    What is kept comes from an unfinished run, or from the shard's table as it was.

    Args:
        work: the shard.
        ingest: the settings.
        wanted: the rows to be fetched, with their uids.
        shard_rows: rows in the shard.

    Attributes:
        placeholders: the digests of what is known to be a placeholder: without those that this run may yet find.
    """

    def __init__(self, work: Work, ingest: IngestSettings, wanted: Iterator[Wanted], shard_rows: int) -> None:
        self._work, self._ingest = work, ingest
        self._steps: Steps
        # What was fetched stays good when the list or a setting has changed meanwhile: rows are known by uid and URL.
        self._checkpoint = replace(work.checkpoint, version=fingerprint(OUTCOMES.to_string()))
        self._kept = _kept_before(work, ingest, self._checkpoint)
        self._captions: dict[Key, str | None] = {}
        canary = self._canary(wanted) if _has_canary(work, ingest, shard_rows) else None
        rest = self._missing(wanted)
        first = list(islice(rest, 1))
        if first or (canary and canary.wanted):
            self._steps = self._fetched(chain(first, rest), canary, shard_rows)
            self.placeholders = frozenset(ingest.fetching.placeholders.sha256)
        else:
            self._steps = (False for _ in ())
            self.placeholders = self._all_placeholders()

    def wait_for(self, key: Key) -> bool:
        """Wait until there is an outcome of a row; returns whether there is one.

        Raises:
            CanaryError: too few of the source's first rows have an image.
            StorageError: the store cannot be written.
        """
        while key not in self._kept:
            if next(self._steps, _END) is _END:
                return False
        return True

    def size(self, key: Key) -> int:
        """Bytes of the image of a row that was waited for."""
        return self._kept.size(key)

    def read(self, keys: Sequence[Key]) -> pa.Table:
        """The outcomes of rows that were waited for, in the schema ``OUTCOMES``.

        Raises:
            StartOverError: the shard's table as it was is damaged; what of it is whole is kept.
            StorageError: another file is damaged.
        """
        try:
            return self._kept.read(keys)
        except TornError as error:
            self._work.log(f"{error}: the rows that cannot be read are fetched again")
            raise StartOverError from error

    def finish(self) -> None:
        """Wait for all rows.

        Raises:
            CanaryError, StorageError: as ``wait_for``.
            StartOverError: what was taken for an image has turned out to be a placeholder.
        """
        for _ in self._steps:
            pass
        if not self._all_placeholders() <= self.placeholders:
            raise StartOverError

    def close(self) -> None:
        """Stop; what has been fetched is kept."""
        self._steps.close()

    def _fetched(self, wanted: Iterator[Wanted], canary: Canary | None, shard_rows: int) -> Steps:
        # Only a shard with something to fetch has to load what fetches it.
        from dqe_assets.ingest.fetch.shard import fetch_rows

        settings, kept = self._ingest, self._kept
        meter, before = self._work.meter(shard_rows), len(kept)

        def watch(reasons: Counter[str]) -> None:
            meter.update(min(before + reasons.total(), shard_rows), _in_words(reasons))

        if settings.fetching.contact is None:
            self._work.log("fetching.contact is not set: the servers that are asked cannot tell whom to write to")
        taken_down = settings.matcher(self._work.store).of_url
        steps = fetch_rows(
            wanted, settings.fetching, settings.images, self._checkpoint, canary, watch, taken_down=taken_down
        )
        with closing(steps):
            for is_news in steps:
                if is_news:
                    kept.add_checkpoint(self._checkpoint)
                yield is_news

    def _missing(self, wanted: Iterable[Wanted]) -> Iterator[Wanted]:
        for uid, row in wanted:
            self._captions[uid, row.url] = row.caption
            if (uid, row.url) not in self._kept:
                yield uid, row

    def _canary(self, wanted: Iterator[Wanted]) -> Canary:
        from dqe_assets.ingest.fetch.shard import Canary

        settings, kept = self._ingest, self._kept
        source = settings.source_of(self._work.partition or "")
        head = list(islice(wanted, settings.fetching.canary_rows))
        known = Counter((kept.reason((uid, row.url)), host_of(row.url)) for uid, row in head if (uid, row.url) in kept)
        return Canary(source.name, source.min_success_rate, list(self._missing(head)), known)

    def _all_placeholders(self) -> frozenset[str]:
        rules = self._ingest.fetching.placeholders
        return self._kept.placeholders(self._captions, rules.same_bytes) | frozenset(rules.sha256)


def _kept_before(work: Work, ingest: IngestSettings, checkpoint: Checkpoint) -> Ledger:
    kept = Ledger()
    try:
        kept.add_stored(work.store, work.asset, work.partition or "", ingest.refetch)
    except StorageError as error:
        work.log(f"{error}: all rows of the shard are fetched again")
    kept.add_checkpoint(checkpoint)
    return kept


def _has_canary(work: Work, ingest: IngestSettings, shard_rows: int) -> bool:
    """Whether it is a source's first shard; one that is no larger than the canary needs only its check."""
    source, rows = ingest.source_of(work.partition or ""), ingest.fetching.canary_rows
    return 0 < rows < shard_rows and not work.store.has_any(work.asset, f"{source.name}-")


def _in_words(reasons: Counter[str]) -> str:
    """The most frequent reasons: ``ok 3,120, http_404 410, dns 33``."""
    ranking = sorted(reasons.items(), key=lambda item: (item[0] != "ok", -item[1], item[0]))
    return ", ".join(f"{reason} {count:,}" for reason, count in ranking[:5])
