"""Data frames, Arrow tables and Hugging Face data sets, as rows of an image and a caption."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dqe_assets.api.given import IMAGES, plain
from dqe_resources.errors import UsageError
from dqe_resources.images import IMAGE_SUFFIXES
from dqe_resources.sources.guess_columns import Chosen, Columns
from dqe_resources.sources.texts import captions_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_HEAD = 50
"""Rows by which the columns are told."""

_ROWS_AT_ONCE = 64

ACCEPTED = "a folder, a pandas or Polars data frame, a datasets.Dataset, or an Arrow table"


@dataclass(frozen=True)
class Frame:
    """A table of someone else's.

    Attributes:
        names: its columns.
        rows: how many rows it has; None if that is not known.
        read: gives the values of some columns, a tuple for each row, few of which are in memory at once.
    """

    names: list[str]
    rows: int | None
    read: Callable[[list[str]], Iterator[tuple[Any, ...]]]

    def columns(self, chosen: Chosen) -> tuple[str, str | None]:
        """The columns of the image and of the caption, which a table of images alone lacks.

        Raises:
            UsageError: it cannot be told which, or there is none of images.
        """
        head = list(islice(self.read(self.names), _HEAD))
        values = {name: [plain(row[place]) for row in head] for place, name in enumerate(self.names)}
        images = [name for name, some in values.items() if _are_mostly(_may_be_image, some)]
        texts = [name for name, some in values.items() if name not in images and _are_mostly(_may_be_caption, some)]
        found = Columns("the data", values, chosen, images, texts)
        image = found.image()
        if image is None:
            raise UsageError(f"the data: no column of images ({IMAGES}). {found.named()}. {chosen.say('image')}")
        return image, found.likely_caption(image)


def frame_of(dataset: Any) -> Frame:
    """What is given, as a table.

    Raises:
        UsageError: it is none that is known; says what to do.
    """
    if isinstance(dataset, dict):
        splits = ", ".join(map(str, dataset))
        raise UsageError(f"expected one table, found several: {splits}; give one of them, such as dataset['train']")
    if hasattr(dataset, "collect") and hasattr(dataset, "collect_schema"):
        raise UsageError("a LazyFrame has no rows yet: give frame.collect()")
    if hasattr(dataset, "iloc") and hasattr(dataset, "columns"):
        return _of_pandas(dataset)
    if hasattr(dataset, "iter_rows") and hasattr(dataset, "columns"):
        return Frame(list(dataset.columns), len(dataset), lambda names: dataset.select(names).iter_rows())
    if hasattr(dataset, "select_columns") and hasattr(dataset, "cast_column"):
        return _of_dataset(dataset)
    if hasattr(dataset, "__arrow_c_stream__"):
        return _of_arrow(dataset)
    raise UsageError(f"expected {ACCEPTED}, found a value of type {type(dataset).__qualname__}")


def _of_pandas(dataset: Any) -> Frame:
    names = list(map(str, dataset.columns))
    if len({*names}) < len(names):
        raise UsageError(f"two columns of the data frame have one name: {', '.join(names)}; rename one")
    places = {name: place for place, name in enumerate(names)}

    def read(wanted: list[str]) -> Iterator[tuple[Any, ...]]:
        return zip(*(dataset.iloc[:, places[name]] for name in wanted), strict=True)

    return Frame(names, len(dataset), read)


def _of_dataset(dataset: Any) -> Frame:
    features = dataset.features
    if features is None:
        raise UsageError("the data set does not say which columns it has: give its features when it is loaded")

    def read(wanted: list[str]) -> Iterator[tuple[Any, ...]]:
        from datasets import Image

        some = dataset.select_columns(wanted)
        for name in wanted:
            if isinstance(features[name], Image):
                # Decoded here, by the rules of every other image, and one that is broken costs its row alone.
                some = some.cast_column(name, Image(decode=False))
        for row in some.with_format(None) if hasattr(some, "with_format") else some:
            yield tuple(row[name] for name in wanted)

    return Frame(list(features), len(dataset) if hasattr(dataset, "__len__") else None, read)


def _of_arrow(dataset: Any) -> Frame:
    import pyarrow as pa

    table = dataset if isinstance(dataset, pa.Table) else pa.table(dataset)

    def read(wanted: list[str]) -> Iterator[tuple[Any, ...]]:
        for batch in table.select(wanted).to_batches(max_chunksize=_ROWS_AT_ONCE):
            yield from zip(*(column.to_pylist() for column in batch.columns), strict=True)

    return Frame(table.column_names, table.num_rows, read)


def _may_be_image(value: Any) -> bool:
    """Whether a value is of a kind that holds an image, or a name of a file of one."""
    if isinstance(value, dict):
        return "bytes" in value or "path" in value
    if isinstance(value, str):
        return Path(value).suffix.lower() in IMAGE_SUFFIXES
    return isinstance(value, bytes | bytearray | memoryview | Path) or hasattr(value, "getexif")


def _may_be_caption(value: Any) -> bool:
    return captions_of(value) is not None


def _are_mostly(what: Callable[[Any], bool], values: list[Any]) -> bool:
    """Whether half of the values are, of those that are known: what is wrong costs its row alone."""
    known = [value for value in values if value is not None]
    return bool(known) and 2 * sum(map(what, known)) >= len(known)
