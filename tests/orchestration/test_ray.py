"""Shards that workers of two machines make, one of which is lost in the middle."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

import dagster as dg
import yaml

from dqe_assets.orchestration import runner
from dqe_assets.orchestration.settings import load_settings
from dqe_resources.cluster.board import at_work
from tests.hostile_server import noise
from tests.resources.cluster.two_nodes import kill_other, two_nodes

if TYPE_CHECKING:
    from pathlib import Path

CHAIN = ["raw_samples", "image_features", "text_quality"]
SHARDS = 8


def files(data: Path, store: str) -> dict[str, bytes]:
    root = data / store
    return {str(path.relative_to(root)): path.read_bytes() for path in sorted(root.rglob("*.parquet"))}


def test_one_of_two_machines_is_lost_and_all_files_are_those_of_a_local_run_and_none_is_written_twice(
    data: Path,
) -> None:
    folder = data / "images"
    folder.mkdir()
    for number in range(3 * SHARDS):
        noise(number).save(folder / f"{number:02d}.png")
        (folder / f"{number:02d}.txt").write_text(f"noise, number {number}")
    source = {"kind": "folder", "name": "noise", "path": "images", "shard_size": 3}
    (data / "dqe.yaml").write_text(yaml.safe_dump({"sources": [source], "captioners": [], "image_text": None}))
    alone = load_settings({"DQE_STORE": "alone"})
    with dg.DagsterInstance.ephemeral() as instance:
        runner.sync(alone, instance)
        assert not runner.materialize(alone, instance, assets=CHAIN).failures

    written: dict[str, set[int]] = {}
    lost: list[str] = []
    is_over = threading.Event()
    with two_nodes() as nodes, dg.DagsterInstance.ephemeral() as instance:
        cluster = {"kind": "ray", "address": nodes.address, "workers": {"default": {"count": 2}}}
        settings = load_settings({"DQE_CLUSTER": yaml.safe_dump(cluster)})
        runner.sync(settings, instance)

        def watch() -> None:
            while not is_over.is_set():
                for path in (data / "store").rglob("*.parquet"):
                    written.setdefault(str(path), set()).add(path.stat().st_mtime_ns)
                if not lost and sum("image_features" in path for path in written) >= 2 and len(at_work()) == 2:
                    kill_other(nodes)
                    lost.append("127.0.0.3")
                time.sleep(0.01)

        watcher = threading.Thread(target=watch)
        watcher.start()
        try:
            outcome = runner.materialize(settings, instance, assets=CHAIN)
        finally:
            is_over.set()
            watcher.join()
    assert lost
    assert (outcome.failures, len(outcome.made) + outcome.current) == ([], len(CHAIN) * SHARDS)
    assert files(data, "store") == files(data, "alone")
    assert len(written) == len(CHAIN) * SHARDS
    assert all(len(times) == 1 for times in written.values()), "no shard is made twice after it was written"
