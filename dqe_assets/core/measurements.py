"""Tables of measurements from users: CSV, TSV, Parquet or JSON Lines. Errors name the file and the row."""

from __future__ import annotations

import csv
import json
import math
import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from pydantic import BeforeValidator, Field, field_validator
from pydantic_core import PydanticCustomError

from dqe_resources.cache import in_data_directory
from dqe_resources.configurable import Strict
from dqe_resources.errors import DataQualityError, one_line

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

EXAMPLE = "example"
"""The value of a setting that stands for the made-up measurements that come with the platform."""

TRAINED = "trained"
"""The value of a setting that stands for what the platform itself has trained and evaluated."""

EXAMPLE_SOURCE = "made-up example"
"""What tables and pictures say of numbers that come from such an example."""


_MULTIPLES = {"": 1, "k": 10**3, "m": 10**6, "b": 10**9, "g": 10**9}


def parse_count(value: Any) -> Any:
    """A number of samples from ``32M``, ``12.8M``, ``640_000_000`` or a number.

    Raises:
        ValueError: it is none of these.
    """
    if not isinstance(value, str):
        return value
    found = re.fullmatch(r"\s*([0-9][0-9_,]*\.?[0-9]*)\s*([kKmMbBgG]?)\s*", value)
    if not found:
        raise ValueError(f"'{value}' is not a number of samples such as 32M or 640000000")
    return round(float(found[1].replace("_", "").replace(",", "")) * _MULTIPLES[found[2].lower()])


_WrittenCount = Annotated[int, Field(ge=1, le=10**15)]
SampleCount = Annotated[_WrittenCount, BeforeValidator(parse_count, json_schema_input_type=_WrittenCount | str)]


class MeasurementsError(DataQualityError):
    """Measurements cannot be read: a line for each fault, with the file and the row."""


class MeasurementSettings(Strict):
    """Settings with a table of measurements: the made-up example of the stage, one's own, or what was trained here.

    Attributes:
        measurements: ``example``; ``trained``; or the path of a table, from the data folder.
    """

    example: ClassVar[Path]
    trained: ClassVar[str]
    """The asset that ``trained`` stands for."""

    measurements: str = EXAMPLE

    @field_validator("measurements")
    @classmethod
    def _is_there(cls, value: str) -> str:
        path = cls._file(value)
        if value != TRAINED and not path.is_file():
            raise PydanticCustomError(
                "missing",
                "there is no file {path}; allowed: 'example', 'trained', or a CSV, Parquet or JSON Lines file",
                {"path": str(path)},
            )
        return value

    @property
    def path(self) -> Path | None:
        """The table to read; None for what was trained here, which is an asset."""
        return None if self.is_trained else self._file(self.measurements)

    @property
    def is_trained(self) -> bool:
        """Whether the table is an asset: what was trained here."""
        return self.measurements == TRAINED

    @property
    def source(self) -> str:
        """What to call it."""
        path = self.path
        return self.trained if path is None else EXAMPLE_SOURCE if self.measurements == EXAMPLE else path.name

    @classmethod
    def _file(cls, value: str) -> Path:
        return cls.example if value == EXAMPLE else in_data_directory(value)


def finite_number(name: str, value: Any) -> float:
    """A value as a number.

    Raises:
        MeasurementsError: it is none, or not finite.
    """
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = math.nan
    if isinstance(value, bool) or not math.isfinite(number):
        raise MeasurementsError(f"{name} is {str(value)!r}, it must be a number")
    return number


def table_rows(path: Path) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """The rows of a table, each with what to call it; lines of a CSV file that begin with # are left out.

    Raises:
        MeasurementsError: the file cannot be read; says the line.
    """
    if path.suffix in {".jsonl", ".ndjson", ".json"}:
        yield from json_lines(path)
    elif path.suffix in {".parquet", ".pq"}:
        yield from _parquet_rows(path)
    elif path.suffix in {".csv", ".tsv"}:
        lines = [(number, line) for number, line in _lines(path) if not line.startswith("#")]
        reader = csv.DictReader((line for _, line in lines), delimiter="\t" if path.suffix == ".tsv" else ",")
        for row in reader:
            yield f"line {lines[reader.line_num - 1][0]}", row
    else:
        raise MeasurementsError(f"{path}: a file of measurements ends in .csv, .tsv, .parquet or .jsonl")


def _parquet_rows(path: Path) -> Iterator[tuple[str, Mapping[str, Any]]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.read_table(path, page_checksum_verification=True)
    except (pa.ArrowException, OSError) as error:
        raise MeasurementsError(f"{path}: cannot be read ({one_line(error)})") from error
    for number, row in enumerate(table.to_pylist(), 1):
        yield f"row {number}", row


def json_lines(path: Path) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """The objects of a JSON Lines file, each with what to call it.

    Raises:
        MeasurementsError: a line is no object of JSON.
    """
    for number, line in _lines(path):
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise MeasurementsError(f"{path}, line {number}: not JSON ({error})") from error
        if not isinstance(row, dict):
            raise MeasurementsError(f"{path}, line {number}: not an object of JSON")
        yield f"line {number}", row


def _lines(path: Path) -> list[tuple[int, str]]:
    try:
        text = file_bytes(path).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise MeasurementsError(f"{path}: not UTF-8 ({error})") from error
    return [(number, line) for number, line in enumerate(text.splitlines(), 1) if line.strip()]


def file_bytes(path: Path) -> bytes:
    """The content of a file.

    Raises:
        MeasurementsError: it cannot be read.
    """
    try:
        return path.read_bytes()
    except OSError as error:
        raise MeasurementsError(f"{path}: cannot be read ({error.strerror or error})") from error
