"""URLs are asked for as they are written, by a server that compares what it is asked for; their credentials stay."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from dqe_resources.store import Checkpoint
from dqe_resources.web_url import WebUrl, separated, without_credentials
from tests.hostile_server import ADDRESS, AUTHORIZATION, HostileServer, photo
from tests.ingest.fetching import QUICK, make, rows, write_list

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

USERINFO = "reader%40org:p%C3%A4ssword%2F1"
"""Of the server's user and password, as they are written in a URL."""

SECRETS = (USERINFO, "reader%40org", "p%C3%A4ssword", AUTHORIZATION.partition(" ")[2], "s3cret")


@pytest.fixture(scope="module")
def server() -> Iterator[HostileServer]:
    with HostileServer().running() as running:
        yield running


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("DQE_DATA", str(tmp_path))
    return tmp_path


AS_WRITTEN = [
    "/good/a%2Fb%2fc.jpg",
    "/good/a%3Ab:c%27d'e.jpg",
    "/good/%7Euser/~user/%41.jpg",
    "/good/a//b/./c/../d.jpg",
    "/good/a.jpg?",
    "/good/a.jpg?X-Amz-Signature=0aF%2b%2F%3d&X-Amz-Credential=AK%2F20260101%2fs3&t=1+2&u=http%3a%2f%2fx/?y",
    "/good/a.jpg?filter[x]=1&&=&b==",
    "/good/a;v=1,2!$&'()*+@.jpg",
]
"""What may stand in a URL, and so is sent as it is."""

ENCODED = {
    "/good/a b.jpg": "/good/a%20b.jpg",
    "/good/caf\xe9.jpg?q=\u732b": "/good/caf%C3%A9.jpg?q=%E7%8C%AB",
    '/good/"a"<b>\\{c}|^`.jpg': "/good/%22a%22%3Cb%3E%5C%7Bc%7D%7C%5E%60.jpg",
    "/good/100%.jpg": "/good/100%25.jpg",
    "/good/a.jpg#part/of?it": "/good/a.jpg",
}
"""What may not, and what is sent in its place."""


def test_urls_are_asked_for_as_they_are_written(server: HostileServer, folder: Path) -> None:
    base = f"http://{ADDRESS}:{server.port}"
    wanted = dict.fromkeys(AS_WRITTEN) | ENCODED
    write_list(folder, [base + path for path in wanted])
    make()
    for path, row in zip(wanted, rows(), strict=True):
        sent = wanted[path] or path
        assert (row["reason"], row["url"], row["final_url"]) == ("ok", base + path, base + sent)
        assert row["image"]["bytes"] == photo(sent), "the photo says what the server was asked for"


def test_redirects_lead_to_what_is_written(server: HostileServer, folder: Path) -> None:
    base = f"http://{ADDRESS}:{server.port}"
    locations = {
        "/good/a%2Fb%2fc%3A%27.jpg?s=%2b%3d&t=?": "/good/a%2Fb%2fc%3A%27.jpg?s=%2b%3d&t=?",
        f"{base}/good/%2e%2E/x%2fy.jpg?": "/good/%2e%2E/x%2fy.jpg?",
        f"//{ADDRESS}:{server.port}/good/%7e.jpg": "/good/%7e.jpg",
        "../good/./x/../b%2fc.jpg?a/../b": "/good/b%2fc.jpg?a/../b",
    }
    write_list(folder, [f"{base}/redirect_raw/{number}?{where}" for number, where in enumerate(locations)])
    make()
    for sent, row in zip(locations.values(), rows(), strict=True):
        assert (row["reason"], row["final_url"]) == ("ok", base + sent), row["detail"]
        assert row["image"]["bytes"] == photo(sent)


@pytest.mark.parametrize(
    ("location", "joined", "has_credentials"),
    [
        ("x%2fy", "https://h.org/a/b/x%2fy", True),
        ("?r=%2b", "https://h.org/a/b/c?r=%2b", True),
        ("", "https://h.org/a/b/c?q", True),
        ("#f", "https://h.org/a/b/c?q", True),
        ("../../../k/.", "https://h.org/k/", True),
        ("..", "https://h.org/a/", True),
        ("/caf\udce9.jpg", "https://h.org/caf%E9.jpg", True),
        ("https://H.org:443/x", "https://h.org/x", True),
        ("http://h.org/x", "http://h.org/x", False),
        ("https://h.org:444/x", "https://h.org:444/x", False),
        ("//other.org/x", "https://other.org/x", False),
    ],
)
def test_a_location_is_joined_and_credentials_go_along_only_to_the_same_place(
    location: str, joined: str, has_credentials: bool
) -> None:
    found = WebUrl.parse("https://user:word@h.org/a/b/c?q").joined(location)
    assert str(found) == joined
    assert bool(found.headers) == has_credentials


