"""The samples of a subset as WebDataset shards, as DataComp's resharder writes them (Gadre et al. 2023).

Shard n is ``{n:08d}.tar`` with ``{n:08d}_stats.json`` next to it, and ``sizes.json`` says how many samples each holds.
A sample's key is ``<uid>-<copy>``: a uid that is in the subset k times is written k times. Unlike there, a sample that
is missing is an error, whatever is killed goes on where it was, and the same input gives the same bytes.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from dqe_assets.filtering.subset import format_uids, parse_uids
from dqe_assets.training import SAMPLES_PER_SHARD
from dqe_assets.training.tar_files import write_files
from dqe_resources.errors import DataQualityError
from dqe_resources.fingerprint import fingerprint
from dqe_resources.locks import LOCK, folder_alone
from dqe_resources.store import replace_file

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from pathlib import Path
    from typing import BinaryIO

    from dqe_assets.training.samples import Sample, SamplePart

MANIFEST = "manifest.json"
UNFINISHED = "unfinished.json"
_SHOWN = 3


class ReshardError(DataQualityError):
    """The shards cannot be written: says what is missing or in the way, and what to do."""


@dataclass(frozen=True)
class Plan:
    """Which sample of which part is written at which place.

    Attributes:
        parts: where they are copied from, in order.
        uids: the subset's uids without repeats, "u8,u8" [n], sorted.
        copies: how often each is in the subset, int64 [n].
        part_of: the first part that has it, int32 [n]; -1 if none has.
        digests: of the uids of each part.
        again: how many more samples of the parts have a uid of the subset that was found before.
        samples_per_shard: samples in each shard but the last.
        version: of whatever else decides what is written, such as which caption a sample has.
    """

    parts: Sequence[SamplePart]
    uids: np.ndarray
    copies: np.ndarray
    part_of: np.ndarray
    digests: tuple[str, ...]
    again: int
    samples_per_shard: int
    version: str = ""

    @property
    def total(self) -> int:
        """Samples to write."""
        return int(self.copies[self.part_of >= 0].sum())

    @property
    def shards(self) -> int:
        """Shards to write."""
        return -(-self.total // self.samples_per_shard)

    @property
    def missing(self) -> np.ndarray:
        """The uids that no part has."""
        return self.uids[self.part_of < 0]

    def leaving_out(self, names: list[str]) -> Plan:
        """The same plan without some uids; those that are not of it change nothing."""
        at = UidIndex(self.uids).positions(names)
        kept = np.ones(len(self.uids), bool)
        kept[at[at >= 0]] = False
        return replace(self, uids=self.uids[kept], copies=self.copies[kept], part_of=self.part_of[kept])

    @cached_property
    def ends(self) -> np.ndarray:
        """How many samples are written once each part is done, int64 [parts]."""
        found = self.part_of >= 0
        counts = np.bincount(self.part_of[found], self.copies[found], len(self.digests))
        return counts.astype(np.int64).cumsum()

    @property
    def fingerprint(self) -> str:
        """Hex digest of everything that decides what is written."""
        subset = hashlib.sha256(np.repeat(self.uids, self.copies).tobytes()).hexdigest()
        return fingerprint(subset, self.digests, self.samples_per_shard, *filter(None, [self.version]))

    def entries(self, start: int) -> Iterator[tuple[str, Sample]]:
        """Key and sample in the order in which they are written, from a position on."""
        for number, (part, end) in enumerate(zip(self.parts, self.ends.tolist(), strict=True)):
            begin = int(self.ends[number - 1]) if number else 0
            if end <= max(start, begin):
                continue
            mine = np.flatnonzero(self.part_of == number)
            copies = dict(zip(_hex(self.uids[mine]), self.copies[mine].tolist(), strict=True))
            yield from islice(self._of_part(part, copies), max(start - begin, 0), None)

    def _of_part(self, part: SamplePart, copies: dict[str, int]) -> Iterator[tuple[str, Sample]]:
        for sample in part.read(frozenset(copies)):
            # Once written, a uid is done: a part may have it twice.
            for copy in range(copies.pop(sample.uid, 0)):
                yield f"{sample.uid}-{copy}", sample
        if copies:
            raise ReshardError(
                f"{part.name}: {len(copies):,} samples that were there before are gone, first {next(iter(copies))}; "
                "let nobody write there meanwhile, and run the same command again"
            )


def plan_shards(
    subset: np.ndarray,
    parts: Sequence[SamplePart],
    samples_per_shard: int = SAMPLES_PER_SHARD,
    version: str = "",
    track: Callable[[int, int], None] = lambda _, __: None,
) -> Plan:
    """Find where each sample of a subset is.

    Args:
        subset: uids, "u8,u8" [n], sorted; repeats are written as often as they are there.
        parts: where to copy from; of a uid that several have, the first is taken.
        samples_per_shard: samples in each shard but the last.
        version: of whatever else decides what is written.
        track: is told how many parts of how many have been looked through.

    Raises:
        ReshardError: the subset is empty.
    """
    if not len(subset):
        raise ReshardError("the subset is empty: there is nothing to write")
    uids, copies = counted_uids(subset)
    index = UidIndex(uids)
    part_of = np.full(len(uids), -1, np.int32)
    digests, again = [], 0
    for number, part in enumerate(parts):
        names = part.uids()
        digests.append(hashlib.sha256("".join(names).encode()).hexdigest())
        at = index.positions(names)
        at = at[at >= 0]
        new = np.unique(at[part_of[at] < 0])
        again += len(at) - len(new)
        part_of[new] = number
        track(number + 1, len(parts))
    return Plan(parts, uids, copies, part_of, tuple(digests), again, samples_per_shard, version)


def write_shards(
    plan: Plan,
    folder: Path,
    about: dict[str, Any],
    *,
    allow_missing: bool = False,
    track: Callable[[int, int], None] = lambda _, __: None,
) -> dict[str, Any]:
    """Write the shards of a plan, going on where a killed run of the same plan stopped; returns the manifest.

    Args:
        plan: what to write.
        folder: where to; empty, absent, or holding this very export, finished or not.
        about: what the manifest says of the subset.
        allow_missing: write what there is, although some of the subset's samples are missing.
        track: is told how many samples of how many have been written.

    Raises:
        ReshardError: samples are missing or none is there, or the folder holds something else.
        LockError: another run is writing to it, or it cannot be written.
    """
    _require_samples(plan, allow_missing=allow_missing)
    if folder.is_file():
        raise ReshardError(f"{folder}: this is a file; name an empty folder with --out")
    with folder_alone(folder):
        return _write(plan, folder, about, track)


def _write(plan: Plan, folder: Path, about: dict[str, Any], track: Callable[[int, int], None]) -> dict[str, Any]:
    finished = _begin(plan, folder)
    if finished is not None:
        return finished
    done = 0
    while done < plan.shards and _stats(folder, done) is not None:
        done += 1
    track(min(done * plan.samples_per_shard, plan.total), plan.total)
    entries = plan.entries(done * plan.samples_per_shard)
    for number in range(done, plan.shards):
        count = min(plan.samples_per_shard, plan.total - number * plan.samples_per_shard)
        _write_shard(folder, number, islice(entries, count))
        track(number * plan.samples_per_shard + count, plan.total)
    return _finish(plan, folder, about)


def _require_samples(plan: Plan, *, allow_missing: bool) -> None:
    missing = plan.missing
    if len(missing) == len(plan.uids):
        raise ReshardError(
            f"{_named(plan.parts)}: not one of the subset's {len(missing):,} samples is there (looked for "
            f"{_listed(missing)} ...); name the store or the tars that the subset was made from"
        )
    if len(missing) and not allow_missing:
        raise ReshardError(
            f"{_named(plan.parts)}: {len(missing):,} of the subset's {len(plan.uids):,} samples are not there, first "
            f"{_listed(missing)}; name all tars that hold them, or go on without them with --allow-missing"
        )


def _begin(plan: Plan, folder: Path) -> dict[str, Any] | None:
    """Make the folder ready; returns the manifest where it holds this export already."""
    manifest = read_record(folder / MANIFEST)
    if manifest is not None and manifest.get("fingerprint") == plan.fingerprint:
        sizes = {shard["name"]: shard["bytes"] for shard in manifest["shards"]}
        if all((folder / name).is_file() and (folder / name).stat().st_size == size for name, size in sizes.items()):
            return manifest
        (folder / MANIFEST).unlink()
    elif (read_record(folder / UNFINISHED) or {}).get("fingerprint") != plan.fingerprint and _in_use(folder):
        raise ReshardError(
            f"{folder}: holds something else, or the export of another subset; name an empty folder with --out"
        )
    write_record(folder / UNFINISHED, {"fingerprint": plan.fingerprint})
    for path in _torn(folder):
        path.unlink()
    return None


def _in_use(folder: Path) -> bool:
    return any(path.name != LOCK and path not in _torn(folder) for path in folder.iterdir())


def _torn(folder: Path) -> list[Path]:
    """What a killed run was writing."""
    return list(folder.glob(".*.tmp"))


def _write_shard(folder: Path, number: int, entries: Iterator[tuple[str, Sample]]) -> None:
    digest = _Digest()
    stats: dict[str, int] = {}

    def write(target: BinaryIO) -> None:
        digest.target = target
        stats.update(write_tar(digest, entries))

    replace_file(folder / _name(number), write)
    write_record(folder / _stats_name(number), {**stats, "bytes": digest.bytes, "sha256": digest.sha256.hexdigest()})


def write_tar(target: BinaryIO | _Digest, entries: Iterable[tuple[str, Sample]]) -> dict[str, int]:
    """Write samples by their keys as a WebDataset tar; returns how many there were, and how many were encoded again."""
    stats = {"successes": 0, "encoded": 0}

    def files() -> Iterator[tuple[str, bytes]]:
        for key, sample in entries:
            for extension, content in sample.files.items():
                yield f"{key}.{extension}", content
            stats["successes"] += 1
            stats["encoded"] += sample.encoded

    write_files(target, files())
    return stats


class UidIndex:
    """Where uids are among sorted ones."""

    def __init__(self, uids: np.ndarray) -> None:
        # As two contiguous arrays: a search in a field of a structured array copies all of it each time.
        self._high, self._low = np.ascontiguousarray(uids["f0"]), np.ascontiguousarray(uids["f1"])

    def positions(self, names: list[str]) -> np.ndarray:
        """The position of each uid, int64 [n]; -1 if it is not among them."""
        wanted = parse_uids(pa.array(names, pa.string()))
        high, low = wanted["f0"], wanted["f1"]
        at = np.searchsorted(self._high, high)
        last = len(self._high) - 1
        while True:
            here = np.minimum(at, last)
            before = (at <= last) & (self._high[here] == high) & (self._low[here] < low)
            if not before.any():
                return np.where((at <= last) & (self._high[here] == high) & (self._low[here] == low), at, -1)
            at += before


def counted_uids(subset: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The uids of a sorted subset without repeats, and how often each is there."""
    first = np.ones(len(subset), bool)
    first[1:] = subset[1:] != subset[:-1]
    starts = np.flatnonzero(first)
    return subset[starts], np.diff(starts, append=len(subset))


