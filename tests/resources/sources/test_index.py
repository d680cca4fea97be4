from __future__ import annotations

import hashlib
from collections import Counter

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from dqe_resources.sources import index
from dqe_resources.sources.index import build_index, digest64, occurrences


@given(st.lists(st.integers(0, 12) | st.integers(2**64 - 3, 2**64 - 1)), st.integers(1, 7))
def test_occurrences_are_counted_as_a_counter_does(identities: list[int], chunk: int) -> None:
    seen: Counter[int] = Counter()
    expected = []
    for identity in identities:
        seen[identity] += 1
        expected.append(seen[identity])
    whole = index._CHUNK
    try:
        index._CHUNK = chunk
        assert occurrences(np.array(identities, np.uint64)).tolist() == expected
    finally:
        index._CHUNK = whole


def test_nothing_is_not_an_empty_text_and_texts_do_not_run_together() -> None:
    assert len({digest64(), digest64(None), digest64(""), digest64("a", "b"), digest64("ab", ""), digest64("ab")}) == 5
    reference = hashlib.blake2b(b"http://example.com/a.jpg\0a cat", digest_size=8).hexdigest()
    assert f"{digest64('http://example.com/a.jpg', 'a cat'):016x}" == reference


def test_an_index_is_made_once_and_read_in_any_part(monkeypatch) -> None:
    monkeypatch.setattr(index, "_GROUP_ROWS", 4)
    made = []

    def digests():
        made.append(1)
        return ((value % 5, value) for value in range(11))

    for _ in range(2):
        built = build_index("x", ["state"], digests)
    assert (built.rows, len(made)) == (11, 1)
    for first, last in [(0, 11), (3, 4), (4, 8), (7, 11), (11, 11)]:
        identity, number = built.columns(first, last, ("identity", "number"))
        assert identity.tolist() == [value % 5 for value in range(first, last)]
        assert number.tolist() == [value // 5 + 1 for value in range(first, last)]
    assert built.digest(0, 4) != built.digest(4, 8)


def test_a_new_state_takes_the_place_of_the_old_one(data_folder) -> None:
    for state in ("old", "new"):
        build_index("x", state, lambda: [(1, 0)])
    build_index("x-y", "other", lambda: [(1, 0)])
    assert len(list((data_folder / "cache").glob("x-*.parquet"))) == 2
