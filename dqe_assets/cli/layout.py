"""How a table is laid out in a terminal: no word of a heading and no number is broken, however narrow it is.

Text wraps between words. What still does not fit goes into further tables below the first one, each of which repeats
the first column.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from rich.cells import cell_len

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

_READABLE = 16
"""Text is given this many characters before another column goes into the next table."""

_LONGEST_WORD = 32
"""A longer word of a cell (an address, an expression) may be broken."""

_EDGES = 2
_BETWEEN = 2


@dataclass(frozen=True)
class Column:
    """A column of text that is ready to be shown.

    Attributes:
        heading: its name.
        cells: what stands in it.
        wraps: whether its cells may take several lines: text does, numbers do not.
    """

    heading: str
    cells: Sequence[str]
    wraps: bool

    @property
    def is_empty(self) -> bool:
        """Whether no row has a value."""
        return not any(self.cells)

    @cached_property
    def full(self) -> int:
        """The width at which nothing wraps."""
        return max(_longest_line([self.heading]), _longest_line(self.cells))

    @cached_property
    def least(self) -> int:
        """The smallest width at which it can still be read."""
        needed = _longest_line(self.cells)
        if self.wraps:
            word = min(_longest_line(part for cell in self.cells for part in cell.split()), _LONGEST_WORD)
            needed = min(needed, max(word, _READABLE))
        return max(needed, _longest_line(self.heading.split()))


def lay_out(columns: Sequence[Column], width: int) -> list[list[tuple[Column, int]]]:
    """The tables to show one below the other: the columns of each, with their widths in characters.

    Args:
        columns: all columns, the first of which tells rows apart.
        width: of the terminal. Columns without a value are left out if it does not suffice for all.
    """
    if not _fits(columns, width):
        columns = [column for column in columns if not column.is_empty] or columns[:1]
    tables = [[columns[0]]] if columns else []
    for column in columns[1:]:
        if len(tables[-1]) > 1 and not _fits([*tables[-1], column], width):
            tables.append([columns[0]])
        tables[-1].append(column)
    return [_with_widths(table, width) for table in tables]


def _fits(columns: Sequence[Column], width: int) -> bool:
    return sum(column.least for column in columns) <= _room(len(columns), width)


def _room(columns: int, width: int) -> int:
    """Characters for the cells of so many columns."""
    return width - _EDGES - _BETWEEN * (columns - 1)


def _with_widths(columns: Sequence[Column], width: int) -> list[tuple[Column, int]]:
    """The least widths, and what is left shared by the columns that would wrap; cut down where not even those fit."""
    room = _room(len(columns), width)
    widths = [column.least for column in columns]
    while sum(widths) > room and max(widths) > 1:
        widths[widths.index(max(widths))] -= 1
    while sum(widths) < room:
        wanting = [place for place, column in enumerate(columns) if widths[place] < column.full]
        if not wanting:
            break
        widths[min(wanting, key=lambda place: widths[place])] += 1
    return list(zip(columns, widths, strict=True))


def _longest_line(texts: Iterable[str]) -> int:
    return max((cell_len(line) for text in texts for line in text.splitlines()), default=0)
