"""The Dagster instance of the data folder, set up as the settings say."""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dagster as dg
import yaml
from dagster._core.instance.ref import InstanceRef
from dagster._core.storage.noop_compute_log_manager import NoOpComputeLogManager

from dqe_assets.core.stage import COLLECTION_POOL, MODEL_POOL
from dqe_assets.orchestration.dead_runs import end_dead_runs
from dqe_assets.orchestration.pools import limit_pools
from dqe_assets.orchestration.settings import Concurrency
from dqe_resources.cache import data_directory
from dqe_resources.errors import DataQualityError, one_line
from dqe_resources.store import replace_file

if TYPE_CHECKING:
    from collections.abc import Iterator

CONFIGURATION_FILE = "dagster.yaml"

_WRITTEN = "# Written by dqe, from the key concurrency of dqe.yaml. To write your own, take out this line.\n"

_BY_AN_EARLIER_VERSION = "telemetry:\n  enabled: false\n"


_KEPT_IN = {
    "runs.db": "the list of runs",
    "index.db": "what the UI shows of each asset: when it was made, its metadata and checks",
    "schedules.db": "what sensors and schedules have done",
}


class InstanceError(DataQualityError):
    """The folder of the Dagster instance cannot be written, or something in it is damaged."""


@contextmanager
def instance(concurrency: Concurrency | None = None) -> Iterator[dg.DagsterInstance]:
    """The Dagster instance of the data folder (or of DAGSTER_HOME), whose dead runs are ended first.

    Args:
        concurrency: the limits that it is to have; by default those that it has.

    Raises:
        InstanceError: its folder cannot be written, what Dagster keeps there is damaged, or the database that its
            dagster.yaml names cannot be used.
    """
    home = Path(os.environ.setdefault("DAGSTER_HOME", str(data_directory() / "dagster_home")))
    with _damage_named(home):
        try:
            home.mkdir(parents=True, exist_ok=True)
            if concurrency or not (home / CONFIGURATION_FILE).exists():
                _configure(home, concurrency or Concurrency())
            opened = dg.DagsterInstance.from_ref(InstanceRef.from_dir(str(home), overrides=_overrides(home)))
        except OSError as error:
            raise InstanceError(
                f"{home}: cannot be written ({error.strerror or error}); allow this user to write there"
            ) from error
        with opened as current:
            if concurrency:
                limit_pools(current, {MODEL_POOL: 1, COLLECTION_POOL: 1, **concurrency.pools})
            end_dead_runs(current)
            yield current


@contextmanager
def _damage_named(home: Path) -> Iterator[None]:
    """Say which of Dagster's files are damaged, or why its database cannot be used, if that is why something fails.

    Raises:
        InstanceError: it is; says what is lost without the files, or what to do about the database.
    """
    try:
        yield
    except Exception as error:
        if why := _why_no_database(error):
            raise InstanceError(f"{home / CONFIGURATION_FILE}: {why}") from error
        if not _is_of_dagster(error):
            raise
        damaged = [(path, why) for path in sorted(home.rglob("*.db")) if (why := _damage_of(path))]
        if not damaged:
            raise
        raise InstanceError("\n".join(_how_to_mend(path, why) for path, why in damaged)) from error


def _is_of_dagster(error: BaseException) -> bool:
    """Whether Dagster, or what it keeps its files with, has raised an error, or what an error came of."""
    return any(
        isinstance(one, sqlite3.DatabaseError) or type(one).__module__.startswith("dagster.") for one in _came_of(error)
    )


def _came_of(error: BaseException | None) -> Iterator[BaseException]:
    """An error, and what it came of."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _why_no_database(error: BaseException) -> str | None:
    """Why what dagster.yaml names cannot be used, and what to do; None if an error is another one."""
    for one in _came_of(error):
        if isinstance(one, ModuleNotFoundError) and (one.name or "").startswith("dagster_"):
            return f"it needs the package {one.name}; run: pip install '.[served]'"
        if (type(one).__module__, type(one).__name__) == ("psycopg2", "OperationalError"):
            return (
                f"Dagster's database cannot be used ({one_line(one)}); start it, or correct what stands under storage"
            )
    return None


def _damage_of(path: Path) -> str | None:
    """What is wrong with a file of SQLite's; None if nothing is."""
    if path.stat().st_size == 0:
        return "it is empty"
    try:
        with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as database:
            (found,) = database.execute("PRAGMA quick_check(1)").fetchone()
    except sqlite3.DatabaseError as error:
        # That another process has it open is no damage.
        return None if isinstance(error, sqlite3.OperationalError) else str(error)
    return None if found == "ok" else " ".join(found.split())


def _how_to_mend(path: Path, why: str) -> str:
    kept = _KEPT_IN.get(path.name, "the log of one run")
    return (
        f"{path}: damaged ({why}). Dagster keeps {kept} in it, and nothing that is needed to go on. Move it away, with "
        f"{path.name}-wal and {path.name}-shm if they are there, and run the same command again: that is lost, and all "
        "that is in the store stays current"
    )


def _configure(home: Path, concurrency: Concurrency) -> None:
    """Write the instance's dagster.yaml, unless somebody has written one by hand.

    Raises:
        OSError: it cannot be written.
    """
    path = home / CONFIGURATION_FILE
    found = path.read_text(encoding="utf-8") if path.exists() else ""
    if found and found != _BY_AN_EARLIER_VERSION and not found.startswith(_WRITTEN):
        return
    text = _WRITTEN + yaml.safe_dump(
        {
            "concurrency": {
                "runs": {"max_concurrent_runs": concurrency.runs},
                # By step: a run that waits for its turn in one pool goes on with what needs none.
                "pools": {"default_limit": 1, "granularity": "op"},
            },
            "run_queue": {"dequeue_interval_seconds": 1},
            "run_monitoring": {"enabled": True, "free_slots_after_run_end_seconds": 60},
            "run_retries": {"enabled": True, "max_retries": 0},
            "telemetry": {"enabled": False},
            "nux": {"enabled": False},
        },
        sort_keys=False,
    )
    if found != text:
        replace_file(path, lambda target: target.write(text.encode()))


def _overrides(home: Path) -> dict[str, Any]:
    """What is other than in dagster.yaml for a command: the output of a step goes to the terminal alone.

    To keep it for the UI as well, Dagster starts four processes for each step, which an end of this one leaves behind.
    """
    configured = yaml.safe_load((home / CONFIGURATION_FILE).read_text(encoding="utf-8")) or {}
    if "compute_logs" in configured:
        return {}
    return {"compute_logs": {"module": NoOpComputeLogManager.__module__, "class": NoOpComputeLogManager.__name__}}
