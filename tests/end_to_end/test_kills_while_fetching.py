"""A backfill over a folder and a list of URLs that is killed again and again ends as one that was left alone.

``DQE_KILLS`` is how often it is killed.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from typing import TYPE_CHECKING

import dagster as dg
import pyarrow.parquet as pq
import yaml

from dqe_resources.processes import processes
from dqe_resources.store import Store
from tests.conftest import ROOT, dqe, environment
from tests.hostile_server import HostileServer, noise
from tests.ingest.fetching import QUICK

if TYPE_CHECKING:
    from pathlib import Path

KILLS = int(os.environ.get("DQE_KILLS", "3"))
BEHAVIOURS = (
    *("good", "busy_then_good", "error_then_good", "reset_then_good", "redirect_to_good", "chunked", "webp"),
    *("not_found", "always_reset", "shorter_than_sent", "garbage", "redirect_loop", "silence"),
)
TIMES = ["attempts", "seconds", "fetched_at"]
"""Columns that tell how it was fetched, and not what."""

MADE = ("store", "dagster_home", "qdrant", "subsets", "warehouse.duckdb", "gallery.html")
QUERIES = (
    "SELECT * EXCLUDE (attempts, seconds, fetched_at) FROM samples ORDER BY uid",
    "SELECT * FROM captions ORDER BY ALL",
    "SELECT * FROM duplicates ORDER BY ALL",
    "SELECT reason, count(*) FROM failures GROUP BY ALL ORDER BY ALL",
    "SELECT asset, partition, code_version, rows, fingerprint FROM materialisations ORDER BY ALL",
)


def make_sources(data: Path, server: HostileServer, model_cache: Path) -> None:
    """Three shards of images in a folder, three of URLs that behave as the web does."""
    (data / "images").mkdir(parents=True)
    (data / "cache").symlink_to(model_cache)
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


def files(data: Path) -> dict[str, bytes]:
    store = data / "store"
    return {str(path.relative_to(store)): path.read_bytes() for path in sorted(store.rglob("*.parquet"))}


def progress(data: Path) -> int:
    """How much there is: partitions, and checkpoints of rows that are still being fetched."""
    return sum(1 for path in (data / "store").rglob("*") if path.suffix in {".parquet", ".json", ".arrow"})


def answers(data: Path) -> list[str]:
    found = [dqe(data, "sql", query).stdout for query in QUERIES]
    return [*found, dqe(data, "search", "a picture", "--limit", "30").stdout]


def kill(data: Path, chance: random.Random, enough: int) -> int:
    """Run it, and kill it once it has come so far, or a little later: the whole group, or the process alone."""
    before = progress(data)
    with subprocess.Popen(
        [sys.executable, "-m", "dqe_assets.cli", "materialize"],
        env=environment(data),
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    ) as process:
        while process.poll() is None and progress(data) < max(enough, before + 1):
            time.sleep(0.01)
        time.sleep(chance.uniform(0, 0.5))
        with contextlib.suppress(ProcessLookupError):
            (os.killpg if chance.random() < 0.5 else os.kill)(process.pid, signal.SIGKILL)
        process.wait()
    end = time.monotonic() + 60
    while [one for one in processes() if one.session == process.pid]:
        assert time.monotonic() < end, "what it had started does not end"
        time.sleep(0.1)
    return process.returncode


def test_killed_at_random_moments_while_it_fetches_it_ends_with_the_same_store(
    tmp_path: Path, model_cache: Path
) -> None:
    data, kept = tmp_path / "data", tmp_path / "undisturbed"
    chance = random.Random(7)
    with HostileServer().running() as server:
        server.delay = 0.05
        make_sources(data, server, model_cache)
        assert dqe(data, "materialize").returncode == 0
        undisturbed, expected = files(data), answers(data)
        total = progress(data)
        kept.mkdir()
        for name in MADE:
            (data / name).rename(kept / name)
        server.asked.clear()

        ends = Counter(kill(data, chance, round(total * (turn + chance.random()) / KILLS) - 2) for turn in range(KILLS))
        assert ends[-signal.SIGKILL] >= KILLS * 0.9, f"it had ended before it was killed: {ends}"
        done = dqe(data, "materialize")
        assert done.returncode == 0, done.stdout + done.stderr

    disturbed = files(data)
    assert disturbed.keys() == undisturbed.keys()
    of_web = {name for name in disturbed if name.startswith("raw_samples/web-")}
    for name in disturbed.keys() - of_web:
        assert disturbed[name] == undisturbed[name], name
    for name in of_web:
        tables = [pq.read_table(folder / "store" / name).drop_columns(TIMES) for folder in (kept, data)]
        assert tables[0].equals(tables[1]), name
        shard = name.partition("/")[2].removesuffix(".parquet")
        stamps = [Store(str(folder / "store")).get("raw_samples", shard) for folder in (kept, data)]
        assert stamps[0] is not None
        assert stamps[1] is not None
        assert stamps[0].stamp == stamps[1].stamp
    assert answers(data) == expected
    assert (data / "gallery.html").read_bytes() == (kept / "gallery.html").read_bytes()
    assert not list((data / "store").rglob("*.arrow")), "nothing unfinished is left"
    assert dqe(data, "status").returncode == 0
    with dg.DagsterInstance.from_config(str(data / "dagster_home")) as instance:
        assert {run.status for run in instance.get_runs()} <= {dg.DagsterRunStatus.SUCCESS, dg.DagsterRunStatus.FAILURE}
    again = dqe(data, "materialize")
    assert "(0 partitions made" in again.stdout
    shutil.rmtree(kept)
