"""Nothing leaves in a publication that says something of the machine, its network or its users: in any format."""

from __future__ import annotations

import io
import json
import re
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, get_args

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from PIL import Image

from dqe_assets.ingest.private import Private
from dqe_assets.ingest.tables import RAW_SAMPLES
from dqe_assets.orchestration.settings import Settings, load_settings
from dqe_assets.publish.dataset import Request, publish
from dqe_assets.publish.options import Format
from dqe_assets.report.build_warehouse import build_warehouse
from dqe_assets.training.reshard import MANIFEST
from dqe_resources.store import Stamp
from tests.report.make_store import CAPTIONERS, make_store

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

PERSON, PASSWORD, HOST, TOKEN = "alice-q7", "hunter2-q7", "build-q7.corp", "0xSIGNATUREq7"
PLANTED = (PERSON, PASSWORD, HOST, TOKEN, "10.11.12.13")
HOME = f"/home/{PERSON}"
URLS = (
    f"https://{PERSON}:{PASSWORD}@photos.example.org/a.jpg",
    f"http://{HOST}/share/a.jpg",
    "http://10.11.12.13:8000/a.jpg",
    f"https://bucket.example.org/a.jpg?X-Amz-Credential=AKIA{TOKEN}&X-Amz-Signature={TOKEN}&size=3",
)
XMP = f'<x:xmpmeta xmlns:x="adobe:ns:meta/"><a b="{HOME}/edit.psd">'.encode()


def planted(number: int, image: dict[str, Any]) -> dict[str, Any]:
    """The same image in another format, with EXIF, texts and XMP that tell more than they should."""
    out, exif = io.BytesIO(), Image.Exif()
    exif[0x010E], exif[0x013B], exif[0x8298] = f"{HOME}/DCIM", "Ada", "(c) Ada"
    kind = ("JPEG", "PNG", "WEBP", "TIFF")[number % 4]
    with Image.open(io.BytesIO(image["bytes"])) as opened:
        opened.save(out, kind, exif=exif, **({"xmp": XMP} if kind in {"JPEG", "WEBP"} else {}))
    return {"bytes": out.getvalue() + HOME.encode(), "path": f"{HOME}/{number}.jpg"}


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Settings]:
    """A store, a warehouse and settings in which secrets stand wherever they can."""
    data = tmp_path_factory.mktemp("private") / PERSON / "data"
    (data / "photos").mkdir(parents=True)
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setenv("DQE_DATA", str(data))
        monkeypatch.setenv("HOME", HOME)
        yield made(data)


def made(data: Path) -> Settings:
    """The settings, with what is made of them."""
    source = {"kind": "folder", "name": "photos", "path": str(data / "photos"), "license": "CC0"}
    vlm = {"kind": "openai", "name": "vlm", "model": f"{HOME}/models/InternVL2-8B", "url": f"http://{HOST}:8000/v1"}
    filters = {"small": "width < 1000"}
    written = {"sources": [source], "captioners": [{"kind": "labels", "name": "labels"}, vlm], "filters": filters}
    written |= {"fetching": {"allow": [HOST, "10.11.12.13"]}, "subsets": []}
    (data / "dqe.yaml").write_text(yaml.safe_dump(written))
    store = make_store(data / "store", shards=1, captioners=CAPTIONERS)
    loaded = load_settings()
    path = data / "store" / "raw_samples" / "photos-00000.parquet"
    rows = pq.read_table(path).to_pylist()
    for number, row in enumerate(rows):
        row["url"], row["image_name"] = URLS[number % len(URLS)], f"{HOME}/photos/{number}.jpg"
        row["detail"] = row["detail"] and f"{HOME}: {row['detail']}"
        if row["image"]:
            row["attempts"], row["fetched_at"] = 1, datetime(2026, 1 + number % 3, 2, tzinfo=UTC)
            row["image"], row["format"] = planted(number, row["image"]), ("jpeg", "png", "webp", "tiff")[number % 4]
    pq.write_table(pa.Table.from_pylist(rows, RAW_SAMPLES), path)
    # As the store writes it.
    for asset, files in store.inputs.assets.items():
        for file in files:
            table = pq.read_table(file)
            stamp = Stamp("0" * 32, "1", table.num_rows, facts={"file": f"{HOME}/table.csv", "by": PERSON})
            partition = None if file.stem == "all" else file.stem
            loaded.opened_store.write_table(asset, partition, table, table.schema, stamp)
    loaded.warehouse.rebuild(lambda connection: build_warehouse(connection, store.inputs))
    return load_settings()


