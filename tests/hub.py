"""A server that stands in for the Hugging Face hub, with one dataset: org/set, a Parquet file."""

from __future__ import annotations

import json
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

COMMIT = "0123456789" * 4


class Hub(BaseHTTPRequestHandler):
    """As much of the hub's interface as reading a repository of one Parquet file takes."""

    data = b""
    served = 0

    def do_HEAD(self) -> None:
        self._answer(b"", 404, {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": COMMIT})

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        if path.endswith("/data/train.parquet"):
            first, last = map(int, self.headers["Range"].removeprefix("bytes=").split("-"))
            part = self.data[first : last + 1]
            type(self).served += len(part)
            self._answer(part, 206, {"ETag": '"1"', "X-Repo-Commit": COMMIT})
        elif "/revision/" in path:
            self._json({"id": "org/set", "sha": COMMIT, "siblings": [{"rfilename": "data/train.parquet"}]})
        elif path.endswith("/data"):
            self._json([{"type": "file", "path": "data/train.parquet", "size": len(self.data), "oid": COMMIT}])
        else:
            self._json([{"type": "directory", "path": "data", "oid": COMMIT}])

    def _json(self, value: Any) -> None:
        self._answer(json.dumps(value).encode(), 200, {"Content-Type": "application/json"})

    def _answer(self, data: bytes, status: int, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(data))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def log_message(self, *arguments: Any) -> None:
        pass


@contextmanager
def serving_hub() -> Iterator[str]:
    """Its address, while it serves."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def hub_environment(endpoint: str, home: Path) -> dict[str, str]:
    """The environment of a process that is to ask it: the library reads this when it is imported."""
    return {"HF_ENDPOINT": endpoint, "HF_HOME": str(home), "HF_HUB_DISABLE_TELEMETRY": "1", "NO_PROXY": "127.0.0.1"}
