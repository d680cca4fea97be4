from __future__ import annotations

import io
from typing import TYPE_CHECKING

import hypothesis.strategies as st
import pyarrow as pa
from hypothesis import given
from rich.cells import cell_len
from rich.console import Console

from dqe_assets.cli import terminal
from dqe_assets.cli.layout import Column, lay_out

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pytest


def printed(table: pa.Table, width: int, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    console = Console(file=io.StringIO(), width=width)
    monkeypatch.setattr(terminal, "console", console)
    terminal.print_table(table)
    return console.file.getvalue().splitlines()


def test_a_table_that_fits_is_one_table_with_empty_columns_and_all(monkeypatch: pytest.MonkeyPatch) -> None:
    table = pa.table({"image_name": ["a.jpg"], "bytes": [25_649], "share": [0.25], "url": pa.nulls(1, pa.string())})
    assert [line.rstrip() for line in printed(table, 80, monkeypatch) if line.strip()] == [
        " image name   bytes  share  url",
        " ──────────────────────────────",
        " a.jpg       25,649  0.250",
    ]


def test_columns_without_a_value_go_first_where_the_terminal_is_narrow(monkeypatch: pytest.MonkeyPatch) -> None:
    table = pa.table({"image_name": ["a.jpg"], "bytes": [25_649], "share": [0.25], "url": pa.nulls(1, pa.string())})
    assert [line.split() for line in printed(table, 24, monkeypatch)[1:3]] == [["image"], ["name", "bytes", "share"]]


def test_what_does_not_fit_goes_into_a_further_table_with_the_first_column(monkeypatch: pytest.MonkeyPatch) -> None:
    table = pa.table({"shard": ["sample-00000", "sample-00001"], **{f"count_{n}": [n, 10**9 + n] for n in range(5)}})
    lines = [line.split() for line in printed(table, 60, monkeypatch) if line.strip()]
    assert [line for line in lines if line[0] == "shard"] == [
        ["shard", "count", "0", "count", "1", "count", "2"],
        ["shard", "count", "3", "count", "4"],
    ]
    assert [line for line in lines if line[0] == "sample-00001"] == [
        ["sample-00001", "1,000,000,000", "1,000,000,001", "1,000,000,002"],
        ["sample-00001", "1,000,000,003", "1,000,000,004"],
    ]


def test_text_wraps_between_words_and_nothing_is_obeyed_as_markup(monkeypatch: pytest.MonkeyPatch) -> None:
    caption = "[red]a cat[/red] that looks out of a window, with \x1b[31mgreen eyes\x07 and a pink nose"
    lines = printed(pa.table({"image_name": ["chelsea.jpg"], "caption": [caption]}), 50, monkeypatch)
    said = r"chelsea.jpg [red]a cat[/red] that looks out of a window, with \x1b[31mgreen eyes\x07 and a pink nose"
    assert " ".join(" ".join(lines[3:]).split()) == said


def test_a_long_address_is_broken_rather_than_the_terminal_overrun(monkeypatch: pytest.MonkeyPatch) -> None:
    table = pa.table({"uid": ["0" * 32], "url": ["https://example.org/" + "z" * 100]})
    lines = printed(table, 40, monkeypatch)
    assert max(map(cell_len, lines)) <= 40
    assert "".join("".join(lines).split()).count("z") == 100


_TEXT = st.text(st.characters(exclude_categories=("C", "Z")), max_size=30)


@given(
    columns=st.lists(
        st.tuples(st.text("abc _", min_size=1, max_size=20), st.lists(_TEXT, min_size=2, max_size=2), st.booleans()),
        min_size=1,
        max_size=12,
    ),
    width=st.integers(20, 120),
)
def test_no_table_is_wider_than_the_terminal_and_no_column_is_lost(
    columns: Sequence[tuple[str, list[str], bool]], width: int
) -> None:
    all_columns = [Column(*column) for column in columns]
    tables = lay_out(all_columns, width)
    for table in tables:
        assert sum(size + 2 for _, size in table) <= width
        if len(table) == 1 or sum(column.least + 2 for column, _ in table) <= width:
            assert all(size >= min(column.least, width - 2) for column, size in table)
    shown = [id(column) for table in tables for column, _ in table]
    assert all(id(column) in shown for column in all_columns if not column.is_empty)