def texts(folder: Path) -> str:
    """All that is in the files of a folder: of tables every value, decoded."""
    found = []
    for path in sorted(folder.rglob("*")):
        if path.suffix in {".parquet", ".arrow"}:
            table = (
                pq.read_table(path)
                if path.suffix == ".parquet"
                else pa.ipc.open_file(path.read_bytes()[:-4]).read_all()
            )
            found.append(f"{path} {table.schema.metadata} {table.to_pylist()}")
        elif path.is_file():
            found.append(path.read_bytes().decode(errors="replace"))
    return "\n".join(found)


def test_credentials_are_used_and_neither_stored_nor_shown(
    server: HostileServer, folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    host = f"{ADDRESS}:{server.port}"
    with HostileServer().running() as other:
        to_other = f"http://{ADDRESS}:{other.port}/private/1"
        wanted = {
            f"http://{USERINFO}@{host}/private/0": "ok",
            f"http://{USERINFO}@{host}/redirect_raw/0?/private/same-host": "ok",
            f"http://{USERINFO}@{host}/redirect_raw/1?{to_other}": "http_401",
            f"http://{USERINFO}@{host}/redirect_raw/2?http://u:s3cret@[bad/": "bad_url",
            f"http://{USERINFO}@{host}/redirect_raw/3?ftp://u:s3cret@{host}/": "bad_url",
            f"http://user:s3cret@{host}/private/2": "http_401",
            f"http://user:s3cret@{host}/redirect_loop/0": "too_many_redirects",
            f"http://user:s3cret@{host}/always_reset/0": "reset",
            f"http://user:s3/s3cret@{host}/good/0": "bad_url",
            f"ftp://user:s3cret@{host}/good/0": "bad_url",
            f"http://s3cret@{host}/not_found/0": "http_404",
        }
        lines = [{"url": url, "caption": "c", "origin": url} for url in wanted]
        (folder / "lists").mkdir()
        (folder / "lists" / "list.jsonl").write_text(
            "\n".join([*map(json.dumps, lines), f'{{"url": "http://u:s3cret@{host}'])
        )
        source = {
            "kind": "urls",
            "name": "web",
            "path": "lists/*",
            "min_success_rate": 0.0,
            "metadata_columns": ["origin"],
        }
        (folder / "dqe.yaml").write_text(yaml.safe_dump({"sources": [source], "fetching": QUICK}))
        kept = []
        append = Checkpoint.append
        monkeypatch.setattr(Checkpoint, "append", lambda *given: kept.append(given[1]) or append(*given))
        make()
        found = rows()
        assert [row["reason"] for row in found] == [*wanted.values(), "bad_row"]
        assert [row["url"] for row in found[:1]] == [f"http://{host}/private/0"]
        assert server.authorized["/private/0"] == server.authorized["/private/same-host"] == AUTHORIZATION
        assert other.asked == {"/private/1": 1}
        assert not other.authorized
    (folder / "lists" / "list.jsonl").unlink()
    everything = texts(folder) + str([table.to_pylist() for table in kept]) + caplog.text
    assert kept
    assert f"{host}/private/0" in everything
    assert not [secret for secret in SECRETS if secret in everything]


def test_a_new_password_changes_neither_uids_nor_shards(server: HostileServer, folder: Path) -> None:
    found = []
    for password in ("s3cret", "another"):
        url = f"http://{USERINFO}@{ADDRESS}:{server.port}/private/0".replace("ssword", password)
        write_list(folder, [url, server.url("good")])
        make()
        found.append(rows())
    assert found[0] == found[1]


def test_what_no_one_can_use_is_taken_for_credentials_to_be_safe() -> None:
    assert separated("http://u:p@h/x@y") == ("http://h/x@y", "u:p")
    assert separated("https:\\\\u:p@h/x") == ("https:\\\\<left out>h/x", "")
    assert separated("http:u:p@h/x") == ("http:<left out>h/x", "")
    assert separated("photo@2x.jpg") == ("photo@2x.jpg", "")
    text = 'a http://a:b@h/x, {"url": "http://h/", "mail": "x@y"} and redis://:word@h:1'
    assert without_credentials(text) == 'a http://h/x, {"url": "http://h/", "mail": "x@y"} and redis://h:1'
    assert USERINFO not in repr(WebUrl.parse(f"http://{USERINFO}@h/"))


@pytest.mark.parametrize("name", ["none", "utf-8", "binary", "aws-chunked", "gzip", "deflate", "br", "x", "identity"])
def test_of_a_plain_image_it_does_not_matter_what_its_encoding_is_called(
    server: HostileServer, folder: Path, name: str
) -> None:
    write_list(folder, [server.url("encoded_as", name)])
    make()
    (row,) = rows()
    assert row["reason"] == "ok"
    assert row["image"]["bytes"] == photo(f"/encoded_as/{name}")
