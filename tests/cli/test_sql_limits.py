"""A query keeps to its limits of time, memory and disk, and Ctrl-C ends it at once, whatever DuckDB is doing."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import duckdb
import pytest
from pydantic import ValidationError

from dqe_resources.locks import LOCK, hold_open
from dqe_resources.warehouse import QueryError, UnstoppableQueryError, Warehouse
from tests.conftest import dqe, environment

if TYPE_CHECKING:
    from pathlib import Path

ROWS = 1_500_000

SORTED = "SELECT count(*) FROM (SELECT * FROM texts ORDER BY text DESC LIMIT 1400000)"
ENDLESS = "SELECT count(*) FROM range(1000000000000) r(n) WHERE hash(n) = 1"
UNSTOPPABLE = "SELECT levenshtein(repeat('ab', 200000), repeat('ba', 200000))"
"""One call of a function that takes minutes, and that DuckDB cannot leave."""

LARGE = "SELECT sum(len(list_sort(range(40000000 + n)))) FROM range(9) r(n)"
"""Lists in memory, which DuckDB neither counts nor spills."""


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder with a warehouse of one table."""
    folder = tmp_path_factory.mktemp("sql")
    (folder / "dqe.yaml").write_text("sources: [{kind: sample}]\n")
    select = f"SELECT n, md5(n::VARCHAR) || md5((n + 1)::VARCHAR) AS text FROM range({ROWS}) r(n)"
    Warehouse(path=folder / "warehouse.duckdb").rebuild(
        lambda connection: connection.execute(f"CREATE TABLE texts AS {select}")
    )
    return folder


def beside(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.name.startswith(".warehouse"))


def test_what_needs_more_memory_goes_on_on_disk_and_leaves_nothing_there(built: Path) -> None:
    path = built / "warehouse.duckdb"
    before = beside(built)
    assert Warehouse(path=path, memory_limit="60MB").query(SORTED).to_pylist() == [{"count_star()": 1_400_000}]
    assert beside(built) == before
    with pytest.raises(QueryError, match="Ask for less at once, or raise memory_limit or spill_limit") as full:
        Warehouse(path=path, memory_limit="60MB", spill_limit="1MB").query(SORTED)
    assert "\n" not in str(full.value)
    assert beside(built) == before


def test_it_spills_next_to_the_warehouse(built: Path) -> None:
    with Warehouse(path=built / "warehouse.duckdb", memory_limit="60MB").session() as query:
        (folder,) = built.glob(".warehouse.duckdb.spill-*")
        query(SORTED)
        assert [path.name for path in folder.iterdir() if path.is_file()] == [LOCK]
        (setting,) = query(
            "SELECT current_setting('temp_directory') AS d, current_setting('memory_limit') AS m"
        ).to_pylist()
        assert setting == {"d": str(folder / "temporary"), "m": "57.2 MiB"}
        for name in ("warehouse", "warehouse.wal", "temporary/x", "../warehouse.duckdb", "../warehouse.duckdb.wal"):
            with pytest.raises(QueryError, match="this has COPY in it"):
                query(f"WITH x AS (COPY texts TO '{folder / name}' (USE_TMP_FILE false)) SELECT * FROM x")
    assert not folder.exists()


def test_without_a_folder_there_is_no_file_system_at_all(built: Path) -> None:
    warehouse = Warehouse(path=built / "warehouse.duckdb", memory_limit="60MB")
    connection = warehouse._confined(None)
    try:
        assert connection.execute("SELECT count(*) FROM texts").fetchone() == (ROWS,)
        for sql in (SORTED, f"WITH x AS (COPY texts TO '{warehouse.path}') SELECT * FROM x"):
            with pytest.raises(duckdb.Error, match=r"LocalFileSystem has been disabled|no temporary directory"):
                connection.execute(sql).fetchall()
    finally:
        connection.close()


def test_the_folder_of_a_killed_session_is_removed_by_the_next(built: Path) -> None:
    dead, alive, young = (built / f".warehouse.duckdb.spill-{name}" for name in ("dead", "alive", "young"))
    for folder in (dead, alive, young):
        folder.mkdir()
        (folder / LOCK).touch()
    with (alive / LOCK).open("wb") as lock:
        assert hold_open(lock)
        for folder in (dead, alive):
            os.utime(folder, (0, 0))
        Warehouse(path=built / "warehouse.duckdb").query("SELECT 1")
        assert (dead.exists(), alive.exists(), young.exists()) == (False, True, True)
    for folder in (alive, young):
        (folder / LOCK).unlink()
        folder.rmdir()


def test_a_statement_that_cannot_be_stopped_is_given_up(built: Path) -> None:
    with pytest.raises(QueryError, match=r"stopped after 0\.2 s") as stopped:
        Warehouse(path=built / "warehouse.duckdb", statement_timeout=0.2).query(ENDLESS)
    assert not isinstance(stopped.value, UnstoppableQueryError)
    done = dqe(built, "sql", UNSTOPPABLE, "--timeout", "0.2")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "error: stopped after 0.2 s (statement_timeout)\n"


def test_memory_that_duckdb_does_not_count_is_limited_too(built: Path) -> None:
    done = dqe(built, "sql", LARGE, "--memory", "50MB")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("error: stopped at 0.6 GB of memory (memory_limit 50MB, ")
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("query", [ENDLESS, UNSTOPPABLE])
def test_control_c_ends_it_at_once(built: Path, query: str) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "dqe_assets.cli", "sql", query],
        env=environment(built),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    end = time.monotonic() + 120
    while not list(built.glob(".warehouse.duckdb.spill-*/warehouse.wal")) and time.monotonic() < end:
        time.sleep(0.05)
    time.sleep(0.5)
    process.send_signal(signal.SIGINT)
    output, error = process.communicate(timeout=60)
    assert (process.returncode, output) == (130, "")
    assert "Traceback" not in error
    assert not list(built.glob(".warehouse.duckdb.spill-*"))


@pytest.mark.parametrize(
    ("options", "said"),
    [(["--memory", "5"], "error: --memory 5: "), (["--timeout", "0"], "error: --timeout 0.0: ")],
)
def test_a_wrong_limit_is_one_clear_line(built: Path, options: list[str], said: str) -> None:
    done = dqe(built, "sql", "SELECT 1", *options)
    assert done.returncode == 2
    assert done.stderr.startswith(said)
    assert done.stderr.count("\n") == 1


def test_limits_are_settings() -> None:
    assert Warehouse(memory_limit="1.5 GiB", spill_limit="100MB").memory_limit == "1.5 GiB"
    for wrong in ("2", "2G", "-1GB", "much", "2GB; SET x = 1"):
        with pytest.raises(ValidationError):
            Warehouse(memory_limit=wrong)


def test_a_large_result_is_written_a_part_at_a_time(built: Path) -> None:
    done = dqe(built, "sql", "SELECT n FROM texts ORDER BY n LIMIT 25001")
    assert done.stdout.split() == ["n", *map(str, range(25_001))]
