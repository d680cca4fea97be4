"""The files of a publication, each written whole or not at all, the manifest last. Killed, it goes on where it was."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from dqe_assets.publish.selection import PublishError
from dqe_assets.training.reshard import MANIFEST, UNFINISHED
from dqe_resources.fingerprint import fingerprint

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from dqe_assets.publish.places.protocol import File, Place


def write_files(
    place: Place,
    about: Mapping[str, Any],
    files: Sequence[File],
    track: Callable[[int, int], None] = lambda _, __: None,
) -> dict[str, Any]:
    """Write the files that are not there yet, and then the manifest, which is returned.

    Args:
        place: empty, absent, or holding these very files, finished or not.
        about: everything that decides what is written, as JSON: what the manifest says of it.
        files: what to write, in order.
        track: is told how many samples of how many have been written.

    Raises:
        PublishError: the place holds something else.
        LockError: another run is writing to it, or it cannot be written.
        StorageError: a file cannot be written; what is finished is kept.
    """
    identity = fingerprint(about)
    total, done = sum(file.samples for file in files), 0
    with place.alone():
        there = _begin(place, identity)
        for file in files:
            if file.name not in there:
                there[file.name] = asdict(place.write(file))
                place.keep(UNFINISHED, _unfinished(identity, there))
            done += file.samples
            track(done, total)
        manifest = {**about, "fingerprint": identity, "files": [there[file.name] for file in files]}
        place.finish(MANIFEST, manifest, UNFINISHED)
    return manifest


def _begin(place: Place, identity: str) -> dict[str, dict[str, Any]]:
    """Make the place ready; returns the files that are there already, by name."""
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
        return {}
    recorded = ours[0].get("files", [])
    there = {file["name"]: file for file in recorded if sizes.get(file["name"]) == file["bytes"]}
    if len(there) < len(recorded) and MANIFEST in sizes:
        place.reopen(MANIFEST, UNFINISHED, _unfinished(identity, there))
    return there


def _unfinished(identity: str, there: Mapping[str, dict[str, Any]]) -> dict[str, Any]:
    return {"fingerprint": identity, "files": list(there.values())}
