"""The outcome of a row's image: the columns of ``raw_samples`` that describe it."""

from __future__ import annotations

import hashlib
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import pyarrow as pa

from dqe_assets.ingest.fetch.encodings import decompressed, is_encoded
from dqe_assets.ingest.fetch.reasons import NOAI_METADATA, NOT_AN_IMAGE, OK, TAKEN_DOWN
from dqe_assets.ingest.resize import resize
from dqe_assets.ingest.tables import RAW_SAMPLES
from dqe_resources import images
from dqe_resources.sources.local_file import FileError
from dqe_resources.sources.texts import readable

if TYPE_CHECKING:
    from collections.abc import Iterable

    from dqe_assets.ingest.fetch.scheduler import Fetched
    from dqe_assets.ingest.settings import ImageLimits
    from dqe_resources.sources.rows import SourceRow

LEDGER = ("attempts", "http_status", "final_url", "seconds", "fetched_at")
"""Columns of how a row was fetched; null for a row that came with its image."""

OUTCOME = (
    *("image", "sha256", "format", "bytes", "width", "height", "exif_orientation"),
    *("original_bytes", "original_width", "original_height", "status", "reason", "detail"),
    *LEDGER,
)
"""Columns of what became of a row's image."""

OUTCOMES = pa.schema([RAW_SAMPLES.field(name) for name in ("uid", "url", *OUTCOME)])
"""Outcomes on their own, of the rows with these uids and URLs."""

Outcome = dict[str, Any]


def failed(reason: str, detail: str | None) -> Outcome:
    """A row that has no image."""
    return {"status": "failed", "reason": reason, "detail": detail}


def of_row(row: SourceRow, limits: ImageLimits) -> Outcome:
    """The outcome of a row that is not fetched."""
    if row.taken_down is not None:
        return failed(TAKEN_DOWN, row.taken_down)
    if row.fault is not None:
        return failed("bad_row", row.fault)
    if row.image is None:
        return failed("missing", "the source has neither an image nor a URL for this row")
    if isinstance(row.image, bytes):
        return of_bytes(row.image, row.key, limits)
    try:
        data = row.image.read(limits.max_bytes)
    except FileError as error:
        return failed(error.reason, error.detail)
    outcome = of_bytes(data, row.key, limits)
    if outcome["reason"] == NOT_AN_IMAGE:
        # What is in a file that a path led to may be nobody's business.
        outcome["detail"] = f"{readable(str(row.image.path))}: {len(data):,} bytes of something else"
    return outcome


def of_fetched(row: SourceRow, fetched: Fetched, limits: ImageLimits) -> Outcome:
    """The outcome of a row that was fetched."""
    if fetched.data is None:
        outcome = failed(fetched.reason, fetched.detail)
    else:
        outcome = _of_encoded(fetched.data, fetched.encoding, row.key, limits)
    return outcome | {
        "attempts": fetched.attempts,
        "http_status": fetched.http_status,
        "final_url": fetched.final_url,
        "seconds": fetched.seconds,
        "fetched_at": fetched.at,
    }


def _of_encoded(data: bytes, encoding: str | None, key: str, limits: ImageLimits) -> Outcome:
    """The outcome of a body: whatever its server calls the encoding, the bytes decide."""
    try:
        data = decompressed(data, encoding, limits.max_bytes)
    except images.ImageError as error:
        return failed(error.reason, error.detail)
    outcome = of_bytes(data, key, limits)
    if outcome["reason"] == "not_an_image" and is_encoded(encoding):
        # Nothing here can undo it: of what it is, the server's word is all that is known.
        outcome |= failed("content_encoding", f"Content-Encoding: {encoding}, and {outcome['detail']}")
    return outcome


def of_bytes(data: bytes, key: str, limits: ImageLimits) -> Outcome:
    """The outcome of an image file's bytes: decoded whole, and made smaller if the limits say so."""
    outcome: Outcome = {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)}
    try:
        info = images.inspect(data, max_bytes=limits.max_bytes, max_pixels=limits.max_pixels)
        smaller = None if limits.longest_side is None else resize(data, limits.longest_side)
    except images.ImageError as error:
        return outcome | failed(error.reason, error.detail)
    if (said := refusal_of(data, limits)) is not None:
        return outcome | failed(NOAI_METADATA, said)
    outcome |= {
        "image": {"bytes": data, "path": Path(key).name},
        "format": info.format,
        "width": info.width,
        "height": info.height,
        "exif_orientation": info.exif_orientation,
        "status": "ok",
        "reason": OK,
    }
    if smaller is not None:
        outcome |= {
            "image": {"bytes": smaller.data, "path": Path(key).name},
            "format": smaller.format,
            "bytes": len(smaller.data),
            "width": smaller.width,
            "height": smaller.height,
            "exif_orientation": 1,
            "original_bytes": len(data),
            "original_width": info.width,
            "original_height": info.height,
        }
    return outcome


def refusal_of(data: bytes, limits: ImageLimits) -> str | None:
    """What an image file says against its use, if these limits heed it."""
    said = images.data_mining(data) if limits.disallowed_data_mining else None
    return f"plus:DataMining: {said}" if said in limits.disallowed_data_mining else None


def host_of(url: str | None) -> str:
    """The host that a URL names; empty if it names none."""
    try:
        return urlsplit(url or "").hostname or ""
    except ValueError:
        return ""


def by_reason_and_host(outcomes: Iterable[tuple[str, str]], *, hosts: int = 3) -> str:
    """Failures in words, most frequent first: ``http_404 60 (a.org 55, b.org 5), dns 17 (c.org 17)``.

    Args:
        outcomes: reason and host of each row.
        hosts: how many hosts to name for each reason.
    """
    counts: dict[str, Counter[str]] = {}
    for reason, host in outcomes:
        if reason != OK:
            counts.setdefault(reason, Counter())[host] += 1
    parts = []
    for reason, of_hosts in sorted(counts.items(), key=lambda item: (-item[1].total(), item[0])):
        first = sorted(of_hosts.items(), key=lambda item: (-item[1], item[0]))
        named = [f"{host} {count:,}" for host, count in first[:hosts] if host]
        named += [f"{len(first) - hosts:,} hosts more"] if len(first) > hosts else []
        parts.append(f"{reason} {of_hosts.total():,}" + (f" ({', '.join(named)})" if named else ""))
    return ", ".join(parts)
