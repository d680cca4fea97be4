"""What is trained on: the samples of a subset with the captions of a choice, as WebDataset shards.

Where the choice is of several captions, the .txt of a sample is a JSON object of them by kind: whoever reads it draws
one each time.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from dqe_assets.filtering.subset import format_uids, parse_uids, union
from dqe_assets.training.reshard import MANIFEST, UNFINISHED, read_record, write_shards
from dqe_resources.cache import data_directory
from dqe_resources.errors import DataQualityError
from dqe_resources.fingerprint import fingerprint
from dqe_resources.locks import LOCK, folder_alone

if TYPE_CHECKING:
    from collections.abc import Callable, Container, Iterator, Mapping, Sequence
    from pathlib import Path

    import numpy as np

    from dqe_assets.training.reshard import Plan
    from dqe_assets.training.samples import Sample, SamplePart

Captions = dict[str, dict[str, str]]
"""Captions of some samples: by uid, and by kind."""


class TrainingDataError(DataQualityError):
    """The samples to train on are not there, or not whole: says which, and what to do."""


def data_folder(name: str) -> Path:
    """Where the shards of what runs train on are."""
    return data_directory() / "training_data" / name


@dataclass(frozen=True)
class CaptionedPart:
    """Samples with captions from elsewhere in place of their own.

    Attributes:
        part: where the samples are.
        captions: gives their captions, without those that are empty.
        kinds: the kinds of captions that are chosen from.
    """

    part: SamplePart
    captions: Callable[[], Captions]
    kinds: tuple[str, ...]

    @property
    def name(self) -> str:
        """What errors call it."""
        return self.part.name

    def uids(self) -> list[str]:
        """The uids of its samples, whether they have a caption or not."""
        return self.part.uids()

    def read(self, wanted: Container[str]) -> Iterator[Sample]:
        """Those that are wanted, each with its captions as .txt."""
        captions = self.captions()
        for sample in self.part.read(wanted):
            yield replace(sample, files=sample.files | {"txt": self._text(captions[sample.uid]).encode()})

    def _text(self, captions: Mapping[str, str]) -> str:
        if len(self.kinds) == 1:
            return captions[self.kinds[0]]
        return json.dumps({kind: captions[kind] for kind in self.kinds if kind in captions}, ensure_ascii=False)


def every_sample(parts: Sequence[SamplePart]) -> np.ndarray:
    """The uids of all samples of these parts, "u8,u8" [n], sorted; one that several parts have stands once."""
    return union([parse_uids(pa.array(part.uids(), pa.string())) for part in parts])[0]


def without_caption(parts: Sequence[SamplePart]) -> list[str]:
    """The uids of samples that have none of the captions that are chosen from."""
    found = []
    for part in parts:
        if isinstance(part, CaptionedPart):
            captions = part.captions()
            found += [uid for uid in part.uids() if uid not in captions]
    return found


def write_data(
    name: str, plan: Plan, about: Mapping[str, Any], track: Callable[[int, int], None] = lambda _, __: None
) -> dict[str, Any]:
    """Write the shards of a plan to their folder, in place of other ones; returns their manifest.

    A killed run goes on where it was. What another plan has left there is removed first.

    Raises:
        TrainingDataError: samples are not there, or none has a caption.
        LockError: another run is writing them.
    """
    if len(plan.missing):
        raise TrainingDataError(
            f"training_data/{name}: {len(plan.missing):,} of the subset's {len(plan.uids):,} samples are not there, "
            f"first {format_uids(plan.missing[:1])[0]}; make their shards, or list all tars that hold them under "
            "training.tars in dqe.yaml"
        )
    if not plan.total:
        raise TrainingDataError(
            f"training_data/{name}: no sample is left to train on; choose another subset or captions"
        )
    folder = data_folder(name)
    there = [read_record(folder / one) or {} for one in (MANIFEST, UNFINISHED)]
    if folder.exists() and all(record.get("fingerprint") != plan.fingerprint for record in there):
        with folder_alone(folder):
            empty(folder)
    return write_shards(plan, folder, dict(about), track=track)


def empty(folder: Path) -> None:
    """Remove all that is in a folder but the lock by which this process holds it."""
    for path in folder.iterdir():
        if path.is_dir():
            shutil.rmtree(path)
        elif path.name != LOCK:
            path.unlink()


@dataclass(frozen=True, slots=True)
class TrainingData:
    """Shards that are all there.

    Attributes:
        folder: where they are.
        samples: how many there are.
        digest: hex digest of what is in them.
        shards: their paths, in order.
    """

    folder: Path
    samples: int
    digest: str
    shards: tuple[Path, ...]


def open_data(name: str) -> TrainingData:
    """The shards of what runs train on, checked to be all there, each of its size.

    Raises:
        TrainingDataError: one is missing or torn: a trainer would look for it for ever.
    """
    folder, again = data_folder(name), f"run: dqe materialize training_data/{name} --force"
    manifest = read_record(folder / MANIFEST)
    if manifest is None:
        raise TrainingDataError(f"{folder / MANIFEST}: not there, so not all shards are; {again}")
    for shard in manifest["shards"]:
        path = folder / shard["name"]
        size = path.stat().st_size if path.is_file() else None
        if size != shard["bytes"]:
            found = "is not there" if size is None else f"has {size:,} bytes in place of {shard['bytes']:,}"
            raise TrainingDataError(f"{path}: {found}; {again}")
    return TrainingData(
        folder, manifest["samples"], digest_of(manifest), tuple(folder / shard["name"] for shard in manifest["shards"])
    )


def digest_of(manifest: Mapping[str, Any]) -> str:
    """Hex digest of what is in the shards of a manifest."""
    return fingerprint([shard["sha256"] for shard in manifest["shards"]])