def everything_in(folder: Path) -> dict[str, bytes]:
    """All that is in a folder, unpacked: Parquet is compressed."""
    found: dict[str, bytes] = {}
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        found[path.name] = path.read_bytes() + str(path.relative_to(folder)).encode()
        if path.suffix == ".parquet":
            table = pq.read_table(path)
            columns = [repr(column.to_pylist()).encode() for column in table.columns]
            images = [row["bytes"] for row in table["image"].to_pylist()] if "image" in table.column_names else []
            found[path.name] += b"".join([repr(table.schema).encode(), *columns, *images])
    return found


@pytest.mark.parametrize("kind", get_args(Format))
def test_no_format_tells_of_the_machine_its_network_or_its_users(settings: Settings, tmp_path: Path, kind: Any) -> None:
    where = f"width > 1 AND image_name NOT LIKE '{settings.sources[0].path}/%' AND url <> '{URLS[1]}'"  # type: ignore[attr-defined]
    manifest = publish(settings, tmp_path / "out", Request(where, "best", kind, 10))
    assert manifest["samples"] > 20
    written = everything_in(tmp_path / "out")
    assert MANIFEST in written
    leaks = {
        (name, secret, data[max(at - 60, 0) : at + 40])
        for name, data in written.items()
        for secret in (*PLANTED, HOME, "/tmp/")
        if (at := data.find(secret.encode())) >= 0
    }
    assert not leaks
    assert manifest["lineage"]["captioners"]["vlm"] == "InternVL2-8B"


def test_what_an_image_says_of_its_rights_stays_in_it(settings: Settings, tmp_path: Path) -> None:
    publish(settings, tmp_path / "out", Request("true", "best", "hf", 1000))
    (path,) = (tmp_path / "out" / "data").iterdir()
    rows = pq.read_table(path).to_pylist()
    for row in rows:
        with Image.open(io.BytesIO(row["image"]["bytes"])) as image:
            # A WebP or PNG keeps it in XMP as well as a JPEG does.
            assert b"(c) Ada" in row["image"]["bytes"], image.format
    assert {row["url"] for row in rows} == {
        "https://photos.example.org/a.jpg",
        None,
        "https://bucket.example.org/a.jpg?size=3",
    }
    assert re.fullmatch(r"\d+\.jpg", rows[0]["image_name"])


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("open_clip local-dir:/home/bob/models/clip-b32, bf16", "open_clip local-dir:clip-b32, bf16"),
        ("hf-hub:apple/DFN-public", "hf-hub:apple/DFN-public"),
        ("OpenGVLab/InternVL2-8B", "OpenGVLab/InternVL2-8B"),
        ("~/models/x.gguf", "x.gguf"),
        (r"C:\Users\bob\x.pt", "x.pt"),
        ("file:///srv/x.pt", "x.pt"),
        ("and/or, 3/4 and 1/2/3", "and/or, 3/4 and 1/2/3"),
        ("http://localhost:8000/v1", "(an internal URL)"),
        ("https://user:pw@example.org/a?token=1&b=2", "https://example.org/a?b=2"),
    ],
)
def test_of_a_path_the_name_is_left(text: str, left: str) -> None:
    assert Private().name(text) == left


def test_records_are_taken_through(tmp_path: Path) -> None:
    private = Private((str(tmp_path),))
    record = {"a": [f"{tmp_path}/x.csv", 3, None, {"b": f"in {tmp_path}"}], "c": True}
    assert private.record(record) == {"a": ["x.csv", 3, None, {"b": f"in {tmp_path.name}"}], "c": True}
    assert json.dumps(private.record({"e": 1.5})) == '{"e": 1.5}'
