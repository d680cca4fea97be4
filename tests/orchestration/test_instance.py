"""The instance of a team, whose database is away or whose packages are missing: one line that says what to do."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from dqe_assets.orchestration.instance import InstanceError, instance
from tests.servers.dagster_services import write_instance

if TYPE_CHECKING:
    from pathlib import Path


def test_a_database_that_is_away_is_one_clear_line(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("dagster_postgres", reason="the extra 'served' is not installed")
    # It tries again and again, for ten seconds.
    monkeypatch.setattr("dagster_postgres.utils.time.sleep", lambda _: None)
    write_instance(data)
    for name, value in {"HOST": "127.0.0.1", "PORT": "9", "PASSWORD": "secret"}.items():
        monkeypatch.setenv(f"DQE_POSTGRES_{name}", value)
    said = r"dagster\.yaml: Dagster's database cannot be used \(.*refused.*; start it"
    with pytest.raises(InstanceError, match=said), instance():
        pass


def test_a_package_that_is_missing_is_named_with_its_extra(data: Path) -> None:
    write_instance(data, storage={"custom": {"module": "dagster_nowhere", "class": "Storage", "config": {}}})
    said = r"dagster\.yaml: it needs the package dagster_nowhere; .*'\.\[served\]'"
    with pytest.raises(InstanceError, match=said), instance():
        pass
