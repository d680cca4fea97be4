"""A folder of files, each written atomically, the manifest last. A killed run goes on where it stopped."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from dqe_assets.publish.selection import PublishError
from dqe_assets.training.reshard import MANIFEST, UNFINISHED, read_record, write_record
from dqe_resources.fingerprint import fingerprint
from dqe_resources.locks import LOCK, folder_alone
from dqe_resources.store import replace_file

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path
    from typing import BinaryIO

_TORN = ".*.tmp"


@dataclass(frozen=True, slots=True)
class File:
    """A file to write.

    Attributes:
        name: path in the folder.
        samples: how many it holds.
        write: writes it: always the same bytes.
    """

    name: str
    samples: int
    write: Callable[[BinaryIO], Any]


def write_folder(
    folder: Path,
    about: Mapping[str, Any],
    files: Sequence[File],
    track: Callable[[int, int], None] = lambda _, __: None,
) -> dict[str, Any]:
    """Write the files that are not there yet, and then the manifest, which is returned.

    Args:
        folder: empty, absent, or holding these very files, finished or not.
        about: everything that decides what is written, as JSON: what the manifest says of it.
        files: what to write, in order.
        track: is told how many samples of how many have been written.

    Raises:
        PublishError: the folder holds something else.
        LockError: another run is writing to it, or it cannot be written.
        StorageError: a file cannot be written; what is finished is kept.
    """
    identity = fingerprint(about)
    total, done = sum(file.samples for file in files), 0
    if folder.is_file():
        raise PublishError(f"{folder}: this is a file; name an empty folder")
    with folder_alone(folder):
        there = _begin(folder, identity)
        for file in files:
            if file.name not in there:
                there[file.name] = _written(folder, file)
                write_record(folder / UNFINISHED, {"fingerprint": identity, "files": list(there.values())})
            done += file.samples
            track(done, total)
        manifest = {**about, "fingerprint": identity, "files": [there[file.name] for file in files]}
        if read_record(folder / MANIFEST) != manifest:
            write_record(folder / MANIFEST, manifest)
        (folder / UNFINISHED).unlink(missing_ok=True)
    return manifest


def _begin(folder: Path, identity: str) -> dict[str, dict[str, Any]]:
    """Make the folder ready; returns the files that are there already, by name."""
    records = [read_record(folder / name) for name in (MANIFEST, UNFINISHED)]
    ours = [record for record in records if record and record.get("fingerprint") == identity]
    if not ours:
        if any(entry.name != LOCK and not entry.match(_TORN) for entry in folder.iterdir()):
            raise PublishError(
                f"{folder}: holds something else, or what was published with another condition, caption or format, or "
                "before the data changed; name an empty folder"
            )
        write_record(folder / UNFINISHED, {"fingerprint": identity, "files": []})
        return {}
    for torn in folder.rglob(_TORN):
        torn.unlink()
    recorded = ours[0].get("files", [])
    there = {file["name"]: file for file in recorded if _size(folder / file["name"]) == file["bytes"]}
    if len(there) < len(recorded) and (folder / MANIFEST).exists():
        write_record(folder / UNFINISHED, {"fingerprint": identity, "files": list(there.values())})
        (folder / MANIFEST).unlink()
    return there


def _written(folder: Path, file: File) -> dict[str, Any]:
    path = folder / file.name
    replace_file(path, file.write)
    with path.open("rb") as written:
        digest = hashlib.file_digest(written, "sha256").hexdigest()
    return {"name": file.name, "samples": file.samples, "bytes": path.stat().st_size, "sha256": digest}


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else -1
