"""Images per second of fetching, next to img2dataset, from the same server, and its peak memory.

    python -m benchmarks.fetch [--images 10000] [--connections 256] [--repetitions 3] [--rows 100000]

- dqe: ``dqe materialize raw_samples``: fetched, decoded whole, hashed, kept as found, with a ledger for each row.
- img2dataset, decoding: decoded whole and hashed to say its size, kept as found (``skip_reencode``), no EXIF.
- img2dataset, not decoding: ``disable_all_reencoding``, which keeps whatever came, an image or not.

All with one process that fetches, the same number of connections, the same list in shards of the same size, retries,
and Parquet written to the same disk, in alternating repetitions; figures are medians. A rate counts from the server's
first request to the last file written, so that neither is charged for starting up; the whole command is given next to
it, and its CPU time, which does not depend on what else the machine does. Memory is the peak of the sum of the
proportional set sizes (PSS) of all of a command's processes. The server is another process; that its share of a core
stays small says that it is not what is measured.

img2dataset is installed into data/cache/img2dataset at the first run (it pins old packages, so it has an environment of
its own), or taken from the environment whose folder IMG2DATASET names.

With ``--rows``, that many rows in shards of 10,000, and the memory in each tenth of the run.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
import time
import urllib.request
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

import pyarrow.parquet as pq
import yaml

from benchmarks.common import data_folder, publish
from benchmarks.fetch_server import ADDRESS
from dqe_resources.cache import data_directory

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

_POLL_SECONDS = 0.1
_DQE, _DECODING, _NOT_DECODING = "dqe", "img2dataset, decoding", "img2dataset, not decoding"


@dataclass(frozen=True)
class Server:
    """The server: its port, and the mean size of what it gives."""

    port: int
    mean_bytes: int

    def statistics(self) -> dict[str, float]:
        """What it has done so far."""
        with urllib.request.urlopen(f"http://{ADDRESS}:{self.port}/stats") as response:
            return json.load(response)


@dataclass(frozen=True)
class Measured:
    """One run of a command."""

    seconds: float
    command_seconds: float
    peak_mib: float
    memory: list[tuple[float, float]]
    cpu_seconds: float
    server_cpu_share: float
    connections: float


@contextmanager
def serving(latency: float) -> Iterator[Server]:
    """A server, while it is needed."""
    command = [sys.executable, "-m", "benchmarks.fetch_server", "--latency", str(latency)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:  # noqa: S603
        try:
            port, mean_bytes = (process.stdout.readline() if process.stdout else "").split()
            yield Server(int(port), int(mean_bytes))
        finally:
            process.kill()


def img2dataset_environment() -> Path | None:
    """The folder of its environment, built if it is not there; None if it cannot be."""
    folder = Path(os.environ.get("IMG2DATASET") or data_directory() / "cache" / "img2dataset")
    if not (folder / "bin" / "img2dataset").exists():
        try:
            subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)  # noqa: S603
            install = [str(folder / "bin" / "pip"), "install", "-q", "img2dataset"]
            subprocess.run(install, check=True, capture_output=True, text=True)  # noqa: S603
        except (OSError, subprocess.CalledProcessError) as error:
            print(f"img2dataset cannot be installed ({error}): only dqe is measured")
            return None
    return folder


def write_list(folder: Path, server: Server, rows: int) -> None:
    """A list of URLs that no run has asked for before, with captions."""
    run = time.time_ns()
    with (folder / "list.csv").open("w", encoding="utf-8") as file:
        file.write("url,caption\n")
        file.writelines(f"http://{ADDRESS}:{server.port}/{run}/{n}.jpg,a picture of number {n}\n" for n in range(rows))


def dqe_command(folder: Path, connections: int, shard_size: int) -> list[str]:
    """What makes the shards."""
    source = {"kind": "urls", "name": "web", "path": "list.csv", "shard_size": shard_size}
    fetching = {"connections": connections, "connections_per_host": connections, "allow": [f"{ADDRESS}/32"]}
    (folder / "dqe.yaml").write_text(yaml.safe_dump({"sources": [source], "fetching": fetching}), encoding="utf-8")
    return [sys.executable, "-m", "dqe_assets.cli", "materialize", "raw_samples"]


def img2dataset_command(
    folder: Path, environment: Path, connections: int, shard_size: int, *, decoding: bool
) -> list[str]:
    """The same with img2dataset."""
    options = {
        "url_list": folder / "list.csv",
        "input_format": "csv",
        "url_col": "url",
        "caption_col": "caption",
        "output_format": "parquet",
        "output_folder": folder / "img2dataset",
        "processes_count": 1,
        "thread_count": connections,
        "number_sample_per_shard": shard_size,
        "retries": 2,
        "extract_exif": False,
        "enable_wandb": False,
    }
    if decoding:
        options |= {
            "resize_mode": "keep_ratio_largest",
            "resize_only_if_bigger": True,
            "image_size": 100_000,
            "skip_reencode": True,
        }
    else:
        options["disable_all_reencoding"] = True
    return [str(environment / "bin" / "img2dataset"), *(f"--{name}={value}" for name, value in options.items())]


def measured(command: list[str], folder: Path, server: Server) -> Measured:
    """Run a command to its end, against a server that nobody else has used."""
    before, usage = server.statistics(), resource.getrusage(resource.RUSAGE_CHILDREN)
    environment = {**os.environ, "DAGSTER_HOME": str(folder / "dagster_home"), "NO_ALBUMENTATIONS_UPDATE": "1"}
    began = time.time()
    memory: list[tuple[float, float]] = []
    with (folder / "output.txt").open("w", encoding="utf-8") as output:
        process = subprocess.Popen(  # noqa: S603
            command, env=environment, stdout=output, stderr=output, start_new_session=True
        )
        while process.poll() is None:
            memory.append((time.time() - began, _group_pss_mib(process.pid)))
            time.sleep(_POLL_SECONDS)
    ended = time.time()
    if process.returncode:
        raise RuntimeError((folder / "output.txt").read_text(encoding="utf-8")[-2000:])
    after, used = server.statistics(), resource.getrusage(resource.RUSAGE_CHILDREN)
    first = after["first"]
    written = max(path.stat().st_mtime for path in _results(folder))
    return Measured(
        seconds=written - first,
        command_seconds=ended - began,
        peak_mib=max(mib for _, mib in memory),
        memory=memory,
        cpu_seconds=used.ru_utime + used.ru_stime - usage.ru_utime - usage.ru_stime,
        server_cpu_share=(after["cpu"] - before["cpu"]) / (after["last"] - first),
        connections=after["connections"] - before["connections"],
    )


def _results(folder: Path) -> list[Path]:
    return [*folder.glob("store/raw_samples/*.parquet"), *folder.glob("img2dataset/*.parquet")]


def _images(folder: Path) -> int:
    """Images in what a command has written."""
    total = 0
    for path in _results(folder):
        statuses = pq.read_table(path, columns=["status"])["status"].to_pylist()
        total += sum(status in {"ok", "success"} for status in statuses)
    return total


def _group_pss_mib(group: int) -> float:
    """The memory of all processes of a group, pages that several of them share counted once."""
    total = 0
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                if os.getpgid(int(entry.name)) == group:
                    lines = (entry / "smaps_rollup").read_text(encoding="ascii").splitlines()
                    total += next(int(line.split()[1]) for line in lines if line.startswith("Pss:"))
            except (OSError, StopIteration):
                continue  # it has just ended
    return total / 1024


def rates(
    folder: Path, environment: Path | None, images: int, connections: int, repetitions: int, latency: float
) -> list[dict[str, Any]]:
    """Images per second of each contestant."""
    contestants = [_DQE, *([_DECODING, _NOT_DECODING] if environment else [])]
    taken: dict[str, list[Measured]] = {what: [] for what in contestants}
    mean_bytes = 0
    for _ in range(repetitions):
        for what in contestants:
            _empty(folder)
            with serving(latency) as server:
                write_list(folder, server, images)
                if what == _DQE or environment is None:
                    command = dqe_command(folder, connections, 10_000)
                else:
                    command = img2dataset_command(folder, environment, connections, 10_000, decoding=what == _DECODING)
                taken[what].append(measured(command, folder, server))
                mean_bytes = server.mean_bytes
            if (found := _images(folder)) != images:
                raise RuntimeError(f"{what}: {found} images of {images}")
    seconds = {what: median(run.seconds for run in runs) for what, runs in taken.items()}
    return [
        {
            "what": what,
            "latency_ms": round(1000 * latency),
            "images_per_second": images / seconds[what],
            "dqe_against_it": seconds[what] / seconds[_DQE],
            "command_seconds": median(run.command_seconds for run in runs),
            "command_cpu_ms_per_image": 1000 * median(run.cpu_seconds for run in runs) / images,
            "peak_mib": median(run.peak_mib for run in runs),
            "server_cpu_share": median(run.server_cpu_share for run in runs),
            "connections_opened": median(run.connections for run in runs),
            "images": images,
            "connections": connections,
            "mean_bytes": mean_bytes,
            "repetitions": repetitions,
        }
        for what, runs in taken.items()
    ]


def long_run(folder: Path, rows: int, connections: int) -> list[dict[str, Any]]:
    """The memory in each tenth of a long run."""
    _empty(folder)
    with serving(0.0) as server:
        write_list(folder, server, rows)
        run = measured(dqe_command(folder, connections, 10_000), folder, server)
    if (found := _images(folder)) != rows:
        raise RuntimeError(f"{found} images of {rows}")
    end = run.memory[-1][0]
    tenths: list[list[float]] = [[] for _ in range(10)]
    for when, mib in run.memory:
        tenths[min(int(10 * when / end), 9)].append(mib)
    return [
        {
            "tenth": number,
            "peak_mib": max(tenth),
            "rows": rows,
            "rows_per_second": rows / run.seconds,
            "connections": connections,
        }
        for number, tenth in enumerate(tenths, 1)
    ]


def _empty(folder: Path) -> None:
    """Remove all that was made, but not what is kept from run to run."""
    for name in ("store", "img2dataset", "dagster_home"):
        shutil.rmtree(folder / name, ignore_errors=True)


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=10_000)
    parser.add_argument("--connections", type=int, default=256)
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--latencies", type=float, nargs="*", default=[0.0, 0.05], help="seconds")
    parser.add_argument("--rows", type=int, default=100_000, help="of the long run; 0 for none")
    given = parser.parse_args(arguments)
    if given.repetitions:
        environment = img2dataset_environment()
        with data_folder() as folder:
            found = [
                row
                for latency in given.latencies
                for row in rates(folder, environment, given.images, given.connections, given.repetitions, latency)
            ]
        columns = [name for name in found[0] if name not in {"images", "connections", "mean_bytes", "repetitions"}]
        about = f"{given.images:,} images of {found[0]['mean_bytes']:,} bytes, {given.connections} connections"
        publish("fetch", columns, found, f"Fetching: {about}")
    if given.rows:
        with data_folder() as folder:
            tenths = long_run(folder, given.rows, given.connections)
        about = f"{given.rows:,} rows in shards of 10,000, {tenths[0]['rows_per_second']:,.0f} rows a second"
        publish("fetch_memory", ["tenth", "peak_mib"], tenths, f"Memory in each tenth of a run: {about}")


if __name__ == "__main__":
    main()
