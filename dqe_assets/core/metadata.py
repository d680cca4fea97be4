"""Helpers for the metadata of stages: tables, previews and pictures in Markdown."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from dqe_assets.core.figures import image_markdown

if TYPE_CHECKING:
    from collections.abc import Sequence


PREVIEW_ROWS = 8
"""Rows of a preview."""

SHEET_IMAGES = 12
"""Images of a contact sheet."""


LONGEST_CELL = 500
"""Characters of a text in a table."""


Metadata = dict[str, Any]
"""Metadata of an asset by name: numbers, texts, dictionaries, Markdown."""


class Markdown(str):
    """A text that is shown as Markdown."""

    __slots__ = ()


def percentage(found: pa.ChunkedArray) -> str:
    """The share of a boolean column that is true; empty if it has no rows."""
    share = pc.mean(pc.fill_null(found, fill_value=False).cast(pa.float64())).as_py()
    return "" if share is None else f"{share:.1%}"


def with_interval(row: dict[str, Any], name: str) -> str:
    """A number of a row, with its columns ``_low`` and ``_high`` if they are there."""
    if row[f"{name}_low"] is None:
        return f"{row[name]:.3g}"
    return f"{row[name]:.3g} ({row[f'{name}_low']:.3g} to {row[f'{name}_high']:.3g})"


def picture(image: bytes, alt: str) -> Markdown:
    """A PNG inside Markdown."""
    return Markdown(image_markdown(image, alt))


def value_counts(column: pa.ChunkedArray) -> dict[str, int]:
    """How often each value occurs, the most frequent first."""
    return dict(Counter(column.to_pylist()).most_common())


def valid_values(column: pa.ChunkedArray) -> np.ndarray:
    """What is not null, as float64."""
    return column.drop_null().to_numpy().astype(np.float64)


def ranking(column: pa.ChunkedArray, name: str) -> Markdown:
    """A table of the most frequent values of a column."""
    counts = Counter(column.drop_null().to_pylist())
    return markdown_table([name, "images"], sorted(counts.items(), key=lambda item: (-item[1], item[0]))[:PREVIEW_ROWS])


def preview(table: pa.Table, columns: Sequence[str]) -> Markdown:
    """A table of the first rows."""
    rows = table.select(columns).slice(0, PREVIEW_ROWS).to_pylist()
    return markdown_table(columns, [[row[column] for column in columns] for row in rows])


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[Any]]) -> Markdown:
    """A table in Markdown. Text from the web can neither break it nor bring markup of its own."""
    lines = [header, ["---"] * len(header), *[[markdown_cell(value) for value in row] for row in rows]]
    return Markdown("\n".join("| " + " | ".join(line) + " |" for line in lines))


def markdown_cell(value: Any) -> str:
    """Text for a Markdown table: captions from the web can neither break it nor bring markup of their own."""
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.3g}"
    if isinstance(value, list):
        return ", ".join(map(str, value))
    text = str(value)
    text = text if len(text) <= LONGEST_CELL else f"{text[:LONGEST_CELL]}…"
    for mark, replacement in {"&": "&amp;", "<": "&lt;", "|": "\\|", "[": "\\[", "!": "\\!", "\n": " "}.items():
        text = text.replace(mark, replacement)
    return text