class _Digest:
    """Hashes and counts what is written through it."""

    target: BinaryIO

    def __init__(self) -> None:
        self.sha256 = hashlib.sha256()
        self.bytes = 0

    def write(self, data: bytes) -> int:
        self.sha256.update(data)
        self.bytes += len(data)
        return self.target.write(data)


def _finish(plan: Plan, folder: Path, about: dict[str, Any]) -> dict[str, Any]:
    stats = [_stats(folder, number) or {} for number in range(plan.shards)]
    write_record(folder / "sizes.json", {_name(n): one["successes"] for n, one in enumerate(stats)})
    manifest = {
        "fingerprint": plan.fingerprint,
        "subset": about,
        "parts": len(plan.parts),
        "samples": plan.total,
        "samples_per_shard": plan.samples_per_shard,
        "encoded_anew": sum(one["encoded"] for one in stats),
        "missing": {"count": len(plan.missing), "first": _hex(plan.missing[:_SHOWN])},
        "found_again": plan.again,
        "shards": [
            {"name": _name(n), "samples": one["successes"], "bytes": one["bytes"], "sha256": one["sha256"]}
            for n, one in enumerate(stats)
        ],
    }
    write_record(folder / MANIFEST, manifest)
    (folder / UNFINISHED).unlink(missing_ok=True)
    return manifest


