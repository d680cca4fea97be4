"""A stand-in for the Hugging Face Hub: one data set on a local port, with the answers that its client asks for.

It keeps files and commits, and can refuse: what it proves is what our side sends and how it takes the answers. It says
nothing of the hub's own limits, of Xet or of rights.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

HEAD = "a" * 40


@dataclass
class HubState:
    """What is on the hub, and what was asked of it."""

    url: str = ""
    created: dict[str, Any] = field(default_factory=dict)
    branches: list[str] = field(default_factory=lambda: ["main"])
    files: dict[str, bytes] = field(default_factory=dict)
    objects: dict[str, bytes] = field(default_factory=dict)
    commits: list[list[str]] = field(default_factory=list)
    uploads: list[str] = field(default_factory=list)
    failures: list[tuple[str, int]] = field(default_factory=list)
    """Beginnings of paths that are refused once each, and the status of the answer; 0 ends the connection."""


@contextmanager
def hub() -> Iterator[HubState]:
    """A hub on a free port of this machine."""
    state = HubState()

    class Handler(_Handler):
        hub = state

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        state.url = f"http://127.0.0.1:{server.server_port}"
        thread = Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield state
        server.shutdown()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    hub: HubState
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        """Print nothing."""

    def do_GET(self) -> None:
        if self._is_refused():
            return
        path = self.path.partition("?")[0]
        if "/tree/" in path:
            self._json([self._entry(name, data) for name, data in self.hub.files.items()])
        elif (match := re.search(r"/resolve/[^/]+/(.*)", path)) and match[1] in self.hub.files:
            self._file(self.hub.files[match[1]])
        else:
            self._answer(404, b"{}", {"X-Error-Code": "EntryNotFound"})

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if self._is_refused():
            return
        hub = self.hub
        if self.path == "/api/repos/create":
            if hub.created:
                self._json({"error": "there already", "url": f"{hub.url}/datasets/me/name"}, 409)
                return
            hub.created = json.loads(body)
            hub.files[".gitattributes"] = b"*.parquet filter=lfs"
            self._json({"url": f"{hub.url}/datasets/me/name"})
        elif "/branch/" in self.path:
            hub.branches.append(self.path.rpartition("/")[2])
            self._json({})
        elif "/preupload/" in self.path:
            files = json.loads(body)["files"]
            modes = {True: "lfs", False: "regular"}
            self._json(
                {
                    "files": [
                        {
                            "path": file["path"],
                            "uploadMode": modes[file["path"].endswith((".parquet", ".tar"))],
                            "shouldIgnore": False,
                        }
                        for file in files
                    ]
                }
            )
        elif self.path.endswith("/objects/batch"):
            self._json(
                {
                    "transfer": "basic",
                    "objects": [
                        one
                        if one["oid"] in hub.objects
                        else {**one, "actions": {"upload": {"href": f"{hub.url}/lfs/{one['oid']}"}}}
                        for one in json.loads(body)["objects"]
                    ],
                }
            )
        elif "/commit/" in self.path:
            self._commit(body)
        else:
            self._json({})

    def do_PUT(self) -> None:
        data = self.rfile.read(int(self.headers["Content-Length"]))
        if self._is_refused():
            return
        oid = self.path.rpartition("/")[2]
        assert hashlib.sha256(data).hexdigest() == oid
        self.hub.objects[oid] = data
        self.hub.uploads.append(oid)
        self._answer(200, b"", {})

    def _commit(self, body: bytes) -> None:
        names = []
        for line in map(json.loads, body.splitlines()):
            value = line["value"]
            if line["key"] == "file":
                self.hub.files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                self.hub.files[value["path"]] = self.hub.objects[value["oid"]]
            elif line["key"] == "deletedFile":
                del self.hub.files[value["path"]]
            names += [value["path"]] if "path" in value else []
        self.hub.commits.append(names)
        self._json({"commitUrl": f"{self.hub.url}/datasets/me/name/commit/{HEAD}", "commitOid": HEAD, "hookOutput": ""})

    def _is_refused(self) -> bool:
        for failure in self.hub.failures:
            if failure[0] in self.path:
                self.hub.failures.remove(failure)
                if failure[1] == 0:
                    self.close_connection = True
                    self.connection.close()
                else:
                    self._json({"error": "not now"}, failure[1])
                return True
        return False

    @staticmethod
    def _entry(name: str, data: bytes) -> dict[str, Any]:
        return {"type": "file", "path": name, "size": len(data), "oid": hashlib.sha1(data).hexdigest()}

    def _file(self, data: bytes) -> None:
        self._answer(200, data, {"ETag": f'"{hashlib.sha256(data).hexdigest()}"', "X-Repo-Commit": HEAD})

    def _json(self, value: Any, status: int = 200) -> None:
        self._answer(status, json.dumps(value).encode(), {"Content-Type": "application/json"})

    def _answer(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, text in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(name, text)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)
