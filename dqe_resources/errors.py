"""Errors that a person can fix."""

from __future__ import annotations

import errno
import re
from typing import TYPE_CHECKING, Any

from dqe_resources.printable import printable
from dqe_resources.web_url import without_credentials

if TYPE_CHECKING:
    from collections.abc import Iterator


class DataQualityError(Exception):
    """Something that a person can fix: the message says what is wrong, where, and what to do.

    The message is fit to be printed, whatever stands in it; a URL is shown without its user and password.
    """

    def __str__(self) -> str:
        return "\n".join(map(printable, without_credentials(super().__str__()).split("\n")))


class UsageError(DataQualityError):
    """The request is wrong: a wrong setting, an unknown name, an expression that cannot be read."""


class WholeRunError(DataQualityError):
    """Nothing more of an asset can be made in this run, whatever the shard: a server is away, a package is missing."""


class WholeSourceError(DataQualityError):
    """Nothing more of a source can be made in this run, whatever its shard."""


_NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EROFS})
_NO_ROOM_IN_WORDS = re.compile(
    r"No space left on device|Disk quota exceeded|Read-only file system|database or disk is full|disk I/O error"
    r"|attempt to write a readonly database"
)
_REFUSED = frozenset({401, 403})


def causes(error: BaseException | None) -> Iterator[BaseException]:
    """An error, and what it was raised from."""
    while error is not None:
        yield error
        error = error.__cause__


def of_whole_run(error: BaseException) -> str | None:
    """Why an error would come for every shard, in words; None if it is of one shard, as far as can be told.

    It is of the whole run if it is a ``WholeRunError``, or if what it came of is a full disk or one that is read-only,
    a package that is not installed, or credentials that a store refuses.
    """
    for cause in causes(error):
        if (what_to_do := _what_to_do(cause)) is not None:
            if isinstance(error, DataQualityError):
                return one_line(error)
            # SQLAlchemy adds the statement and a link to what the database says.
            said = getattr(cause, "orig", None) or cause
            return f"{type(said).__name__}: {one_line(said)}; {what_to_do}"
    return None


def _what_to_do(error: BaseException) -> str | None:
    """What helps against an error that would come for every shard; None for any other."""
    if isinstance(error, WholeRunError):
        return "run the same command again once that is mended"
    if isinstance(error, ImportError):
        return "install the package that it is of"
    if _has_no_room(error):
        return "free space, or allow writing there, then run the same command again"
    return "give the store's credentials anew" if is_refused(error) else None


def _has_no_room(error: BaseException) -> bool:
    # Libraries that write by themselves (Arrow, DuckDB, SQLite) say it in words alone.
    return getattr(error, "errno", None) in _NO_ROOM or _NO_ROOM_IN_WORDS.search(str(error)) is not None


def is_refused(error: BaseException) -> bool:
    """Whether a store on the network refuses the credentials, or there are none: fsspec's, boto's and HTTP's errors."""
    if isinstance(error, PermissionError):
        # That of a file names it.
        return error.filename is None
    answer: Any = getattr(error, "response", None)
    found = answer.get("ResponseMetadata", {}) if isinstance(answer, dict) else {}
    status = found.get("HTTPStatusCode") or getattr(answer, "status_code", None)
    return status in _REFUSED or type(error).__name__ in {"NoCredentialsError", "PartialCredentialsError"}


def one_line(error: BaseException) -> str:
    """Another library's error as part of a message: on one line; its type if it has no text."""
    return " ".join(str(error).split()) or type(error).__name__
