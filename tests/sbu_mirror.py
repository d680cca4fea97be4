"""A mirror of Flickr that has nine of its photos, and the official files of SBU to go with it.

The photos and the rows are those of shared/data/sbu. Every other photo is answered with 404: by this server, which says
nothing of what Flickr itself would answer.
"""

from __future__ import annotations

import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

URLS = "SBU_captioned_photo_dataset_urls.txt"
CAPTIONS = "SBU_captioned_photo_dataset_captions.txt"


@contextmanager
def serve(photos: Path) -> Iterator[str]:
    """Serve the photos of a folder by the last part of the path, whatever the host; gives address:port."""
    found = {path.name: path.read_bytes() for path in photos.iterdir()}

    class Mirror(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def do_GET(self) -> None:
            photo = found.get(self.path.rpartition("/")[2])
            self.send_response(404 if photo is None else 200)
            self.send_header("Content-Type", "text/html" if photo is None else "image/jpeg")
            self.send_header("Content-Length", str(len(photo or b"")))
            self.end_headers()
            self.wfile.write(photo or b"")

        def log_message(self, *_arguments: object) -> None:
            pass

    class Server(ThreadingHTTPServer):
        request_queue_size = 256

    with Server(("127.0.0.1", 0), Mirror) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"127.0.0.1:{server.server_port}"
        server.shutdown()


def rows_of(sbu: Path, count: int | None = None) -> pa.Table:
    """The first rows of captions.parquet and those of the nine photos, or all rows, in their order."""
    table = pq.read_table(sbu / "captions.parquet")
    if count is None:
        return table
    names = pa.array([path.name for path in (sbu / "images").iterdir()])
    photos = table.filter(pc.is_in(table["image_name"], names))
    others = table.filter(pc.invert(pc.is_in(table["image_name"], names)))
    return pa.concat_tables([others.slice(0, count - len(photos)), photos])


def write_official_files(table: pa.Table, folder: Path) -> None:
    """The rows as SBU publishes its own: a file of URLs and a file of captions."""
    for name, column in ((URLS, "image_url"), (CAPTIONS, "original_caption")):
        lines = (" ".join(text.split("\n")) + "\n" for text in table[column].to_pylist())
        (folder / name).write_text("".join(lines), encoding="utf-8", newline="")


def settings(address: str) -> dict[str, object]:
    """What data/dqe.yaml says to fetch SBU through the mirror at address:port."""
    source = {"kind": "sbu", "name": "sbu", "urls": URLS, "captions": CAPTIONS, "min_success_rate": 0.0}
    return {
        "sources": [source],
        "fetching": {"allow": ["127.0.0.1"], "connect_to": {"*": address}},
        "captioners": [{"kind": "labels", "name": "labels"}],
    }
