"""SBU from its official files to the report, at a size of one's choice: seconds and memory of every stage.

    python -m benchmarks.sbu SBU FOLDER [--rows 100000] [--with-text]

SBU is a folder with ``captions.parquet``, real rows of the data set; FOLDER keeps all that is made, so that the command
goes on where it was ended. The captions are halves of two real ones, so that few are alike. The photos are made: parts
of two photos of the embedded sample, in other colours, laid over each other; 500 pixels wide at most, as those of
SBU are. A server on this machine has them; one URL in ten it does not know, and one in two hundred ends too early.

Each asset is made by a ``dqe materialize`` of its own, with all its checks, metadata and the start of a process, with
the default settings, but without the text in images: that takes several times as long as all else (``--with-text``).
Seconds are of the clock, CPU seconds of all its processes, and memory is what these take beyond files that they map.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from functools import cache
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow.parquet as pq
import yaml
from PIL import Image, ImageChops, ImageOps

from benchmarks.common import measured, publish
from benchmarks.fetch_server import ADDRESS, photos
from dqe_assets.orchestration import graph
from dqe_assets.orchestration.settings import load_settings

if TYPE_CHECKING:
    from collections.abc import Iterator

OWNER = 10_000
"""Rows of which one server has the photos, so that the hosts are several, as Flickr's are."""
_UNKNOWN, _CUT = 10, 200
_SEED = 7


