"""A backfill over a folder and a list of URLs that is killed again and again ends as one that was left alone."""

from __future__ import annotations

from typing import TYPE_CHECKING

from benchmarks.kills import trial

if TYPE_CHECKING:
    from pathlib import Path


def test_killed_at_random_moments_while_it_fetches_it_ends_with_the_same_store(
    tmp_path: Path, model_cache: Path
) -> None:
    found = trial(tmp_path, model_cache, kills=7, seed=7)
    assert found.differences == []
    assert found.died >= 5, "it had ended before it was killed"
    assert found.fetching >= 1
