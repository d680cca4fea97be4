"""Images and captions as people hold them in Python, as rows of a source."""

from __future__ import annotations

import io
import os
from contextlib import contextmanager
from numbers import Real
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow.compute as pc

from dqe_resources.cache import data_directory, data_folder
from dqe_resources.errors import DataQualityError, UsageError
from dqe_resources.sources.local_file import LocalFile
from dqe_resources.sources.rows import SourceRow
from dqe_resources.sources.texts import captions_of, is_storable, readable, shortened

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    import pyarrow as pa

IMAGES = "bytes, a path, a PIL image, or a dictionary with bytes or path"

_URLS = ("http://", "https://")


class RowError(DataQualityError):
    """A row that was given cannot be used: says which and why.

    Attributes:
        row: its number, from 0.
        reason: in a word, as the column ``reason`` of ``quality`` has it.
    """

    def __init__(self, row: int, reason: str, message: str) -> None:
        super().__init__(message)
        self.row = row
        self.reason = reason


@contextmanager
def models_at_hand() -> Iterator[None]:
    """Where models that come inside packages are kept, once they are converted, if no data folder is meant.

    That is the data folder of ``DQE_DATA``, or ``./data`` if it is one; else a folder of the user's cache.
    """
    folder = data_directory()
    if "DQE_DATA" not in os.environ and not (folder / "dqe.yaml").is_file():
        cache = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
        folder = Path(cache).expanduser() / "data-quality-engine"
    with data_folder(folder):
        yield


def row_of(number: int, image: Any, caption: Any = None) -> SourceRow:
    """A row of a source, under its number; what is wrong with it is its fault.

    Args:
        number: its number.
        image: one of ``IMAGES``, or nothing.
        caption: a text, a list of texts, or nothing.
    """
    said = captions_of(plain(caption))
    found, fault = _image_of(plain(image))
    if said is None:
        said, fault = (None, None), f"its caption is no text but {_kind(caption)}"
    return SourceRow(str(number), said[0], None if fault else found, fault=fault, captions=said[1])


def file_of(image: Any) -> str | None:
    """The path or name of the file that an image came from, if it says so."""
    path = image.get("path") if isinstance(image, dict) else image
    path = getattr(path, "filename", path)
    return readable(os.fspath(path)) if isinstance(path, str | Path) and path else None


def given_texts(captions: Iterable[Any]) -> list[str | None]:
    """Captions as a list; what stands for nothing is None.

    Raises:
        RowError: one is no text.
        UsageError: they are a single text.
    """
    _refuse_one(captions, "captions", str)
    found: list[str | None] = []
    for number, caption in enumerate(captions):
        text = plain(caption)
        if not is_storable(text):
            what = "a text that is not UTF-8" if isinstance(text, str) else _kind(text)
            raise RowError(number, "bad_row", f"captions, row {number}: expected a text or None, found {what}")
        found.append(text)
    return found


def given_images(images: Iterable[Any]) -> Iterable[Any]:
    """Images, if they are several.

    Raises:
        UsageError: they are a single one.
    """
    _refuse_one(images, "images", (str, bytes, bytearray, memoryview, Path, dict))
    return images


def refuse_failed(raw: pa.Table, images: Sequence[Any]) -> None:
    """Nothing, if every image could be read.

    Args:
        raw: status, reason, detail and fault of rows of ``row_of``, under their names.
        images: all images.

    Raises:
        RowError: of the first that could not.
    """
    failed = raw.filter(pc.or_(pc.not_equal(raw["status"], "ok"), pc.is_valid(raw["fault"])))
    for one in failed.slice(0, 1).to_pylist():
        number = int(one["image_name"])
        name = file_of(images[number])
        where = f"images, row {number}{f' ({name})' if name else ''}"
        reason = "fault" if one["status"] == "ok" else one["reason"]
        raise RowError(number, reason, f"{where}: {reason}: {one['fault'] or one['detail']}")


def _image_of(image: Any) -> tuple[bytes | LocalFile | None, str | None]:
    """The image, or what is wrong with it."""
    if isinstance(image, dict):
        if image and not {"bytes", "path"} & image.keys():
            return None, f"its image is a dictionary with neither bytes nor path; expected {IMAGES}"
        image = image.get("path") if image.get("bytes") is None else image["bytes"]
    match image:
        case None:
            return None, None
        case bytes() | bytearray() | memoryview():
            return bytes(image), None
        case str() if image.lower().startswith(_URLS):
            return None, "its image is a URL, and nothing is fetched here: dqe materialize fetches"
        case str() | Path():
            return LocalFile(Path(image).expanduser(), None), None
    return _encoded(image) if hasattr(image, "getexif") else (None, f"its image is {_kind(image)}; expected {IMAGES}")


def _encoded(picture: Any) -> tuple[bytes | None, str | None]:
    """A PIL image as a PNG of the same pixels, which is then read like any other file."""
    written = io.BytesIO()
    try:
        suited = picture if picture.mode in _PNG_MODES else picture.convert("RGB")
        suited.save(written, "PNG", compress_level=1, exif=picture.getexif())
    except (OSError, ValueError, SyntaxError) as error:
        return None, f"its picture cannot be read: {shortened(readable(str(error)))}"
    return written.getvalue(), None


_PNG_MODES = frozenset({"1", "L", "LA", "I", "I;16", "P", "RGB", "RGBA"})


def plain(value: Any) -> Any:
    """A value of a data frame as Python has it: nothing as None, and an array of texts as a list."""
    if type(value).__module__ == "numpy" and getattr(value, "ndim", 0) == 1:
        return value.tolist()
    is_nothing = type(value).__name__ in {"NAType", "NaTType"} or (isinstance(value, Real) and value != value)  # noqa: PLR0124
    return None if is_nothing else value


def _refuse_one(values: Any, what: str, kinds: Any) -> None:
    if isinstance(values, kinds) or not hasattr(values, "__iter__"):
        raise UsageError(f"{what}: expected a list of them, found {_kind(values)}")


def _kind(value: Any) -> str:
    return f"a value of type {type(value).__module__}.{type(value).__qualname__}".replace("builtins.", "")
