"""Workers: long-lived processes, on this machine or on many, that are given tasks. To add a kind: a file here."""

from __future__ import annotations

from typing import Annotated

from dqe_resources.cluster.crew import Crew, crew_of
from dqe_resources.cluster.local import LocalCluster
from dqe_resources.cluster.on_ray import RayCluster
from dqe_resources.cluster.protocol import Cluster, KilledError, Log, Task
from dqe_resources.configurable import SerializeAsAny, one_of

AnyCluster = Annotated[SerializeAsAny[Cluster], one_of(LocalCluster, RayCluster)]
"""The type of a setting that holds a cluster of any kind."""

__all__ = ["AnyCluster", "Cluster", "Crew", "KilledError", "LocalCluster", "Log", "RayCluster", "Task", "crew_of"]
