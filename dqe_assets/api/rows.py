"""What the functions return: a table of Arrow's, with ways to other libraries."""

from __future__ import annotations

import html
from importlib import import_module
from typing import TYPE_CHECKING, Any

from dqe_resources.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import pyarrow as pa

_SHOWN = 10
_LONGEST = 200


class Rows:
    """A table. All that a ``pyarrow.Table`` has, it has too, as ``num_rows``, ``column`` and ``filter``.

    Attributes:
        arrow: the ``pyarrow.Table`` itself. DuckDB, Polars and others also take these rows as they are, by Arrow's
            PyCapsule interface.
    """

    def __init__(self, table: pa.Table) -> None:
        self.arrow = table

    def to_pandas(self, **options: Any) -> Any:
        """A ``pandas.DataFrame``; the options are those of ``pyarrow.Table.to_pandas``.

        Raises:
            UsageError: pandas is not installed.
        """
        _installed("pandas", "pandas")
        return self.arrow.to_pandas(**options)

    def to_polars(self) -> Any:
        """A ``polars.DataFrame``.

        Raises:
            UsageError: Polars is not installed.
        """
        return _installed("polars", "polars").from_arrow(self.arrow)

    def to_dataset(self) -> Any:
        """A ``datasets.Dataset``.

        Raises:
            UsageError: datasets is not installed.
        """
        return _installed("datasets", ".[hf]").Dataset(self.arrow)

    def __getattr__(self, name: str) -> Any:
        # Copies are made without __init__, and ask before there is a table.
        if name == "arrow" or name.startswith("__"):
            raise AttributeError(name)
        return getattr(self.arrow, name)

    def __arrow_c_stream__(self, requested_schema: object = None) -> object:
        return self.arrow.__arrow_c_stream__(requested_schema)

    def __len__(self) -> int:
        return self.arrow.num_rows

    def __getitem__(self, key: int | str) -> pa.ChunkedArray:
        return self.arrow[key]

    def __iter__(self) -> Iterator[dict[str, Any]]:
        for batch in self.arrow.to_batches(max_chunksize=1024):
            yield from batch.to_pylist()

    def __dir__(self) -> list[str]:
        return sorted({*super().__dir__(), *dir(self.arrow)})

    def __repr__(self) -> str:
        return f"{type(self).__name__} of {self.arrow.num_rows:,} rows: {', '.join(self.arrow.column_names)}"

    def _repr_html_(self) -> str:
        """The first rows, for notebooks: captions are the web's, and only text here."""
        first = self.arrow.slice(0, _SHOWN)
        rows = zip(*(column.to_pylist() for column in first.columns), strict=True)
        body = "".join(f"<tr>{_cells('td', row)}</tr>" for row in rows)
        more = f"<p>{self.arrow.num_rows:,} rows</p>" if self.arrow.num_rows > _SHOWN else ""
        return f"<table><thead><tr>{_cells('th', first.column_names)}</tr></thead><tbody>{body}</tbody></table>{more}"


def _cells(tag: str, values: Sequence[Any]) -> str:
    return "".join(f"<{tag}>{html.escape(_text(value))}</{tag}>" for value in values)


def _text(value: Any) -> str:
    if value is None:
        return ""
    text = f"{value:.4g}" if isinstance(value, float) else str(value)
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…"


def _installed(module: str, package: str) -> Any:
    try:
        return import_module(module)
    except ImportError as error:
        raise UsageError(f"{module} is not installed: pip install '{package}'") from error
