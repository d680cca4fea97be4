"""A real PostgreSQL on this machine: Debian's package."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
import time
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.servers.ports import free_port

if TYPE_CHECKING:
    from collections.abc import Iterator

_PASSWORD = "a password: with @ and /"
_START_SECONDS = 60


@dataclass
class Postgres:
    """A running server.

    Attributes:
        port: where it listens, on 127.0.0.1 alone.
        process: the server.
    """

    port: int
    process: subprocess.Popen[bytes]

    def environment(self) -> dict[str, str]:
        """What docker/dagster.yaml reads of it in the environment."""
        return {
            "DQE_POSTGRES_HOST": "127.0.0.1",
            "DQE_POSTGRES_PORT": str(self.port),
            "DQE_POSTGRES_PASSWORD": _PASSWORD,
        }


@contextmanager
def postgres_server() -> Iterator[Postgres]:
    """A server with an empty database ``dagster``, which the user ``dagster`` owns."""
    pytest.importorskip("dagster_postgres", reason="the extra 'served' is not installed")
    programs = _programs()
    # As root it refuses to run, and another user reaches no folder of pytest's.
    user = "postgres" if os.geteuid() == 0 else None
    folder = Path(tempfile.mkdtemp(prefix="postgres-"))
    try:
        (folder / "password").write_text(_PASSWORD)
        if user:
            for path in (folder, folder / "password"):
                shutil.chown(path, user, user)
        _make_database(programs, folder, user)
        port = free_port()
        command = [programs / "postgres", "-D", folder / "data", "-h", "127.0.0.1", "-p", str(port), "-k", ""]
        with (folder / "log").open("wb") as log, _as(user, command, stdout=log, stderr=log) as process:
            try:
                _wait_until_ready(programs, port, process, folder / "log")
                yield Postgres(port, process)
            finally:
                # A fast shutdown: it ends its sessions.
                process.send_signal(signal.SIGINT)
                process.wait(30)
    finally:
        shutil.rmtree(folder)


def _programs() -> Path:
    found = shutil.which("postgres") or max(map(str, Path("/usr/lib/postgresql").glob("*/bin/postgres")), default=None)
    if found is None:
        pytest.skip("no PostgreSQL (Debian: apt-get install postgresql)")
    return Path(found).resolve().parent


def _as(user: str | None, command: list[str | Path], **options: object) -> subprocess.Popen[bytes]:
    groups = [] if user else None
    return subprocess.Popen(command, user=user, group=user, extra_groups=groups, cwd="/", **options)  # type: ignore[call-overload]


def _make_database(programs: Path, folder: Path, user: str | None) -> None:
    data = folder / "data"
    made = [programs / "initdb", "-D", data, "--username=dagster", f"--pwfile={folder / 'password'}", "--no-sync"]
    for command, given in (
        ([*made, "--auth=scram-sha-256", "--encoding=UTF8", "--locale=C"], b""),
        ([programs / "postgres", "--single", "-D", data, "template1"], b"CREATE DATABASE dagster;\n"),
    ):
        pipe = subprocess.PIPE
        with _as(user, command, stdin=pipe, stdout=pipe, stderr=subprocess.STDOUT) as process:
            output, _ = process.communicate(given, timeout=_START_SECONDS)
        assert process.returncode == 0, output.decode()


def _wait_until_ready(programs: Path, port: int, process: subprocess.Popen[bytes], log: Path) -> None:
    asked = [programs / "pg_isready", "--quiet", "--host=127.0.0.1", f"--port={port}"]
    deadline = time.monotonic() + _START_SECONDS
    while subprocess.run(asked, check=False).returncode:
        assert process.poll() is None, log.read_text()
        assert time.monotonic() < deadline, "PostgreSQL did not start"
        time.sleep(0.1)
