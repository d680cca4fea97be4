"""Lists of what is to be taken down: read, checked, and brought into one form."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING

import pyarrow as pa

from dqe_resources.errors import UsageError, one_line
from dqe_resources.keyed_table import TABLE_SUFFIXES, column_batches, column_types
from dqe_resources.web_url import WebUrl, separated, without_credentials

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

KINDS = ("url", "host", "uid", "sha256", "perceptual_hash")
"""What an entry can be: the columns of a table of entries."""

SUFFIXES = (".txt", *TABLE_SUFFIXES)

_HEX_DIGITS = {32: "uid", 64: "sha256", 16: "perceptual_hash"}
_HEX = re.compile(r"[0-9a-f]+")
_LABELS = re.compile(
    r"(?=.{1,253}\Z)[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?(?:\.[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?)*"
)
_EXPECTED = (
    "expected a URL (http://...), a host (example.org), a uid (32 hex digits), the SHA-256 of an image file (64), or a "
    "perceptual hash (16)"
)


class TakedownError(UsageError):
    """A list of what is to be taken down cannot be read: says the file, the line and what is expected."""


def mark(kind: str, value: str) -> str:
    """A digest that stands for an entry, or for something that one can match, where its text must not be kept."""
    named = f"{kind}\0{value}".encode("utf-8", "surrogatepass")
    return f"{kind} {hashlib.blake2b(named, digest_size=8).hexdigest()}"


def normal_url(text: str) -> str:
    """A URL in the form in which URLs are compared.

    Scheme and host are in lower case (IDNA), a port that is the scheme's own and the fragment are left out, and so are
    credentials. Path and query stay as they are written, but that what may not stand in a URL is encoded. A text that
    is no http or https URL is compared as it is.
    """
    try:
        return str(WebUrl.parse(text))
    except ValueError:
        return without_credentials(text.strip())


def normal_host(text: str) -> str:
    """A host in the form in which hosts are compared: lower case, IDNA, without a dot at its end.

    Raises:
        ValueError: it is none.
    """
    address = f"[{text}]" if text.count(":") > 1 and not text.startswith("[") else text
    if set(text) & set("/?#@"):
        raise ValueError("no name of a host; a URL begins with http:// or https://")
    url = WebUrl.parse(f"http://{address}/")
    if not address.startswith("[") and (":" in address or not _LABELS.fullmatch(url.host.rstrip("."))):
        raise ValueError("no name of a host: neither ports nor * belong there, and its sub-domains count as it")
    return url.host.rstrip(".")


def hosts_above(host: str) -> Iterator[str]:
    """A host, and those of which it is a sub-domain; of an address only itself."""
    yield host
    if ":" not in host and not host.replace(".", "").isdigit():
        while "." in host:
            host = host.partition(".")[2]
            yield host


@dataclass(frozen=True, eq=False)
class Entries:
    """What is to be taken down, each kind in its normal form.

    Attributes:
        found: the entries of each kind.
    """

    found: dict[str, frozenset[str]] = field(default_factory=lambda: dict.fromkeys(KINDS, frozenset()))

    def __bool__(self) -> bool:
        return any(self.found.values())

    @cached_property
    def marks(self) -> frozenset[str]:
        """The marks of all."""
        return frozenset(mark(kind, value) for kind, values in self.found.items() for value in values)

    @cached_property
    def hosts_of_urls(self) -> frozenset[str]:
        """The hosts that the URLs name, which are in their normal form."""
        authorities = {url.split("/", 3)[2] for url in self.found["url"]}
        return frozenset(
            name[1:].partition("]")[0] if name.startswith("[") else name.partition(":")[0] for name in authorities
        )


def entry_of(text: str) -> tuple[str, str]:
    """The kind and the normal form of an entry, by what it looks like.

    Raises:
        ValueError: it is none.
    """
    lower = text.strip().lower()
    if "://" in lower:
        return "url", _normal("url", text)
    if _HEX.fullmatch(lower) and len(lower) in _HEX_DIGITS:
        return _HEX_DIGITS[len(lower)], lower
    if "." not in lower and ":" not in lower:
        raise ValueError(_EXPECTED)
    return "host", _normal("host", text)


def read_entries(files: Iterable[Path]) -> Entries:
    """The entries of some files; a file is read once as long as it does not change.

    Raises:
        TakedownError: a file cannot be read, or something in it is no entry.
    """
    try:
        states = tuple((path, path.stat().st_size, path.stat().st_mtime_ns) for path in files)
    except OSError as error:
        raise TakedownError(f"takedowns: {error.filename}: cannot be read ({error.strerror})") from error
    return _read(states)


@lru_cache(maxsize=2)
def _read(states: tuple[tuple[Path, int, int], ...]) -> Entries:
    found: dict[str, set[str]] = {kind: set() for kind in KINDS}
    for path, _, _ in states:
        for kind, value in _of_lines(path) if path.suffix.lower() == ".txt" else _of_table(path):
            found[kind].add(value)
    return Entries({kind: frozenset(values) for kind, values in found.items()})


def _of_lines(path: Path) -> Iterator[tuple[str, str]]:
    try:
        with path.open(encoding="utf-8-sig", newline="\n") as file:
            for number, line in enumerate(file, 1):
                text = line.strip()
                if text and not text.startswith("#"):
                    try:
                        yield entry_of(text)
                    except ValueError as error:
                        raise _fault(path, f"line {number:,}", text, error) from error
    except (OSError, UnicodeDecodeError) as error:
        raise TakedownError(f"{path}: cannot be read as UTF-8 text ({one_line(error)})") from error


def _of_table(path: Path) -> Iterator[tuple[str, str]]:
    try:
        there = column_types(path)
        wanted = [kind for kind in KINDS if kind in there]
        if not wanted:
            raise TakedownError(
                f"{path}: has none of the columns {', '.join(KINDS)}; it has: {', '.join(list(there)[:20])}"
            )
        # Text files are told that all is text: a hash of digits alone is no number.
        batches = column_batches(path, dict.fromkeys(wanted, pa.string()))
        rows = (values for batch in batches for values in batch.to_pylist())
        for number, values in enumerate(rows, 1):
            for kind, value in values.items():
                text = f"{value:016x}" if isinstance(value, int) else (value or "").strip()
                if text:
                    try:
                        yield kind, _normal(kind, text)
                    except ValueError as error:
                        raise _fault(path, f"row {number:,}, column {kind}", text, error) from error
    except (pa.ArrowException, OSError) as error:
        raise TakedownError(f"{path}: cannot be read as {path.suffix} ({one_line(error)})") from error


def _normal(kind: str, text: str) -> str:
    if kind == "url":
        return str(WebUrl.parse(text))
    if kind == "host":
        return normal_host(text.strip())
    lower = text.lower()
    if not _HEX.fullmatch(lower) or _HEX_DIGITS.get(len(lower)) != kind:
        raise ValueError(f"expected {next(n for n, of in _HEX_DIGITS.items() if of == kind)} hex digits")
    return lower


def _fault(path: Path, where: str, text: str, error: ValueError) -> TakedownError:
    return TakedownError(f"{path}, {where}: {separated(text)[0][:200]!r}: {error}")
