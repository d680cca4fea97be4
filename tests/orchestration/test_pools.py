"""Pools have the limits of the settings, on a real PostgreSQL too, where a default that changes is an error."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import dagster as dg
import pytest
import yaml

from dqe_assets.orchestration.pools import limit_pools, pool_limits
from dqe_assets.orchestration.settings import load_settings
from tests.servers.postgres import Postgres, postgres_server

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture(scope="module")
def postgres() -> Iterator[Postgres]:
    with postgres_server() as running:
        yield running


@pytest.fixture
def opened(postgres: Postgres, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Opens the instance of the server, with another default limit."""
    from tests.servers.dagster_services import write_instance

    for name, value in postgres.environment().items():
        monkeypatch.setenv(name, value)

    def with_default(limit: int) -> dg.DagsterInstance:
        write_instance(tmp_path, concurrency={"pools": {"default_limit": limit, "granularity": "op"}})
        return dg.DagsterInstance.from_config(str(tmp_path / "dagster_home"))

    return with_default


def test_every_pool_of_the_settings_has_a_limit(data: Path) -> None:
    (data / "dqe.yaml").write_text(
        yaml.safe_dump(
            {
                "sources": [{"kind": "sample"}],
                "captioners": [{"kind": "openai", "name": "vlm", "url": "http://127.0.0.1:9", "model": "m"}],
                "concurrency": {"pools": {"model": 3}},
            }
        )
    )
    limits = pool_limits(load_settings())
    assert limits == {"captioner_vlm": 1, "collection": 1, "model": 3}


def test_a_default_that_changes_stops_nothing(opened: Any) -> None:
    with opened(1) as instance:
        storage = instance.event_log_storage
        for pool in ("model", "unknown"):
            storage.initialize_concurrency_limit_to_default(pool)
        limit_pools(instance, {"model": 1, "judge": 2})
        found = {one.name: (one.limit, one.from_default) for one in storage.get_pool_limits()}
        assert found == {"model": (1, False), "judge": (2, False), "unknown": (1, True)}
    with opened(4) as instance:
        # What Dagster does before it takes a run from the queue, for each pool that has its default.
        (unlimited,) = [one.name for one in instance.event_log_storage.get_pool_limits() if one.from_default]
        with pytest.raises(Exception, match="current transaction is aborted"):
            instance.event_log_storage.initialize_concurrency_limit_to_default(unlimited)
        limit_pools(instance, {"unknown": 4})
        found = {one.name: (one.limit, one.from_default) for one in instance.event_log_storage.get_pool_limits()}
        assert found == {"model": (1, False), "judge": (2, False), "unknown": (4, False)}
