"""Small tasks in the forms in which they are published."""

from __future__ import annotations

import io
import tarfile
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

COLOURS = {"red": (220, 30, 30), "green": (30, 200, 40), "blue": (30, 40, 210), 'a "quoted" grey\'s': (128, 128, 128)}
TEMPLATES = ("a photo of {c}.", "{c}")


def picture(colour: tuple[int, int, int], seed: int, side: int = 40) -> bytes:
    """A noisy picture of a colour, as PNG."""
    noise = np.random.default_rng(seed).integers(-25, 25, (side, side, 3))
    file = io.BytesIO()
    Image.fromarray(np.clip(noise + colour, 0, 255).astype(np.uint8)).save(file, "PNG")
    return file.getvalue()


def write_tar(path: Path, files: Mapping[str, bytes]) -> None:
    """A tar of these files, in order."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))


def npy(values: Sequence[int]) -> bytes:
    """An array as .npy."""
    file = io.BytesIO()
    np.save(file, np.array(values))
    return file.getvalue()


def classification(
    folder: Path, images: int = 24, shards: int = 2, more: Mapping[str, bytes] | None = None, classes: int = 3
) -> Path:
    """A classification task in DataComp's form, with images of the first classes alone."""
    names = list(COLOURS)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "classnames.txt").write_text("\n".join(names))
    (folder / "zeroshot_classification_templates.txt").write_text("\n".join(TEMPLATES) + "\n")
    for shard in range(shards):
        files: dict[str, bytes] = {}
        for number in range(shard, images, shards):
            label = number % classes
            files[f"s{number:04d}.png"] = picture(COLOURS[names[label]], number)
            files[f"s{number:04d}.cls"] = str(label).encode()
            files[f"s{number:04d}.npy"] = npy([number % 2, 7])
        write_tar(folder / "test" / f"{shard}.tar", files | (dict(more or {}) if shard == 0 else {}))
    (folder / "test" / "nshards.txt").write_text(str(shards))
    return folder


def retrieval(folder: Path, images: int = 12) -> Path:
    """A retrieval task of tars: two captions for each image."""
    colours = list(COLOURS.items())
    files: dict[str, bytes] = {}
    for number in range(images):
        name, colour = colours[number % len(colours)]
        files[f"{number:03d}.png"] = picture(colour, number)
        files[f"{number:03d}.txt"] = f"a picture of {name} number {number}\n{name} {number}\n".encode()
    write_tar(folder / "0.tar", files)
    return folder


def parquet(folder: Path, rows: Sequence[Mapping[str, Any]]) -> Path:
    """A task of a Parquet file."""
    folder.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(list(rows)), folder / "test.parquet")
    return folder
