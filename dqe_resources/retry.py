"""When to ask a server again."""

from __future__ import annotations

from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import random


def backoff_seconds(attempt: int, *, base: float, longest: float, random: random.Random) -> float:
    """How long to wait after a failed attempt: exponential with full jitter (Brooker, AWS Architecture Blog, 2015).

    Args:
        attempt: number of the attempt that failed, from 1.
        base: the most to wait after the first attempt, in seconds; it doubles with each attempt.
        longest: the most to wait after any attempt, in seconds.
        random: source of the jitter.
    """
    return random.uniform(0, min(longest, base * 2 ** min(attempt - 1, 60)))


def retry_after_seconds(header: str | None, now: datetime | None = None) -> float | None:
    """The seconds to wait that a Retry-After header asks for (RFC 9110, 10.2.3), or None if it says nothing.

    Args:
        header: a number of seconds, or an HTTP date.
        now: the time that a date counts from; the present by default.
    """
    text = (header or "").strip()
    if text.isascii() and text.isdigit():
        return float(text)
    try:
        moment = parsedate_to_datetime(text)
    except ValueError:
        return None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return max(0.0, (moment - (now or datetime.now(UTC))).total_seconds())
