"""Errors that a person can fix."""

from __future__ import annotations


class DataQualityError(Exception):
    """Something that a person can fix: the message says what is wrong, where, and what to do."""


class UsageError(DataQualityError):
    """The request is wrong: a wrong setting, an unknown name, an expression that cannot be read."""


def one_line(error: BaseException) -> str:
    """Another library's error as part of a message: on one line; its type if it has no text."""
    return " ".join(str(error).split()) or type(error).__name__
