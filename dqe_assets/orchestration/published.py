"""The folders that ``dqe publish`` has written, so that what was taken down since can be found in them."""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from dqe_assets.filtering.subset import SubsetError, manifest_path, order_of, parse_uids, read_subset, write_subset
from dqe_resources.cache import data_directory
from dqe_resources.fingerprint import fingerprint

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy as np
    import pyarrow as pa
    from numpy.typing import NDArray


@dataclass(frozen=True)
class Published:
    """A folder that was published, and the sorted uids of its samples."""

    folder: Path
    uids: NDArray[np.void]


def note_published(folder: Path, uids: pa.ChunkedArray) -> None:
    """Note a folder that is about to be written, in place of what was noted of it before.

    Args:
        folder: the folder.
        uids: strings [n] of its samples.

    Raises:
        StorageError: the note cannot be written.
    """
    place = folder.absolute()
    parsed = parse_uids(uids)
    path = _notes() / f"{fingerprint(str(place))}.npy"
    write_subset(path, parsed[order_of(parsed)], {"folder": str(place)})


def published() -> Iterator[Published]:
    """The folders that are still there."""
    for path in sorted(_notes().glob("*.npy")):
        # A note that was not finished is of a folder that was not begun.
        with suppress(OSError, ValueError, KeyError, TypeError, SubsetError):
            folder = Path(json.loads(manifest_path(path).read_bytes())["folder"])
            if folder.is_dir():
                yield Published(folder, read_subset(path))


def _notes() -> Path:
    return data_directory() / "published"
