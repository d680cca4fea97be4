"""Kills at random moments of a backfill over two sources, one of them a list of URLs on a server that misbehaves.

    python -m benchmarks.kills [--kills 50] [--seed 7]

``dqe materialize`` runs over a folder and a list of URLs, first undisturbed, and then in another data folder, where it
is killed (SIGKILL) and begun again so many times: the process alone or its whole group, once it has made so much, or so
many seconds after its start, in every stage. In the end it is left alone. Counted is what differs between the two: the
bytes of every file of the store (without the columns that tell when and how often a URL was asked for), what the
warehouse holds, what a search finds, the gallery; what a kill has left behind; and how often URLs were asked for.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import dagster as dg
import duckdb
import pyarrow.parquet as pq
import yaml

from benchmarks.common import publish
from dqe_resources.cache import data_directory
from dqe_resources.processes import processes
from dqe_resources.store import Store
from tests.conftest import ROOT, dqe, environment
from tests.hostile_server import HostileServer, noise
from tests.ingest.fetching import QUICK

BEHAVIOURS = (
    *("good", "busy_then_good", "error_then_good", "reset_then_good", "redirect_to_good", "chunked", "webp"),
    *("not_found", "always_reset", "shorter_than_sent", "garbage", "redirect_loop", "silence"),
)
_TIMES = ["attempts", "seconds", "fetched_at"]
"""Columns that tell how an image was fetched, and not what."""

_QUERIES = (
    f"SELECT * EXCLUDE ({', '.join(_TIMES)}) FROM samples ORDER BY uid",  # noqa: S608 - names of our own
    "SELECT * FROM captions ORDER BY ALL",
    "SELECT * FROM duplicates ORDER BY ALL",
    "SELECT reason, count(*) FROM failures GROUP BY ALL ORDER BY ALL",
    "SELECT asset, partition, code_version, rows, fingerprint FROM materialisations ORDER BY ALL",
)
_MADE = ("store", "dagster_home", "qdrant", "subsets", "warehouse.duckdb", "gallery.html", "gallery", "view")
_ENDED = {dg.DagsterRunStatus.SUCCESS, dg.DagsterRunStatus.FAILURE}
_LONGEST_RUN = 120.0
_BY_TIME = 0.25
_LONGEST_START = 6.0


@dataclass
class Trial:
    """What became of the backfill that was killed, beside the one that was left alone.

    Attributes:
        kills: how often it was killed.
        died: how often it was still at work then.
        fetching: how often it died while a shard was being fetched.
        differences: what is not the same in the end, in words; none if all is right.
        seconds: of the undisturbed run, and of all others together.
        requests: URLs asked for in the undisturbed run, and in all others together.
    """

    kills: int
    died: int = 0
    fetching: int = 0
    differences: list[str] = field(default_factory=list)
    seconds: tuple[float, float] = (0.0, 0.0)
    requests: tuple[int, int] = (0, 0)


def trial(folder: Path, cache: Path, kills: int, seed: int) -> Trial:
    """Run it undisturbed and disturbed.

    Args:
        folder: an empty one, to work in.
        cache: where converted models are kept.
        kills: how often it is killed.
        seed: of the moments.
    """
    found, chance = Trial(kills), random.Random(seed)  # noqa: S311 - to be repeated, not to be secret
    data, alone = folder / "data", folder / "undisturbed"
    with HostileServer(delay=0.05).running() as server:
        _make_sources(data, server, cache)
        started = time.monotonic()
        _materialized(data, found)
        undisturbed = time.monotonic() - started
        requests, total = sum(server.asked.values()), _progress(data)
        expected = _answers(data)
        # In the same folder again, as where a source is goes into the fingerprints of what is made of it.
        alone.mkdir()
        for name in _MADE:
            (data / name).rename(alone / name)
        server.asked.clear()
        started = time.monotonic()
        for turn in range(kills):
            enough = max(round(total * (turn + chance.random()) / kills) - 2, _progress(data) + 1)
            _kill(data, chance, enough, found)
        _materialized(data, found)
        found.seconds = (undisturbed, time.monotonic() - started)
        found.requests = (requests, sum(server.asked.values()))
    _compare_stores(alone / "store", data / "store", found)
    found.differences += [what for what, answer in _answers(data).items() if answer != expected[what]]
    found.differences += [f"{path.name} is left" for path in (data / "store").rglob("*.arrow")]
    with dg.DagsterInstance.from_config(str(data / "dagster_home")) as instance:
        runs = instance.get_runs()
    found.differences += [f"run {run.run_id} is {run.status}" for run in runs if run.status not in _ENDED]
    if "(0 partitions made" not in (again := dqe(data, "materialize").stdout):
        found.differences.append(f"made again: {again[-500:]}")
    return found


def _make_sources(data: Path, server: HostileServer, cache: Path) -> None:
    """Three shards of images in a folder, three of URLs that behave as the web does."""
    (data / "images").mkdir(parents=True)
    (data / "cache").symlink_to(cache)
    for number in range(9):
        noise(number, 64, 48).save(data / "images" / f"{number}.png")
        (data / "images" / f"{number}.txt").write_text(f"noise of the folder, number {number}")
    urls = [server.url(BEHAVIOURS[number % len(BEHAVIOURS)], number) for number in range(3 * len(BEHAVIOURS))]
    lines = (json.dumps({"url": url, "caption": f"a picture of the web, {number}"}) for number, url in enumerate(urls))
    (data / "list.jsonl").write_text("\n".join(lines))
    web = {"kind": "urls", "name": "web", "path": "list.jsonl", "shard_size": len(BEHAVIOURS), "min_success_rate": 0.0}
    settings = {
        "sources": [{"kind": "folder", "name": "photos", "path": "images", "shard_size": 3}, web],
        "captioners": [{"kind": "labels", "name": "labels"}],
        "image_text": None,
        "fetching": QUICK | {"checkpoint_rows": 2, "connections": 2},
    }
    (data / "dqe.yaml").write_text(yaml.safe_dump(settings))


def _materialized(data: Path, found: Trial) -> None:
    done = dqe(data, "materialize")
    if done.returncode:
        found.differences.append(f"{data.name}: exit code {done.returncode}: {done.stdout[-500:]}{done.stderr[-500:]}")


def _kill(data: Path, chance: random.Random, enough: int, found: Trial) -> None:
    """Run it, and kill it once it has come so far, or a little later; or some time after its start."""
    by_time = chance.uniform(0, _LONGEST_START) if chance.random() < _BY_TIME else None
    later, group = chance.uniform(0, 0.5), chance.random() < 0.5
    started = time.monotonic()

    def is_due() -> bool:
        passed = time.monotonic() - started
        return passed > _LONGEST_RUN or (_progress(data) >= enough if by_time is None else passed > by_time)

    with subprocess.Popen(
        [sys.executable, "-m", "dqe_assets.cli", "materialize"],
        env=environment(data),
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    ) as process:
        while process.poll() is None and not is_due():
            time.sleep(0.01)
        time.sleep(later if by_time is None else 0)
        with contextlib.suppress(ProcessLookupError):
            (os.killpg if group else os.kill)(process.pid, signal.SIGKILL)
        process.wait()
    found.died += process.returncode == -signal.SIGKILL
    found.fetching += _is_fetching(data)
    until = time.monotonic() + 60
    while any(one.session == process.pid for one in processes()):
        if time.monotonic() > until:
            found.differences.append("what a killed run had started does not end")
            return
        time.sleep(0.1)


def _is_fetching(data: Path) -> bool:
    """Whether there are saved rows of a shard that is not there."""
    raw = data / "store" / "raw_samples"
    return any(not (raw / f"{folder.name}.parquet").exists() for folder in raw.glob(".unfinished/*"))


def _progress(data: Path) -> int:
    """How much there is: partitions, and rows that were saved while a shard was still being fetched."""
    return sum(1 for path in (data / "store").rglob("*") if path.suffix in {".parquet", ".json", ".arrow"})


def _compare_stores(alone: Path, disturbed: Path, found: Trial) -> None:
    names = {str(path.relative_to(store)) for store in (alone, disturbed) for path in store.rglob("*.parquet")}
    found.differences += [
        f"store/{name}" for name in sorted(names) if _content(alone, name) != _content(disturbed, name)
    ]


def _answers(data: Path) -> dict[str, Any]:
    """What people see of it."""
    with duckdb.connect(str(data / "warehouse.duckdb"), read_only=True) as connection:
        found: dict[str, Any] = {query: connection.sql(query).fetchall() for query in _QUERIES}
    found["dqe search"] = dqe(data, "search", "a picture", "--limit", "30").stdout
    found["the gallery"] = (data / "gallery.html").read_bytes()
    return found


def _content(store: Path, name: str) -> Any:
    """What a file of the store holds: its bytes, or of images from the web all but when they were asked for."""
    path = store / name
    if not path.exists():
        return None
    if not name.startswith("raw_samples/web-"):
        return path.read_bytes()
    stored = Store(str(store)).get("raw_samples", path.stem)
    return pq.read_table(path).drop_columns(_TIMES).to_pylist(), stored and stored.stamp


def main() -> None:
    """Print and keep one row; exit with 1 if anything differs."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=7)
    arguments = parser.parse_args()
    with TemporaryDirectory() as folder:
        found = trial(Path(folder), data_directory() / "cache", arguments.kills, arguments.seed)
    row = {
        "kills": found.kills,
        "seed": arguments.seed,
        "died_at_work": found.died,
        "while_fetching": found.fetching,
        "differences": len(found.differences),
        "seconds_undisturbed": round(found.seconds[0], 1),
        "seconds_with_kills": round(found.seconds[1], 1),
        "requests_undisturbed": found.requests[0],
        "requests_with_kills": found.requests[1],
    }
    publish("kills", list(row), [row], "A backfill that is killed, beside one that is left alone")
    for difference in found.differences:
        print(difference, file=sys.stderr)
    sys.exit(bool(found.differences))


if __name__ == "__main__":
    main()