def main() -> None:
    """Make the files and the photos, then each asset in turn, and print what each took."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sbu", type=Path, help="folder of captions.parquet")
    parser.add_argument("folder", type=Path, help="keeps all that is made")
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--with-text", action="store_true", help="look for text in the images too")
    arguments = parser.parse_args()
    images, data = arguments.folder / "photos", arguments.folder / "data"
    make_photos(images, arguments.rows)
    data.mkdir(exist_ok=True)
    with serving(images) as address:
        write_files(arguments.sbu, data, arguments.rows)
        settings = {
            "sources": [{"kind": "sbu", "name": "sbu", "urls": "urls.txt", "captions": "captions.txt"}],
            "fetching": {"allow": [ADDRESS], "connect_to": {"*": address}},
            "captioners": [{"kind": "labels", "name": "labels"}],
        } | ({} if arguments.with_text else {"image_text": None})
        (data / "dqe.yaml").write_text(yaml.safe_dump(settings), encoding="utf-8")
        figures = make_assets(data, arguments.rows)
    total = {key: sum(one[key] for one in figures) for key in ("seconds", "cpu_seconds")}
    most = max(one["peak_mib"] for one in figures)
    rate = arguments.rows / total["seconds"]
    figures.append({"asset": "all", **total, "peak_mib": most, "rows_per_second": rate, "rows": arguments.rows})
    columns = ["asset", "seconds", "cpu_seconds", "peak_mib", "rows_per_second", "disk_mib"]
    publish("sbu", columns, figures, f"SBU, {arguments.rows:,} rows")


def make_assets(data: Path, rows: int) -> list[dict[str, float | str]]:
    """Make each asset that is not made yet; what each took, with what earlier calls made."""
    kept = data.parent / "figures.json"
    figures = json.loads(kept.read_text(encoding="utf-8")) if kept.exists() else []
    os.environ |= {"DQE_DATA": str(data), "DAGSTER_HOME": str(data / "dagster_home")}
    for name in [stage.name for stage in graph.stages(load_settings())]:
        if name in {one["asset"] for one in figures}:
            continue
        before, began = disk_mib(data), time.perf_counter()
        took, _ = measured([sys.executable, "-m", "dqe_assets.cli", "materialize", name])
        seconds = time.perf_counter() - began
        more = {"rows_per_second": rows / seconds, "disk_mib": disk_mib(data) - before, "rows": rows}
        figures.append({"asset": name, "seconds": seconds, **took, **more})
        print(f"{name}: {seconds:.1f} s", flush=True)
        kept.write_text(json.dumps(figures), encoding="utf-8")
    return figures


def disk_mib(folder: Path) -> float:
    """What the files of a folder take, without the cache of models."""
    files = (path for path in folder.rglob("*") if "cache" not in path.parts and path.is_file())
    return sum(path.stat().st_size for path in files) / 2**20


def write_files(sbu: Path, data: Path, rows: int) -> None:
    """The files as SBU publishes its own: a line for each URL, and one for each caption."""
    written = pq.read_table(sbu / "captions.parquet", columns=["original_caption"])["original_caption"].to_pylist()
    halves = [" ".join(caption.split()).split(" ") for caption in written]
    drawn = np.random.default_rng(_SEED).integers(len(halves), size=(rows, 2))
    pairs = ((halves[one], halves[other]) for one, other in drawn)
    captions = (" ".join(one[: (len(one) + 1) // 2] + other[len(other) // 2 :]) for one, other in pairs)
    urls = (f"http://static{row // OWNER}.flickr.com/{row // OWNER}/{photo_name(row)}" for row in range(rows))
    for name, lines in (("urls.txt", urls), ("captions.txt", captions)):
        (data / name).write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


def photo_name(row: int) -> str:
    """Of the photo of a row."""
    return f"{row:08d}_o.jpg"


def make_photos(folder: Path, rows: int) -> None:
    """Make the photos that are not there yet, on all cores."""
    folder.mkdir(parents=True, exist_ok=True)
    there = {path.name for path in folder.iterdir()}
    missing = [row for row in range(rows) if row % _UNKNOWN and photo_name(row) not in there]
    with ProcessPoolExecutor() as pool:
        for _ in pool.map(make_photo, missing, [folder] * len(missing), chunksize=500):
            pass


@cache
def sample_photos() -> list[Image.Image]:
    """Those of the sample, decoded."""
    return [Image.open(BytesIO(data)).convert("RGB") for data in photos()]


def make_photo(row: int, folder: Path) -> None:
    """Make the photo of a row: the same whenever it is made."""
    random = np.random.default_rng([_SEED, row])
    width = int(random.integers(320, 501))
    size = (width, int(width * random.uniform(0.66, 1.34)))
    one, other = (_part(random, size) for _ in range(2))
    mask = Image.radial_gradient("L").resize(size) if random.random() < 0.5 else Image.linear_gradient("L").resize(size)
    photo = Image.composite(one, other, ImageOps.mirror(mask) if random.random() < 0.5 else mask)
    target = BytesIO()
    photo.save(target, "JPEG", quality=int(random.integers(75, 93)))
    content = target.getvalue()
    content = content[: len(content) // 2] if row % _CUT == 1 else content
    part = folder / f".{row}.part"
    part.write_bytes(content)
    part.rename(folder / photo_name(row))


def _part(random: np.random.Generator, size: tuple[int, int]) -> Image.Image:
    """A part of a photo of the sample, in other colours."""
    photo = sample_photos()[random.integers(len(sample_photos()))]
    share = random.uniform(0.2, 0.7, 2)
    left, top = random.uniform(0, 1 - share) * photo.size
    right, bottom = (left, top) + share * photo.size
    part = photo.resize(size, Image.Resampling.BILINEAR, (left, top, right, bottom))
    bands = random.permutation(3)
    part = Image.merge("RGB", [part.getchannel(int(band)) for band in bands])
    tint = Image.new("RGB", size, tuple(int(level) for level in random.integers(120, 256, 3)))
    return ImageChops.multiply(part, tint)


@contextmanager
def serving(folder: Path) -> Iterator[str]:
    """A server of these photos, while it is needed; gives address:port."""
    command = [sys.executable, "-m", "benchmarks.fetch_server", "--folder", str(folder)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:  # noqa: S603
        try:
            yield f"{ADDRESS}:{(process.stdout.readline() if process.stdout else '').split()[0]}"
        finally:
            process.kill()


if __name__ == "__main__":
    main()
