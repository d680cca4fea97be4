"""Uids as numbers, their order, and subsets as files."""

from __future__ import annotations

import json

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dqe_assets.filtering.subset import (
    UID_TYPE,
    SubsetError,
    UidError,
    distinct,
    format_uids,
    order_of,
    parse_uids,
    read_subset,
    union,
    write_subset,
)
from tests.filtering.make_pool import uids

# Few halves, so that they meet, and the largest.
halves = st.sampled_from([0, 1, 2, 2**63 - 1, 2**63, 2**64 - 1])
pairs = st.tuples(halves, halves)


def array(values: list[tuple[int, int]]) -> np.ndarray:
    return np.array(values, UID_TYPE)


def as_datacomp(texts: list[str]) -> np.ndarray:
    """As its code reads them, one at a time."""
    return np.array([(int(text[:16], 16), int(text[16:32], 16)) for text in texts], np.dtype("u8,u8"))


class TestParse:
    @settings(deadline=None)
    @given(st.lists(st.tuples(st.integers(0, 2**128 - 1), st.booleans())))
    def test_is_what_datacomp_reads_and_goes_back(self, numbers):
        texts = [f"{number:032X}" if upper else f"{number:032x}" for number, upper in numbers]
        parsed = parse_uids(pa.array(texts, pa.string()))
        assert parsed.tolist() == as_datacomp(texts).tolist()
        assert format_uids(parsed).to_pylist() == [text.lower() for text in texts]

    def test_slices_chunks_and_other_string_types(self):
        texts = uids(range(10))
        expected = as_datacomp(texts).tolist()
        assert parse_uids(pa.array(texts).slice(3, 4)).tolist() == expected[3:7]
        assert parse_uids(pa.chunked_array([texts[:5], [], texts[5:]])).tolist() == expected
        assert parse_uids(pa.array(texts, pa.large_string())).tolist() == expected
        assert parse_uids(pa.array(texts).dictionary_encode()).tolist() == expected

    @pytest.mark.parametrize("bad", [None, "", "0" * 31, "0" * 33, "0" * 31 + "g", "0" * 31 + "é", "0x" + "0" * 30])
    def test_the_row_that_is_none_is_named(self, bad):
        texts = [*uids(range(5)), bad, *uids(range(2))]
        with pytest.raises(UidError, match="32 hexadecimal digits") as caught:
            parse_uids(pa.array(texts, pa.string()))
        assert (caught.value.row, caught.value.found) == (5, bad)

    def test_lengths_that_make_up_for_each_other(self):
        with pytest.raises(UidError) as caught:
            parse_uids(pa.array(["0" * 30, "0" * 34]))
        assert caught.value.row == 0


@settings(deadline=None)
@given(st.lists(pairs))
def test_order_is_lexicographic_and_stable(values):
    order = order_of(array(values)).tolist()
    assert order == sorted(range(len(values)), key=lambda row: (values[row], row))


@settings(deadline=None)
@given(st.lists(st.lists(pairs), max_size=4))
def test_union_keeps_a_uid_as_the_first_pool_has_it(pools):
    merged, owner = union([array(values) for values in pools])
    taken: set[tuple[int, int]] = set()
    expected = []
    for number, values in enumerate(pools):
        expected += [(value, number) for value in values if value not in taken]
        taken |= set(values)
    assert list(zip(merged.tolist(), owner.tolist(), strict=True)) == sorted(expected)
    assert distinct(merged) == len(taken)


class TestFiles:
    def test_bytes_are_those_that_datacomp_saves(self, tmp_path):
        texts = uids([5, 2**127, 3, 3])
        theirs = as_datacomp(texts)
        theirs.sort()
        np.save(tmp_path / "theirs.npy", theirs)
        merged, _ = union([parse_uids(pa.array(texts))])
        write_subset(tmp_path / "ours.npy", merged, {"expression": "é"})
        assert (tmp_path / "ours.npy").read_bytes() == (tmp_path / "theirs.npy").read_bytes()
        assert read_subset(tmp_path / "ours.npy").tolist() == theirs.tolist()
        manifest = json.loads((tmp_path / "ours.json").read_text())
        assert manifest["expression"] == "é"
        assert manifest["subset"]["uids"] == 4

    @pytest.mark.parametrize(
        ("content", "message"),
        [
            (array([(1, 0), (0, 5)]), "not sorted, first at element 1"),
            (array([(1, 5), (1, 4)]), "not sorted, first at element 1"),
            (np.arange(4), "holds int64"),
            (array([(1, 5)]).reshape(1, 1), r"holds .* \[1, 1\]"),
        ],
    )
    def test_what_is_no_subset_is_refused(self, tmp_path, content, message):
        np.save(tmp_path / "bad.npy", content)
        with pytest.raises(SubsetError, match=message):
            read_subset(tmp_path / "bad.npy")

    def test_a_torn_file_is_refused(self, tmp_path):
        (tmp_path / "torn.npy").write_bytes(b"\x93NUMPY")
        with pytest.raises(SubsetError, match=r"torn\.npy: cannot be read"):
            read_subset(tmp_path / "torn.npy")

    def test_the_name_must_be_that_of_an_array(self, tmp_path):
        with pytest.raises(SubsetError, match=r"ends in \.npy"):
            write_subset(tmp_path / "subset.json", array([]), {})
