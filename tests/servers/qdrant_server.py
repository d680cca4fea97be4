"""What stands in for a Qdrant server, as a process: it is started, killed, and told what goes wrong."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from dqe_resources.vectors import ServerQdrant
from tests.servers.ports import free_port
from tests.servers.qdrant_app import KEY

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[2]
_START_SECONDS = 60


@dataclass(frozen=True)
class Fault:
    """What happens to requests instead of what should.

    Attributes:
        what: a status with which they are refused, undone: ``503``; ``lost`` (undone too, the connection ends in the
            answer); or, once they are done: ``cut`` (the connection ends in the middle of the answer), ``silent`` (no
            answer comes), ``echo`` (a 500 that tells the request's headers), ``html`` (200 and a page that is no JSON).
        path: a pattern that is looked for in ``PUT /collections/captions/points``.
        times: how many requests it happens to.
        skip: how many of them go well before.
        retry_after: the header Retry-After.
        above: it happens to larger requests only, in bytes.
    """

    what: str
    path: str = ""
    times: int = 1
    skip: int = 0
    retry_after: str | None = None
    above: int = 0


class QdrantServer:
    """The stand-in as a process of its own.

    Attributes:
        url: its address, the same after it came back.
        key: the key that it wants.
    """

    def __init__(self, folder: Path, key: str | None = None) -> None:
        self.key = key
        self._folder = folder
        self._port = free_port()
        self.url = f"http://127.0.0.1:{self._port}"
        self._process: subprocess.Popen[bytes] | None = None

    def vectors(self, collection: str = "captions", **settings: Any) -> ServerQdrant:
        """A collection on it."""
        return ServerQdrant(url=self.url, collection=collection, api_key=self.key, **settings)

    def start(self, *, wait: bool = True) -> None:
        """Start the process, and wait until it answers."""
        self._folder.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, "-m", "tests.servers.qdrant_app", str(self._folder), str(self._port)]
        given = os.environ | ({KEY: self.key} if self.key else {})
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen(command, cwd=ROOT, env=given, stdout=log, stderr=log)
        deadline = time.monotonic() + _START_SECONDS
        while wait:
            try:
                self.told()
            except OSError:
                said = (self._folder / "log").read_text()[-3000:]
                assert self._process.poll() is None, f"the server did not start: {said}"
                assert time.monotonic() < deadline, f"the server did not start in time: {said}"
                time.sleep(0.05)
            else:
                return

    def kill(self) -> None:
        """End it at once, as a crash would."""
        if self._process is not None:
            self._process.send_signal(signal.SIGKILL)
            self._process.wait()

    def goes_wrong(self, *faults: Fault) -> None:
        """From now on these faults happen, and no others; what was seen is forgotten."""
        self._ask(json.dumps([asdict(fault) for fault in faults]).encode())

    def told(self) -> dict[str, Any]:
        """``seen``: how often each call was asked for; ``left``: faults to come; ``most_at_once``: of requests."""
        return self._ask(None)

    def _ask(self, body: bytes | None) -> dict[str, Any]:
        request = urllib.request.Request(f"{self.url}/faults", body)
        with urllib.request.urlopen(request, timeout=10) as answer:
            found: dict[str, Any] = json.load(answer)
        return found


@contextmanager
def qdrant_server(folder: Path, key: str | None = None) -> Iterator[QdrantServer]:
    """The stand-in, running, with its collections in a folder."""
    pytest.importorskip("fastapi", reason="the extra 'test' is not installed")
    server = QdrantServer(folder, key)
    try:
        server.start()
        yield server
    finally:
        server.kill()
