"""A Ray cluster of two machines, which are both this one."""

from __future__ import annotations

import os
import signal
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from dqe_resources.processes import below, process
from tests.conftest import ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator

HEAD, OTHER = "127.0.0.2", "127.0.0.3"


@contextmanager
def two_nodes(cores: int = 1, dashboard: int | None = None) -> Iterator[Any]:
    """The cluster; its nodes listen on loopback alone.

    Args:
        cores: of each node.
        dashboard: the port of Ray's dashboard, which starts jobs; by default there is none.
    """
    pytest.importorskip("ray", reason="the extra 'ray' is not installed")
    from ray.cluster_utils import Cluster

    patch = pytest.MonkeyPatch()
    patch.setenv("PYTHONPATH", str(ROOT), prepend=os.pathsep)
    patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    # Jobs find the environment's programs by their names.
    patch.setenv("PATH", str(Path(sys.prefix, "bin")), prepend=os.pathsep)
    served = {"include_dashboard": dashboard is not None, "dashboard_host": HEAD, "dashboard_port": dashboard}
    cluster = Cluster(initialize_head=True, head_node_args={"node_ip_address": HEAD, "num_cpus": cores, **served})
    try:
        cluster.add_node(node_ip_address=OTHER, num_cpus=cores)
        cluster.wait_for_nodes()
        yield cluster
    finally:
        cluster.shutdown()
        patch.undo()


def on_other(cluster: Any) -> set[int]:
    """The numbers of all processes of the second node."""
    (node,) = cluster.worker_nodes
    roots = [info[0].process.pid for info in node.all_processes.values()]
    return {*roots, *(one.pid for root in roots for one in below(root))}


def kill_other(cluster: Any) -> None:
    """Kill the second node with all that runs on it, as a machine that loses its power ends."""
    for pid in on_other(cluster):
        if process(pid):
            os.kill(pid, signal.SIGKILL)
