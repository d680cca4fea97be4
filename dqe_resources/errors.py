"""Errors that a person can mend."""

from __future__ import annotations


class DataQualityError(Exception):
    """Something that a person can mend: the message says what is wrong, where, and what to do."""