def _stats(folder: Path, number: int) -> dict[str, Any] | None:
    """What is known of a shard that is done: its statistics are written after it."""
    path, stats = folder / _name(number), read_record(folder / _stats_name(number))
    return stats if stats and path.is_file() and path.stat().st_size == stats.get("bytes") else None


def read_record(path: Path) -> dict[str, Any] | None:
    """The JSON object of a file; None if there is none."""
    try:
        return parse_record(path.read_bytes())
    except OSError:
        return None


def parse_record(data: bytes) -> dict[str, Any] | None:
    """The JSON object in the bytes of a file; None if they hold none."""
    try:
        record = json.loads(data)
    except ValueError:
        return None
    return record if isinstance(record, dict) else None


def write_record(path: Path, record: dict[str, Any]) -> None:
    """Write a JSON object atomically."""
    replace_file(path, lambda target: target.write(record_bytes(record)))


def record_bytes(record: dict[str, Any]) -> bytes:
    """A JSON object as the bytes of a file, for a person to read too."""
    return json.dumps(record, indent=1, ensure_ascii=False).encode()


def _name(number: int) -> str:
    return f"{number:08d}.tar"


def _stats_name(number: int) -> str:
    return f"{number:08d}_stats.json"


def _named(parts: Sequence[SamplePart]) -> str:
    return parts[0].name + (f" and {len(parts) - 1:,} more" if len(parts) > 1 else "") if parts else "no shard"


def _listed(uids: np.ndarray) -> str:
    return ", ".join(_hex(uids[:_SHOWN]))


def _hex(uids: np.ndarray) -> list[str]:
    return format_uids(uids).to_pylist()
