"""When to ask a server again."""

from __future__ import annotations

from datetime import UTC, datetime
from random import Random

import pytest

from dqe_resources.retry import backoff_seconds, retry_after_seconds

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        ("7", 7.0),
        (" 0 ", 0.0),
        ("Fri, 02 Jan 2026 03:05:05 GMT", 60.0),
        ("Fri, 02 Jan 2026 03:05:05 -0000", 60.0),
        ("Fri, 02 Jan 2026 03:00:00 GMT", 0.0),
        ("soon", None),
        ("-3", None),
        ("1.5", None),
        ("٣", None),
        ("", None),
        (None, None),
    ],
)
def test_retry_after_is_seconds_or_a_date(header: str | None, seconds: float | None) -> None:
    assert retry_after_seconds(header, NOW) == seconds


def test_backoff_doubles_up_to_its_limit_and_is_jittered() -> None:
    random = Random(0)
    waits = {
        attempt: [backoff_seconds(attempt, base=0.5, longest=4, random=random) for _ in range(500)]
        for attempt in (1, 2, 3, 4, 9, 10_000)
    }
    for attempt, most in zip(waits, (0.5, 1, 2, 4, 4, 4), strict=True):
        assert 0 <= min(waits[attempt]) < 0.05 * most
        assert 0.95 * most < max(waits[attempt]) <= most
