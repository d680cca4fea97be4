"""Shards per second with workers, of this machine and of Ray, next to one process, and what they ask of a store on S3.

    python -m benchmarks.cluster [--shards 12] [--shard-size 32] [--rounds 5]

- one process: a run without workers, all cores for each shard.
- 1 and 2 local workers: processes of this machine, with all cores, or half of them each.
- 1 and 2 Ray workers: the same number of actors on a Ray node on this machine, with as many cores each.

Each makes all assets of each shard that workers are given, from raw samples on, into an empty folder, as
``dqe materialize`` does, with Dagster's record of it. All workers stay from round to round, and the models with them;
every round has all contestants, each time another one first. Figures are medians. The first pass of each, which starts
the workers and loads the models, counts apart: how much longer it took. Then one process, 2 local workers and 2 Ray
workers make the same on a SeaweedFS server, which counts what it is asked.
"""

from __future__ import annotations

import argparse
import os
import shutil
import time
from contextlib import ExitStack, contextmanager
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import dagster as dg

from benchmarks.common import data_folder, publish
from benchmarks.pipeline import write_source
from dqe_assets.core.stage import MODEL_POOL
from dqe_assets.orchestration import graph, runner
from dqe_assets.orchestration.resources import shard_workers
from dqe_assets.orchestration.settings import load_settings
from dqe_resources.cluster import LocalCluster, RayCluster

if TYPE_CHECKING:
    from collections.abc import Iterator

    from dqe_assets.orchestration.settings import Settings
    from dqe_resources.cluster import Cluster

_CORES = 2
_ALONE = "one process"


def clusters(address: str) -> dict[str, Cluster | None]:
    """The contestants: who makes the shards, by name."""
    found: dict[str, Cluster | None] = {_ALONE: None}
    for count in (1, 2):
        found[_name("local", count)] = LocalCluster(workers=count)
        workers = {"default": {"count": count, "num_cpus": _CORES // count}}
        found[_name("Ray", count)] = RayCluster.model_validate({"address": address, "workers": workers})
    return found


def _name(what: str, count: int) -> str:
    return f"{count} {what} worker{'s' if count > 1 else ''}"


@contextmanager
def ray_node() -> Iterator[str]:
    """A Ray cluster of one node on this machine, with cores for all contestants; its address."""
    from ray.cluster_utils import Cluster as RayNodes

    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    # Its workers find this project there.
    os.environ["PYTHONPATH"] = str(Path(__file__).parent.parent)
    # For 127.0.0.1 Ray takes an address that others reach.
    node = {"node_ip_address": "127.0.0.2", "num_cpus": 2 * _CORES, "include_dashboard": False}
    nodes = RayNodes(initialize_head=True, head_node_args=node)
    try:
        yield nodes.address
    finally:
        nodes.shutdown()


def made(settings: Settings) -> tuple[float, int]:
    """Make all that workers are given, on an empty store; returns the seconds, and the number of tables."""
    assets = [one.name for one in graph.stages(settings) if one.partitioned and one.pool in {None, MODEL_POOL}]
    with dg.DagsterInstance.ephemeral() as instance:
        runner.sync(settings, instance)
        started = time.perf_counter()
        outcome = runner.materialize(settings, instance, assets=assets)
        taken = time.perf_counter() - started
    if outcome.failures or outcome.current:
        raise RuntimeError(f"{outcome.current} were current; {'; '.join(outcome.failures)}")
    return taken, len(outcome.made)


def speeds(address: str, folder: Path, shards: int, rounds: int) -> list[dict[str, Any]]:
    """Shards per second of each contestant."""
    found = {name: load_settings({}).model_copy(update={"cluster": one}) for name, one in clusters(address).items()}
    seconds: dict[str, list[float]] = {name: [] for name in found}
    first: dict[str, float] = {}
    with ExitStack() as stack:
        for number in range(rounds + 1):
            names = [*found]
            for name in names[number % len(names) :] + names[: number % len(names)]:
                shutil.rmtree(folder / "store", ignore_errors=True)
                if number:
                    seconds[name].append(made(found[name])[0])
                    continue
                if workers := shard_workers(found[name]):
                    stack.enter_context(workers.crew())
                first[name], _ = made(found[name])
    middle = {name: median(taken) for name, taken in seconds.items()}
    rows: list[dict[str, Any]] = []
    for name, taken in middle.items():
        local = middle.get(name.replace("Ray", "local"))
        rows.append(
            {
                "what": name,
                "shards_per_second": shards / taken,
                "times_one_process": middle[_ALONE] / taken,
                "ray_overhead_percent": 100 * (taken / local - 1) if local and "Ray" in name else None,
                "start_up_seconds": first[name] - taken,
                "least_seconds": min(seconds[name]),
                "most_seconds": max(seconds[name]),
                "rounds": rounds,
            }
        )
    return rows


def requests(address: str, shards: int) -> list[dict[str, Any]]:
    """What a store on S3 is asked for each shard, by some of the contestants."""
    from tests.servers.seaweed import s3_server

    rows = []
    for name in (_ALONE, _name("local", 2), _name("Ray", 2)):
        # A server each: it has nothing of what another one has made.
        with TemporaryDirectory() as kept, s3_server(Path(kept)) as s3:
            os.environ.update(s3.environment())
            s3.make_bucket("bucket")
            # No server of a collection: what is made here does without.
            settings = load_settings({"DQE_STORE": "s3://bucket/store", "DQE_QDRANT_URL": "http://127.0.0.1:9"})
            before = s3.requests()
            _, tables = made(settings.model_copy(update={"cluster": clusters(address)[name]}))
            asked = s3.requests() - before
        each = {what: count / shards for what, count in sorted(asked.items())}
        total = asked.total()
        rows.append(
            {
                "what": f"{name}, on S3",
                "requests_a_shard": total / shards,
                "requests_a_table": total / tables,
                "tables_a_shard": tables / shards,
                "requests_by_kind": each,
            }
        )
    return rows


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shards", type=int, default=12)
    parser.add_argument("--shard-size", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=5, help="0: count what is asked alone")
    parser.add_argument("--requests", action=argparse.BooleanOptionalAction, default=True, help="count them too")
    given = parser.parse_args()
    # Of the machine before anything is measured: it says how far to trust the rates.
    sizes = {"shards": given.shards, "shard_size": given.shard_size, "load_before": os.getloadavg()[0]}
    with ray_node() as address, data_folder() as folder:
        write_source(folder, given.shards * given.shard_size, given.shard_size)
        rows = speeds(address, folder, given.shards, given.rounds) if given.rounds else []
        asked = requests(address, given.shards) if given.requests else []
    what = f"{given.shards} shards of {given.shard_size} images"
    columns = ["what", "shards_per_second", "times_one_process", "ray_overhead_percent", "start_up_seconds"]
    columns += ["least_seconds", "most_seconds"]
    if rows:
        publish("cluster", columns, [row | sizes for row in rows], f"Shards per second: {what}")
    columns = ["what", "requests_a_shard", "requests_a_table", "tables_a_shard"]
    if asked:
        publish("cluster", columns, [row | sizes for row in asked], f"What a store on S3 is asked: {what}")


if __name__ == "__main__":
    main()
