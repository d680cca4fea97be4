"""The files of a publication, each written whole or not at all, the manifest last. Killed, it goes on where it was."""

from __future__ import annotations

import hashlib
from dataclasses import asdict
from functools import partial
from typing import TYPE_CHECKING, Any

from dqe_assets.publish.places.protocol import File
from dqe_assets.publish.selection import PublishError
from dqe_assets.publish.signing import BESIDE, SIGNATURE, digest_beside
from dqe_assets.training.reshard import MANIFEST, UNFINISHED, record_bytes
from dqe_resources.fingerprint import fingerprint

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import BinaryIO

    from dqe_assets.publish.places.protocol import Place

_BETWEEN_RECORDS = 500
"""Files beside another one after which it is noted how far the work is: a place may send many at once then."""


def write_files(
    place: Place,
    about: Mapping[str, Any],
    files: Sequence[File],
    track: Callable[[int, int], None] = lambda _, __: None,
    sign: Callable[[bytes], dict[str, str]] | None = None,
) -> dict[str, Any]:
    """Write the files that are not there yet, and then the manifest, which is returned.

    Args:
        place: empty, absent, or holding these very files, finished or not.
        about: everything that decides what is written, as JSON: what the manifest says of it.
        files: what to write, in order.
        track: is told how many samples of how many have been written.
        sign: gives the signature of the manifest's bytes; None for none.

    Raises:
        PublishError: the place holds something else.
        LockError: another run is writing to it, or it cannot be written.
        StorageError: a file cannot be written; what is finished is kept.
    """
    identity = fingerprint(about)
    total, done = sum(file.samples for file in files), 0
    with place.alone():
        there, sizes = _begin(place, identity, files)
        for file in files:
            if file.name not in there:
                digests = {}
                for number, (name, data) in enumerate(file.beside(), 1):
                    if sizes.get(name) != len(data):
                        place.write(File(name, 0, partial(_copy, data)))
                    digests[name] = hashlib.sha256(data).hexdigest()
                    if number % _BETWEEN_RECORDS == 0:
                        place.keep(UNFINISHED, _unfinished(identity, there))
                    track(done + number, total)
                there[file.name] = asdict(place.write(file))
                if file.folder:
                    there[file.name][BESIDE] = {"folder": file.folder, "sha256": digest_beside(digests)}
                place.keep(UNFINISHED, _unfinished(identity, there))
            done += file.samples
            track(done, total)
        manifest = {**about, "fingerprint": identity, "files": [there[file.name] for file in files]}
        if sign is not None:
            signature = record_bytes(sign(record_bytes(manifest)))
            place.write(File(SIGNATURE, 0, partial(_copy, signature)))
        place.finish(MANIFEST, manifest, UNFINISHED)
    return manifest


def _begin(place: Place, identity: str, files: Sequence[File]) -> tuple[dict[str, dict[str, Any]], dict[str, int]]:
    """Make the place ready; returns the files that are there already, by name, and the bytes of all that is there."""
    sizes = place.sizes()
    records = [place.record(name) for name in (MANIFEST, UNFINISHED) if name in sizes]
    ours = [record for record in records if record and record.get("fingerprint") == identity]
    if not ours:
        if sizes:
            raise PublishError(
                f"{place.name}: holds something else, or what was published with another condition, caption or format, "
                "or before the data changed; name an empty folder"
            )
        place.keep(UNFINISHED, _unfinished(identity, {}))
        return {}, sizes
    recorded = ours[0].get("files", [])
    torn = {file.name for file in files if not file.is_whole(sizes)}
    there = {
        file["name"]: file for file in recorded if sizes.get(file["name"]) == file["bytes"] and file["name"] not in torn
    }
    if len(there) < len(recorded) and MANIFEST in sizes:
        place.reopen(MANIFEST, UNFINISHED, _unfinished(identity, there))
    return there, sizes


def _copy(data: bytes, target: BinaryIO) -> None:
    target.write(data)


def _unfinished(identity: str, there: Mapping[str, dict[str, Any]]) -> dict[str, Any]:
    return {"fingerprint": identity, "files": list(there.values())}
