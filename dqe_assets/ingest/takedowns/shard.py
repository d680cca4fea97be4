"""What is taken down of a shard while it is made."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc

from dqe_assets.ingest.fetch.reasons import TAKEN_DOWN
from dqe_assets.ingest.outcomes import OUTCOMES, failed
from dqe_assets.ingest.tables import RAW_SAMPLES
from dqe_assets.ingest.takedowns.matching import COPY, HASHES, ROW_COLUMNS, hashes_of, marks_of
from dqe_assets.ingest.takedowns.memory import REMEMBERED, remember
from dqe_resources.parallel import ordered_map
from dqe_resources.sources.rows import SourceRow
from dqe_resources.store import StorageError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from dqe_assets.ingest.takedowns.matching import Matcher
    from dqe_resources.store import Store


class ShardTakedowns:
    """Takes rows down: before they are asked for, or as soon as their image is there.

    Of what the store still has of them, hashes are taken before they go.

    Args:
        matcher: says what is to be taken down.
        store: the store.
        shard: partition key.
        log: writes a line to the run's log.
    """

    def __init__(self, matcher: Matcher, store: Store, shard: str, log: Callable[[str], None]) -> None:
        self._matcher, self._store = matcher, store
        self._records: dict[str, dict[str, Any]] = {}
        self._stored: dict[str, str] = {}
        if matcher:
            try:
                self._look_at_stored(shard)
            except StorageError as error:
                log(f"{error}: no hashes can be taken of what is taken down of it")

    def of(self, uid: str, row: SourceRow) -> SourceRow:
        """The row, or one without anything in its place."""
        entry = self._matcher.of_row(uid, row.url) or self._stored.get(uid)
        if entry is None:
            return row
        self._note(uid, entry, marks_of([row.url]))
        return SourceRow(uid, None, None, uid=uid, taken_down=entry)

    def judged(self, outcomes: pa.Table, rows: Sequence[tuple[str, str | None]]) -> pa.Table:
        """Outcomes, with nothing left of those that are to be taken down.

        Args:
            outcomes: in the schema ``OUTCOMES``.
            rows: uid and URL of each.
        """
        if not self._matcher:
            return outcomes

        def marks(place: int) -> list[str]:
            return marks_of([rows[place][1], outcomes["final_url"][place].as_py()])

        details: dict[int, str] = {}
        for place, sha256 in enumerate(outcomes["sha256"].to_pylist()):
            if sha256 and (entry := self._matcher.of_file(sha256)):
                details[place] = entry
        if self._matcher.looks_at_pixels:
            seen = [
                place for place in range(len(outcomes)) if outcomes["image"][place].is_valid and place not in details
            ]
            pictures = ordered_map(lambda place: (place, self._matcher.of_picture(_bytes(outcomes, place))), seen)
            details |= {place: entry for place, entry in pictures if entry}
        for place, entry in details.items():
            hashes = _of_picture(self._matcher, outcomes["image"][place].as_py())
            self._note(rows[place][0], entry, marks(place), {"sha256": outcomes["sha256"][place].as_py(), **hashes})
        is_refused = pc.equal(outcomes["reason"], TAKEN_DOWN).to_pylist()
        for place in (place for place, refused in enumerate(is_refused) if refused):
            details[place] = outcomes["detail"][place].as_py()
            self._note(rows[place][0], details[place], marks(place))
        if not details:
            return outcomes
        places = sorted(details)
        left = [{"uid": rows[place][0], **failed(TAKEN_DOWN, details[place])} for place in places]
        order = list(range(len(outcomes)))
        for number, place in enumerate(places):
            order[place] = len(outcomes) + number
        return pa.concat_tables([outcomes, pa.Table.from_pylist(left, OUTCOMES)]).take(pa.array(order))

    def finish(self) -> None:
        """Remember what was taken down: before the table is written from which it is gone.

        Raises:
            StorageError: that cannot be written.
        """
        memory = self._matcher.memory
        keys = zip(*memory.select(["uid", "entry", "is_copy"]).to_pydict().values(), strict=True)
        known = set(keys)
        new = [one for one in self._records.values() if (one["uid"], one["entry"], one["is_copy"]) not in known]
        if new:
            uids = pa.array([one["uid"] for one in new], pa.string())
            earlier = {row["uid"]: row for row in memory.filter(pc.is_in(memory["uid"], value_set=uids)).to_pylist()}
            # Under another entry than before, the row keeps the hashes that were taken when its image was there.
            rows = [{**earlier.get(one["uid"], {}), **_known(one)} for one in new]
            remember(self._store, pa.Table.from_pylist(sorted(rows, key=lambda row: row["uid"]), REMEMBERED))

    def _look_at_stored(self, shard: str) -> None:
        stored = self._store.get("raw_samples", shard)
        if stored is None:
            return
        rows = self._store.read("raw_samples", shard, RAW_SAMPLES, ROW_COLUMNS)
        found = self._matcher.of_stored(rows, stored_hashes(self._store, shard, self._matcher))
        places = list(found)
        groups = self._store.row_groups("raw_samples", shard, RAW_SAMPLES, places, ["image"])
        pictures = (image for group in groups for image in group["image"].to_pylist())
        for place, image in zip(places, pictures, strict=True):
            uid, entry, sha256 = (rows["uid"][place].as_py(), found[place], rows["sha256"][place].as_py())
            self._stored[uid] = entry
            marks = marks_of([rows["url"][place].as_py(), rows["final_url"][place].as_py()])
            self._note(uid, entry, marks, {"sha256": sha256, **_of_picture(self._matcher, image)})

    def _note(self, uid: str, entry: str, marks: list[str], hashes: dict[str, Any] | None = None) -> None:
        record = {"uid": uid, "entry": entry.removeprefix(COPY), "is_copy": entry.startswith(COPY), "marks": marks}
        before = self._records.get(uid, {})
        self._records[uid] = {**before, **_known(record | (hashes or {}))}


def stored_hashes(store: Store, shard: str, matcher: Matcher) -> pa.Table | None:
    """The hashes of a shard's images as ``image_features`` has them; None if it has them not, or of earlier images.

    Raises:
        StorageError: they cannot be read.
    """
    if not matcher.looks_at_pixels:
        return None
    raw, features = store.get("raw_samples", shard), store.get("image_features", shard)
    if raw is None or features is None or features.written_at < raw.written_at:
        return None
    return store.read("image_features", shard, HASHES)


def _known(record: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in record.items() if value is not None and value != []}


def _marks(rows: pa.Table, place: int) -> list[str]:
    return marks_of([rows["url"][place].as_py(), rows["final_url"][place].as_py()])


def _bytes(outcomes: pa.Table, place: int) -> bytes:
    found: bytes = outcomes["image"][place].as_py()["bytes"]
    return found


def _of_picture(matcher: Matcher, image: dict[str, Any] | None) -> dict[str, Any]:
    found = hashes_of(image["bytes"]) if image else None
    if found is None:
        return {}
    perceptual = found.perceptual_hash if found.contrast >= matcher.min_contrast else None
    return {"pixel_digest": found.pixel_digest, "perceptual_hash": perceptual}
