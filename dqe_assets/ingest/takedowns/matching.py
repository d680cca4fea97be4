"""Which rows and images are to be taken down: by the lists, and by what is remembered of what they hit before."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from dqe_assets.core.schema import UID, Column, table_schema
from dqe_assets.ingest.fetch.reasons import TAKEN_DOWN
from dqe_assets.ingest.takedowns.entries import Entries, hosts_above, mark, normal_url, read_entries
from dqe_assets.ingest.takedowns.memory import MEMORY, remembered
from dqe_resources import images
from dqe_resources.web_url import WebUrl

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from dqe_assets.ingest.takedowns.settings import Takedowns
    from dqe_resources.store import Store

COPY = "copy "
"""What the detail of a row begins with that was taken down as a copy."""

ROW_COLUMNS = ("uid", "url", "final_url", "sha256", "reason", "detail")
"""Columns of ``raw_samples`` by which stored rows are matched."""

HASHES = table_schema(
    [
        UID,
        Column("pixel_digest", pa.string(), "128-bit hex digest of the decoded pixels and their size"),
        Column("perceptual_hash", pa.uint64(), "64-bit DCT hash (pHash) of the luminance"),
    ]
)
"""Columns of ``image_features``, which is made later, by which stored images are matched."""

_AUTHORITY = r"^\s*[a-zA-Z][a-zA-Z0-9+.-]*://(?P<authority>[^/?#\t\r\n]*)"
_BLOCK = 1024


@dataclass(frozen=True)
class ImageHashes:
    """Hashes of an image, and the standard deviation of its luminance, 0 to 1."""

    pixel_digest: str
    perceptual_hash: int
    contrast: float


@dataclass(frozen=True)
class Matcher:
    """Says of rows by which entry they are to be taken down.

    That is the detail of such a row: the kind of the entry and a digest of it, after ``COPY`` if the row is a copy.

    Attributes:
        entries: of the lists.
        memory: what is remembered, as ``REMEMBERED``.
        copies: whether copies are taken down.
        max_distance: bits in which perceptual hashes of copies may differ.
        min_contrast: standard deviation of the luminance, 0 to 1, below which a perceptual hash says nothing.
    """

    entries: Entries
    memory: pa.Table
    copies: bool
    max_distance: int
    min_contrast: float

    def __bool__(self) -> bool:
        """Whether there is anything that it could match, or that was matched before."""
        return bool(self.entries) or self.memory.num_rows > 0

    def is_active(self, detail: str | None) -> bool:
        """Whether the entry that a row was taken down by is still listed."""
        entry = (detail or "").removeprefix(COPY)
        return entry in self.entries.marks and (self.copies or entry == detail)

    def of_row(self, uid: str, url: str | None) -> str | None:
        """By which entry a row is taken down before anything of it is asked for or read; None if by none."""
        if uid in self.entries.found["uid"]:
            return mark("uid", uid)
        return self._known.get(uid) or (self.of_url(url) if url else None)

    def of_url(self, url: str) -> str | None:
        """By which entry a URL, or its host, is not to be asked for."""
        normal = normal_url(url)
        if normal in self.entries.found["url"]:
            return mark("url", normal)
        if self.entries.found["host"]:
            for host in hosts_of(url):
                if host in self.entries.found["host"]:
                    return mark("host", host)
        return None

    @property
    def looks_at_pixels(self) -> bool:
        """Whether an image has to be decoded to see whether it is taken down."""
        return bool(self._pixels) or len(self._perceptual[0]) > 0

    def of_file(self, sha256: str) -> str | None:
        """By which entry an image file is taken down, by its bytes alone."""
        return mark("sha256", sha256) if sha256 in self.entries.found["sha256"] else self._files.get(sha256)

    def of_picture(self, data: bytes) -> str | None:
        """By which entry a picture is taken down, by what it looks like; a picture that cannot be decoded by none."""
        found = hashes_of(data)
        if found is None:
            return None
        hashes = pa.table([[""], [found.pixel_digest], pa.array([found.perceptual_hash], pa.uint64())], schema=HASHES)
        return self._of_hashes(hashes).get(0)

    def of_stored(self, rows: pa.Table, hashes: pa.Table | None) -> dict[int, str]:
        """Which rows of a shard are to be taken down and are not, by position, and by which entry.

        Args:
            rows: ``ROW_COLUMNS`` of ``raw_samples``.
            hashes: ``HASHES`` of the same rows; None if they are not known.
        """
        found: dict[int, str] = {}
        if hashes is not None and self.looks_at_pixels:
            found |= self._of_hashes(hashes)
        # By Python's sets: Arrow would make one of a long list for each shard.
        found |= _by_place(rows["sha256"], self.of_file)
        for column in ("final_url", "url"):
            for place in self._urls_to_look_at(rows[column]):
                if detail := self.of_url(rows[column][place].as_py()):
                    found[place] = detail
        found |= _by_place(rows["uid"], lambda uid: self.of_row(uid, None))
        taken = set(_where(pc.equal(rows["reason"], TAKEN_DOWN)))
        return {place: detail for place, detail in sorted(found.items()) if place not in taken}

    def is_honoured(self, rows: pa.Table, hashes: pa.Table | None) -> bool:
        """Whether in a shard just those rows are taken down that are to be; arguments as ``of_stored``."""
        details = pc.unique(rows.filter(pc.equal(rows["reason"], TAKEN_DOWN))["detail"]).to_pylist()
        return all(map(self.is_active, details)) and not self.of_stored(rows, hashes)

    @cached_property
    def _known(self) -> dict[str, str]:
        """The uids that are remembered and whose entries are still listed, with their details."""
        return {
            row["uid"]: detail
            for row in self.memory.select(["uid", "entry", "is_copy"]).to_pylist()
            if self.is_active(detail := f"{COPY if row['is_copy'] else ''}{row['entry']}")
        }

    @cached_property
    def _originals(self) -> pa.Table:
        """What is remembered of images whose copies are taken down. A copy of a copy is none of the original."""
        if not self.copies or not self.memory.num_rows:
            return self.memory.slice(0, 0)
        listed = [entry for entry in pc.unique(self.memory["entry"]).to_pylist() if entry in self.entries.marks]
        is_listed = pc.is_in(self.memory["entry"], value_set=pa.array(listed, pa.string()))
        return self.memory.filter(pc.and_(is_listed, pc.invert(self.memory["is_copy"])))

    @cached_property
    def _files(self) -> dict[str, str]:
        return self._by_digest("sha256")

    @cached_property
    def _pixels(self) -> dict[str, str]:
        return self._by_digest("pixel_digest")

    def _by_digest(self, column: str) -> dict[str, str]:
        rows = self._originals.filter(self._originals[column].is_valid())
        return {
            digest: COPY + entry
            for digest, entry in zip(*rows.select([column, "entry"]).to_pydict().values(), strict=True)
        }

    @cached_property
    def _perceptual(self) -> tuple[np.ndarray, list[str]]:
        """Perceptual hashes that are not allowed, uint64 [n], and the detail of each."""
        listed = {
            int(digits, 16): mark("perceptual_hash", digits) for digits in sorted(self.entries.found["perceptual_hash"])
        }
        rows = self._originals.filter(self._originals["perceptual_hash"].is_valid())
        of_images = zip(rows["perceptual_hash"].to_pylist(), rows["entry"].to_pylist(), strict=True)
        both = {value: COPY + entry for value, entry in of_images} | listed
        return np.array(list(both), np.uint64), list(both.values())

    def _of_hashes(self, hashes: pa.Table) -> dict[int, str]:
        values, details = self._perceptual
        found: dict[int, str] = {}
        there = np.flatnonzero(hashes["perceptual_hash"].is_valid().to_numpy())
        own = hashes["perceptual_hash"].drop_null().to_numpy()
        distance = self.max_distance if self.copies else 0
        for start in range(0, len(own) if len(values) else 0, _BLOCK):
            bits = np.bitwise_count(own[start : start + _BLOCK, None] ^ values[None, :])
            near = bits.argmin(axis=1)
            for place in np.flatnonzero(bits.min(axis=1) <= distance).tolist():
                found[int(there[start + place])] = details[near[place]]
        return found | _by_place(hashes["pixel_digest"], self._pixels.get)

    def _urls_to_look_at(self, urls: pa.ChunkedArray) -> Iterable[int]:
        """The places of URLs whose host an entry names, and of those that are no ordinary URLs."""
        if not (self.entries.found["url"] or self.entries.found["host"]):
            return ()
        authorities = pc.struct_field(pc.extract_regex(urls, _AUTHORITY), "authority").combine_chunks()
        encoded = authorities.dictionary_encode()
        named = [name for name in encoded.dictionary.to_pylist() if self._is_named(name)]
        plain_or_named = pc.or_kleene(
            authorities.is_null(), pc.is_in(authorities, value_set=pa.array(named, pa.string()))
        )
        return _where(pc.and_(plain_or_named, urls.is_valid()))

    @cached_property
    def _is_named(self) -> Callable[[str], bool]:
        """Says whether an entry names the host of an authority; remembered, as the shards of a source share hosts."""

        @lru_cache(maxsize=1 << 18)
        def is_named(authority: str) -> bool:
            try:
                host = WebUrl.parse(f"http://{authority}/").host
            except ValueError:
                return True
            return host in self.entries.hosts_of_urls or any(
                above in self.entries.found["host"] for above in hosts_above(host.rstrip("."))
            )

        return is_named


def hosts_of(url: str) -> list[str]:
    """The host of a URL and those of which it is a sub-domain; none if it names none."""
    try:
        return list(hosts_above(WebUrl.parse(url).host.rstrip(".")))
    except ValueError:
        return []


def marks_of(urls: Iterable[str | None]) -> list[str]:
    """The marks of some URLs and of their hosts: by these it is found later what was known by them."""
    marks = [mark("url", normal_url(url)) for url in urls if url]
    marks += [mark("host", host) for url in urls if url for host in hosts_of(url)]
    return sorted(set(marks))


def hashes_of(data: bytes) -> ImageHashes | None:
    """What is kept of an image file; None if it cannot be decoded."""

    @images.guarded
    def hashed(data: bytes) -> ImageHashes:
        image = images.decode(data)
        contrast = float(np.asarray(image.convert("L"), np.float32).std()) / 255
        return ImageHashes(images.pixel_digest(image), images.perceptual_hash(image), contrast)

    found = hashed(data)
    return None if isinstance(found, images.ImageError) else found


def _by_place(values: pa.ChunkedArray, detail_of: Callable[[str], str | None]) -> dict[int, str]:
    details = ((place, detail_of(value)) for place, value in enumerate(values.to_pylist()) if value is not None)
    return {place: detail for place, detail in details if detail}


def _where(mask: Any) -> list[int]:
    return pc.indices_nonzero(pc.fill_null(mask, False)).to_pylist()


def matcher_of(takedowns: Takedowns, store: Store, *, max_distance: int, min_contrast: float) -> Matcher:
    """The matcher of these lists and of what the store remembers; made once as long as both are the same.

    Raises:
        TakedownError: a list cannot be read.
        StorageError: what is remembered cannot be read.
    """
    entries = read_entries(takedowns.files)
    return _matcher(entries, store, frozenset(store.partitions(MEMORY)), takedowns.copies, max_distance, min_contrast)


@lru_cache(maxsize=2)
def _matcher(
    entries: Entries, store: Store, _: frozenset[str], copies: bool, max_distance: int, min_contrast: float
) -> Matcher:
    return Matcher(entries, remembered(store), copies, max_distance, min_contrast)
