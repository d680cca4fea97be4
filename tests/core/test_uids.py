"""Uids as bytes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from dqe_assets.core import uids
from dqe_assets.core.uids import packed_uids, unpacked_uids

if TYPE_CHECKING:
    import pytest

HEX = st.integers(0, 2**128 - 1).map(lambda number: f"{number:032x}")
ODD = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1, max_size=40)


@given(st.lists(st.lists(HEX, max_size=4), max_size=4))
def test_hexadecimal_uids_take_sixteen_bytes_and_keep_their_order(chunks: list[list[str]]) -> None:
    column = pa.chunked_array(chunks, pa.string())
    packed = packed_uids(column)
    assert packed.dtype == "S16"
    assert unpacked_uids(packed).to_pylist() == column.to_pylist()
    assert unpacked_uids(np.sort(packed)).to_pylist() == sorted(column.to_pylist())


@given(st.lists(st.one_of(HEX, ODD), min_size=1, max_size=8))
def test_other_uids_keep_their_letters_and_their_order(texts: list[str]) -> None:
    packed = packed_uids(pa.array(texts))
    assert unpacked_uids(packed).to_pylist() == texts
    assert unpacked_uids(np.sort(packed)).to_pylist() == sorted(texts, key=str.encode)


def test_a_slice_is_read_where_it_begins() -> None:
    column = pa.array([f"{number:032x}" for number in range(9)])
    assert unpacked_uids(packed_uids(column.slice(3, 4))).to_pylist() == column.to_pylist()[3:7]


def test_many_uids_come_in_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(uids, "_STRINGS_AT_ONCE", 2)
    column = pa.array([f"{number:032x}" for number in range(5)])
    found = unpacked_uids(packed_uids(column))
    assert [len(chunk) for chunk in found.chunks] == [2, 2, 1]
    assert found.to_pylist() == column.to_pylist()


@given(st.lists(HEX, max_size=6))
def test_halves_are_those_of_the_digits(found: list[str]) -> None:
    high, low = uids.uid_halves(pa.array(found, pa.string()))
    assert high.tolist() == [int(uid[:16], 16) for uid in found]
    assert low.tolist() == [int(uid[16:], 16) for uid in found]
