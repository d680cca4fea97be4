"""The captioner that reads captions made elsewhere from a table."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Literal

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pydantic import model_validator
from pydantic_core import PydanticCustomError

from dqe_resources.captioners.protocol import Caption, Captioner, CaptionerError, Sample
from dqe_resources.component import ExistingPath
from dqe_resources.errors import one_line

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from typing import Self

_BLOCK_BYTES = 8 << 20
_SEPARATORS = {".csv": ",", ".tsv": "\t"}
_JSON_LINES = (".jsonl", ".ndjson")
_SUFFIXES = (".parquet", *_SEPARATORS, *_JSON_LINES)


class TableCaptioner(Captioner):
    """Takes each sample's caption from a Parquet, CSV, TSV or JSON Lines file, by uid, url or image name.

    The file is read once for each shard, in blocks, and only the rows of that shard are held. A sample without a row
    gets no caption, and its row says so; lower ``min_coverage`` where the table is not meant to hold them all.
    """

    kind: ClassVar[str] = "table"
    asset: ClassVar[str] = "raw_samples"
    columns: ClassVar[tuple[str, ...]] = ("uid", "url", "image_name")

    path: ExistingPath
    """The file: .parquet, .csv, .tsv, .jsonl or .ndjson."""
    caption_column: str = "caption"
    """Its column of captions."""
    key: Literal["uid", "url", "image_name"] = "uid"
    """The column of ``raw_samples`` that it is joined by."""
    key_column: str | None = None
    """Its column of keys; by default named as ``key``."""
    model: str | None = None
    """The model that wrote the captions."""
    model_column: str | None = None
    """Its column of models, where they are of several."""

    @model_validator(mode="after")
    def _columns_are_there(self) -> Self:
        if self.path.suffix.lower() not in _SUFFIXES or not self.path.is_file():
            raise PydanticCustomError(
                "table",
                "{path}: expected a file ending in {suffixes}",
                {"path": str(self.path), "suffixes": _listed(_SUFFIXES)},
            )
        try:
            found = self._names()
        except (pa.ArrowException, OSError) as error:
            raise PydanticCustomError("table", "{error}", {"error": self._unreadable(error)}) from error
        for column in self._wanted:
            if column not in found:
                raise PydanticCustomError(
                    "table",
                    "{path} has no column '{column}'; it has: {found}",
                    {"path": str(self.path), "column": column, "found": _listed(found)},
                )
        return self

    @property
    def model_id(self) -> str:
        """The model that the settings name, or the file."""
        return self.model or f"table {self.path.name}"

    @property
    def pool(self) -> str | None:
        """None: nothing is run."""
        return None

    def signature(self) -> dict[str, Any]:
        """The settings, and the state of the file."""
        state = self.path.stat()
        return {**super().signature(), "bytes": state.st_size, "modified": state.st_mtime_ns}

    def caption(self, samples: Iterator[Sample]) -> Iterator[tuple[int, Caption]]:
        """The caption in each sample's row of the table, in order; an error where there is no such row.

        Raises:
            CaptionerError: the file cannot be read, or has rows of one key with different captions.
        """
        keys = [sample.values[self.key] for sample in samples]
        try:
            found = self._find(keys)
        except (pa.ArrowException, OSError) as error:
            raise CaptionerError(self._unreadable(error)) from error
        for index, key in enumerate(keys):
            if key in found:
                _, text, model = found[key]
                yield index, Caption(text, model=model)
            else:
                named = f"no row of {self.path.name} with a caption has the {self._key} '{key}'"
                yield index, Caption(None, "error", f"the sample has no {self.key}" if key is None else named)

    @property
    def _key(self) -> str:
        return self.key_column or self.key

    @property
    def _wanted(self) -> list[str]:
        return list(dict.fromkeys(filter(None, (self._key, self.caption_column, self.model_column))))

    def _find(self, keys: list[str | None]) -> dict[str, tuple[int, str, str | None]]:
        """Row number, caption and model of each key that has a caption."""
        wanted = pa.array({key for key in keys if key is not None}, pa.string())
        found: dict[str, tuple[int, str, str | None]] = {}
        first = 1
        for batch in self._batches():
            columns = [batch.column(name).cast(pa.string()) for name in self._wanted]
            named = dict(zip(self._wanted, columns, strict=True))
            key_values, captions = named[self._key], named[self.caption_column]
            inside = pc.and_(pc.is_in(key_values, value_set=wanted), pc.is_valid(captions))
            rows = pc.indices_nonzero(inside)
            models = named[self.model_column].take(rows) if self.model_column else pa.nulls(len(rows))
            taken = (rows, key_values.take(rows), captions.take(rows), models)
            for row, key, text, model in zip(*(column.to_pylist() for column in taken), strict=True):
                earlier = found.setdefault(key, (first + row, text, model))
                if earlier[1] != text:
                    message = (
                        f"{self.path}: rows {earlier[0]:,} and {first + row:,} have the same {self._key} '{key}' and "
                        "different captions; leave one of them, or join by another key"
                    )
                    raise CaptionerError(message)
            first += batch.num_rows
        return found

    def _names(self) -> list[str]:
        if self.path.suffix.lower() == ".parquet":
            return pq.read_schema(self.path).names
        with self._reader(as_text=()) as reader:
            return reader.schema.names

    def _batches(self) -> Iterator[pa.RecordBatch]:
        if self.path.suffix.lower() == ".parquet":
            with pq.ParquetFile(self.path) as file:
                yield from file.iter_batches(columns=self._wanted)
        else:
            with self._reader(as_text=self._wanted) as reader:
                for batch in reader:
                    yield batch.select(self._wanted)

    def _reader(self, as_text: Sequence[str]) -> Any:
        """A reader that leaves some columns as the text that they are: 007 is no number, and 2009-01-01 no moment."""
        suffix, text = self.path.suffix.lower(), dict.fromkeys(as_text, pa.string())
        if suffix in _JSON_LINES:
            from pyarrow import json

            schema = pa.schema(list(text.items())) if text else None
            return json.open_json(
                self.path,
                json.ReadOptions(block_size=_BLOCK_BYTES),
                json.ParseOptions(explicit_schema=schema, unexpected_field_behavior="ignore" if text else "infer"),
            )
        from pyarrow import csv

        return csv.open_csv(
            self.path,
            csv.ReadOptions(block_size=_BLOCK_BYTES),
            csv.ParseOptions(delimiter=_SEPARATORS[suffix], newlines_in_values=True),
            csv.ConvertOptions(column_types=text, strings_can_be_null=True, null_values=[""]),
        )

    def _unreadable(self, error: Exception) -> str:
        return f"{self.path}: cannot be read as {self.path.suffix} ({one_line(error)})"


def _listed(names: list[str] | tuple[str, ...]) -> str:
    return ", ".join(names[:20]) + (" ..." if len(names) > 20 else "")
