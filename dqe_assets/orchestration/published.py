"""Where ``dqe publish`` has written to, so that what was taken down since can be found in them."""

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
    """A folder or URL that was published to, and the sorted uids of its samples."""

    place: str
    uids: NDArray[np.void]

    @property
    def folder(self) -> Path | None:
        """The folder; None if it is elsewhere."""
        return None if _is_url(self.place) else Path(self.place)


def note_published(place: str, uids: pa.ChunkedArray) -> None:
    """Note a folder or URL that is about to be written to, in place of what was noted of it before.

    Args:
        place: the path or URL.
        uids: strings [n] of its samples.

    Raises:
        StorageError: the note cannot be written.
    """
    place = place if _is_url(place) else str(Path(place).absolute())
    parsed = parse_uids(uids)
    path = _notes() / f"{fingerprint(place)}.npy"
    write_subset(path, parsed[order_of(parsed)], {"folder": place})


def published() -> Iterator[Published]:
    """The folders that are still there, and all URLs: whether those are there is not asked for."""
    for path in sorted(_notes().glob("*.npy")):
        # A note that was not finished is of a folder that was not begun.
        with suppress(OSError, ValueError, KeyError, TypeError, SubsetError):
            place = json.loads(manifest_path(path).read_bytes())["folder"]
            if _is_url(place) or Path(place).is_dir():
                yield Published(place, read_subset(path))


def _is_url(place: str) -> bool:
    return "://" in place


def _notes() -> Path:
    return data_directory() / "published"
