"""What is made over all shards has one owner at a time: on one machine, and among several that share a bucket."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import time
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa
import pytest

from dqe_resources.store import Stamp, StorageError, Store, StoreAwayError, owner
from tests.servers.seaweed import S3, s3_server

if TYPE_CHECKING:
    from collections.abc import Iterator

LEASE = 3.0
SCHEMA = pa.schema([pa.field("value", pa.int64(), nullable=False)])

OWNER = """
import sys
import pyarrow as pa
from dqe_resources.store import Stamp, StorageError, Store, StoreAwayError, owner
from tests.resources.store.test_owner import SCHEMA, shorten
root, rounds = sys.argv[1], int(sys.argv[2])
shorten()
store = Store(root)
def add_one(mine):
    table = mine.read("warehouse", None, SCHEMA) if mine.get("warehouse", None) else SCHEMA.empty_table()
    value = table["value"][0].as_py() if len(table) else 0
    print("owns", flush=True)
    if not rounds:
        sys.stdin.readline()
    mine.write_table("warehouse", None, pa.table({"value": [value + 1]}, SCHEMA), SCHEMA, Stamp(f"{value}", "1", 1))
try:
    for _ in range(rounds or 1):
        with store.owned("warehouse", lambda who: print(who, flush=True)) as mine:
            add_one(mine)
    print("ended", flush=True)
except StorageError as error:
    print(error, flush=True)
"""


def shorten() -> None:
    """Make a lease short, and look often."""
    owner.LEASE_SECONDS, owner._SIGN_SECONDS, owner._LOOK_SECONDS = LEASE, 0.3, 0.1


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3]:
    with s3_server(tmp_path_factory.mktemp("s3")) as running:
        yield running


@pytest.fixture(params=["s3", "local"])
def root(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param == "local":
        return str(tmp_path / "store")
    for name, value in request.getfixturevalue("server").environment().items():
        monkeypatch.setenv(name, value)
    return f"s3://bucket/{tmp_path.name}"


@contextmanager
def process(root: str, rounds: int = 0, data: str = "data") -> Iterator[subprocess.Popen[str]]:
    """A process that owns the warehouse a number of times; or, with 0, once, until it is told to go on."""
    command = [sys.executable, "-c", OWNER, root, str(rounds)]
    environment = {**os.environ, "DQE_DATA": data, "PYTHONPATH": str(Path(__file__).parents[3])}
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(command, env=environment, text=True, bufsize=1, **pipes) as running:  # type: ignore[call-overload]
        try:
            yield running
        finally:
            running.kill()


def says(running: subprocess.Popen[str]) -> str:
    assert running.stdout is not None
    return running.stdout.readline().strip()


def goes_on(running: subprocess.Popen[str]) -> None:
    assert running.stdin is not None
    running.stdin.write("\n")
    running.stdin.flush()


def value(root: str) -> int:
    return int(Store(root).read("warehouse", None, SCHEMA)["value"][0].as_py())


def waits_for(running: subprocess.Popen[str]) -> str:
    return rf"warehouse: process {running.pid} on {re.escape(socket.gethostname())} makes it; waiting until that ends"


def test_who_comes_second_says_whom_it_waits_for_and_comes_after(root: str) -> None:
    with process(root, data="one") as first:
        assert says(first) == "owns"
        with process(root, data="two") as second:
            assert re.match(waits_for(first), says(second))
            # Longer than a lease: the first one lives.
            time.sleep(LEASE + 1)
            goes_on(first)
            assert says(first) == "ended"
            assert says(second) == "owns"
            goes_on(second)
            assert says(second) == "ended"
    assert value(root) == 2
    assert Store(root).partitions("warehouse") == {"all"}


def test_many_at_once_take_turns(root: str) -> None:
    with ExitStack() as stack:
        running = [stack.enter_context(process(root, 3, f"data {number}")) for number in range(3)]
        said = [one.communicate(timeout=120)[0] for one in running]
    assert all(text.endswith("ended\n") for text in said), said
    assert value(root) == 9, "nobody has written over what another one wrote"


def test_what_a_killed_owner_owned_goes_to_the_next(root: str) -> None:
    with process(root) as first:
        assert says(first) == "owns"
        first.kill()
        first.wait()
        began = time.monotonic()
        with process(root, 1) as second:
            said = second.communicate(timeout=60)[0].splitlines()
    waited = time.monotonic() - began
    assert said[-2:] == ["owns", "ended"]
    if root.startswith("s3://"):
        assert re.match(waits_for(first) + ", or has given no sign of life for 3 s$", said[0])
        assert waited > LEASE
    assert value(root) == 1


def test_an_owner_that_stood_still_writes_nothing_over_the_next(
    server: S3, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, set_to in server.environment().items():
        monkeypatch.setenv(name, set_to)
    root = f"s3://bucket/{tmp_path.name}"
    with ExitStack() as stack:
        first = stack.enter_context(process(root))
        assert says(first) == "owns"
        second = stack.enter_context(process(root))
        assert re.match(waits_for(first), says(second))
        first.send_signal(signal.SIGSTOP)
        assert says(second) == "owns"
        first.send_signal(signal.SIGCONT)
        goes_on(first)
        assert re.match(
            rf"warehouse: process {second.pid} on .* has taken over, as this process gave no sign of life for 3 s; "
            "run the same command again",
            says(first),
        )
        goes_on(second)
        assert says(second) == "ended"
    assert value(root) == 1


def test_no_clock_of_the_owner_is_read(server: S3, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, set_to in server.environment().items():
        monkeypatch.setenv(name, set_to)
    root = f"s3://bucket/{tmp_path.name}"
    shorten()
    monkeypatch.setattr(owner.time, "time", lambda: 0.0)
    told: list[str] = []
    with process(root) as first:
        assert says(first) == "owns"
        goes_on(first)
        with Store(root).owned("warehouse", told.append) as mine:
            mine.write_table("warehouse", None, pa.table({"value": [7]}, SCHEMA), SCHEMA, Stamp("7", "1", 1))
    assert value(root) == 7


def test_where_nothing_can_be_written_it_says_so(server: S3, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import s3fs

    (tmp_path / "warehouse").write_text("in the way")
    with (
        pytest.raises(StorageError, match=r"warehouse.*cannot be locked \("),
        Store(str(tmp_path)).owned("warehouse", print),
    ):
        pass
    for name, set_to in server.environment("reader").items():
        monkeypatch.setenv(name, set_to)
    s3fs.S3FileSystem.clear_instance_cache()
    with (
        pytest.raises(StoreAwayError, match=r"warehouse/\.owner: cannot be written \(.*valid credentials, with rights"),
        Store("s3://bucket/store").owned("warehouse", print),
    ):
        pass
    s3fs.S3FileSystem.clear_instance_cache()
