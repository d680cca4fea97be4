"""Errors that a person can fix."""

from __future__ import annotations

from dqe_resources.printable import printable
from dqe_resources.web_url import without_credentials


class DataQualityError(Exception):
    """Something that a person can fix: the message says what is wrong, where, and what to do.

    The message is fit to be printed, whatever stands in it; a URL is shown without its user and password.
    """

    def __str__(self) -> str:
        return "\n".join(map(printable, without_credentials(super().__str__()).split("\n")))


class UsageError(DataQualityError):
    """The request is wrong: a wrong setting, an unknown name, an expression that cannot be read."""


def one_line(error: BaseException) -> str:
    """Another library's error as part of a message: on one line; its type if it has no text."""
    return " ".join(str(error).split()) or type(error).__name__
