"""The tables of signals that data/dqe.yaml names."""

from __future__ import annotations

import keyword
import re
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import pyarrow as pa
from pydantic import Field, model_validator
from pydantic_core import PydanticCustomError

from dqe_assets.signals.columns import first_wrong, signal_types
from dqe_resources.configurable import ComponentName
from dqe_resources.keyed_table import KeyedTable

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Self

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,63}")
TABLE_ROW = "table_row"
"""Column of the asset of a table: the row of the table that a sample's values are from."""


def is_name(name: str) -> bool:
    """Whether expressions can call a column so."""
    return _NAME.fullmatch(name) is not None and not keyword.iskeyword(name)


class SignalTable(KeyedTable):
    """Values of samples in a Parquet, CSV, TSV or JSON Lines file, by uid, url, image name or sha256.

    The table becomes the asset ``signals/<name>``. Each of its columns is a signal: a number, a text, or true or false.
    A sample that has no row in the table has no value.

    Attributes:
        name: Name of the table.
        key: Column of ``raw_samples`` that the table is joined by.
        columns: The columns that are signals, each called as it is, or by a name of its own (``{nsfw: p_nsfw}``); by
            default all but the key.
    """

    holds: ClassVar[str] = "signals"

    name: ComponentName
    key: Literal["uid", "url", "image_name", "sha256"] = "uid"  # type: ignore[assignment]
    columns: list[str] | dict[str, str] | None = Field(default=None, min_length=1)

    @property
    def value_columns(self) -> list[str]:
        """The columns that are named."""
        return list(self.columns.values() if isinstance(self.columns, dict) else self.columns or ())

    @cached_property
    def signals(self) -> dict[str, tuple[str, pa.DataType]]:
        """Column and type of each signal, by its name."""
        types = self._found[0]
        if isinstance(self.columns, dict):
            return {name: (column, types[column]) for name, column in self.columns.items()}
        names = self.columns or [name for name in types if name != self.key_name]
        return {name: (name, types[name]) for name in names}

    @property
    def left_out(self) -> dict[str, str]:
        """Columns that cannot be signals, and why; none of them was named."""
        return {} if self.columns else {name: why for name, why in self._found[1].items() if name != self.key_name}

    @cached_property
    def _found(self) -> tuple[dict[str, pa.DataType], dict[str, str]]:
        return signal_types(self.path)

    @model_validator(mode="after")
    def _has_signals(self) -> Self:
        try:
            refused = self._found[1]
        except (pa.ArrowException, OSError, UnicodeError, KeyError) as error:
            # Of two columns of one name, Arrow raises KeyError.
            raise PydanticCustomError("table", "{error}", {"error": self._unreadable(error)}) from error
        for column in self.value_columns:
            if column in refused:
                raise PydanticCustomError(
                    "table",
                    "{path}: column '{column}' cannot be a signal: {why}",
                    {"path": str(self.path), "column": column, "why": refused[column]},
                )
        if not self.signals:
            raise PydanticCustomError(
                "table",
                "{path} has no column that can be a signal, besides the key '{key}'",
                {"path": str(self.path), "key": self.key_name},
            )
        for name, (column, _) in self.signals.items():
            if not is_name(name) or name.lower() == TABLE_ROW:
                raise PydanticCustomError(
                    "signal",
                    "{path}: '{name}' is no name for a signal (a letter or _, then letters, digits and _, at most 64, "
                    "and no word of Python's); name it: {columns}",
                    {"path": str(self.path), "name": name, "columns": f"columns: {{my_name: '{column}'}}"},
                )
        return self

    def _unreadable(self, error: Exception) -> str:
        """Arrow counts the rows of JSON Lines from the beginning of a block."""
        wrong = first_wrong(self.path, {}) if isinstance(error, pa.ArrowInvalid) else None
        return str(wrong) if wrong else super()._unreadable(error)

    def signature(self) -> dict[str, Any]:
        """What decides the values: how the file is read, and its state."""
        return {**self.model_dump(mode="json"), **self.state(), "types": _as_text(self.signals)}


def _as_text(signals: dict[str, tuple[str, pa.DataType]]) -> dict[str, list[str]]:
    return {name: [column, str(kind)] for name, (column, kind) in signals.items()}


def check_signals(tables: Sequence[SignalTable], scorers: Sequence[str], metadata: Sequence[str]) -> None:
    """Refuse two tables of one name, and two signals of one name, to SQL too.

    Args:
        tables: the tables.
        scorers: names of the scorers, whose scores are signals too.
        metadata: the signals that sources say of their rows.

    Raises:
        PydanticCustomError: says which.
    """
    names = ["source_metadata", *(table.name.lower() for table in tables)]
    if repeated := sorted({name for name in names if names.count(name) > 1}):
        raise PydanticCustomError(
            "repeated",
            "signals: two assets would be called signals/{name}; rename the table",
            {"name": repeated[0]},
        )
    owners = {name.lower(): "the sources' metadata" for name in metadata}
    for name in scorers:
        if name.lower() in owners:
            raise PydanticCustomError(
                "repeated", "scorers: '{name}' is a column of the sources' metadata; rename the scorer", {"name": name}
            )
    owners |= {name.lower(): f"the scorer {name}" for name in scorers}
    for table in tables:
        for name, (column, _) in table.signals.items():
            owner = f"the table {table.name}"
            other = owners.setdefault(name.lower(), owner)
            if other != owner or sum(one.lower() == name.lower() for one in table.signals) > 1:
                raise PydanticCustomError(
                    "repeated",
                    "signals: '{name}' is a signal of {other} and of {owner}; name the columns of the table: {columns}",
                    {
                        "name": name,
                        "other": other,
                        "owner": owner,
                        "columns": f"columns: {{{table.name}_{name}: {column}}}",
                    },
                )
