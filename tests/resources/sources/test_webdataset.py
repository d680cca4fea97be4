from __future__ import annotations

import io
import json
import tarfile
from typing import TYPE_CHECKING, Any

import pytest

from dqe_resources.sources.protocol import SourceError
from dqe_resources.sources.webdataset import WebdatasetSource

if TYPE_CHECKING:
    from pathlib import Path

    from dqe_resources.sources.rows import SourceRow


def write(path: Path, members: list[tuple[str, bytes]], **options: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w", **options) as tar:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return path


def samples(first: int, count: int) -> list[tuple[str, bytes]]:
    """Samples as img2dataset writes them."""
    members = []
    for number in range(first, first + count):
        fields = {
            "caption": f"json {number}",
            "url": f"http://a.example/{number}",
            "uid": f"{number:032X}",
            "width": 640,
        }
        members += [
            (f"{number:09d}.jpg", f"image {number}".encode()),
            (f"{number:09d}.txt", f"caption {number}\n".encode()),
            (f"{number:09d}.json", json.dumps(fields).encode()),
        ]
    return members


def rows_of(path: Path, **settings: Any) -> list[SourceRow]:
    source = WebdatasetSource.model_validate({"name": "tars", "path": path, **settings})
    return [row for shard in source.shards() for row in source.rows(shard.index)]


@pytest.mark.parametrize("shard_size", [1, 4, 100])
@pytest.mark.parametrize("format_", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_shards_run_over_tars(tmp_path: Path, shard_size: int, format_: int) -> None:
    write(tmp_path / "in" / "00000.tar", samples(0, 5), format=format_)
    write(tmp_path / "in" / "deep" / "00001.tar", samples(5, 4), format=format_)
    rows = rows_of(tmp_path / "in", shard_size=shard_size)
    assert [row.image for row in rows] == [f"image {number}".encode() for number in range(9)]
    assert [row.caption for row in rows] == [f"caption {number}" for number in range(9)]
    assert (rows[0].key, rows[8].key) == ("00000.tar/000000000", "deep/00001.tar/000000008")
    assert rows[3].url == "http://a.example/3"
    assert json.loads(rows[3].metadata or "")["width"] == 640


def test_captions_and_uids_from_the_json(tmp_path: Path) -> None:
    rows = rows_of(write(tmp_path / "a.tar", samples(10, 2)), caption_field="caption", uid_field="uid")
    assert [(row.caption, row.uid) for row in rows] == [("json 10", f"{10:032x}"), ("json 11", f"{11:032x}")]
    with pytest.raises(SourceError, match=r"a\.tar, sample 000000000: 'width' is 640, expected 32 hex digits"):
        rows_of(write(tmp_path / "a.tar", samples(0, 1)), uid_field="width")


def test_what_belongs_to_no_sample_is_left_and_what_lacks_something_is_a_row(tmp_path: Path) -> None:
    members = [
        ("README.md", b"not a sample"),
        ("./.hidden.jpg", b"nor this"),
        ("dir/a.png", b"png"),
        ("dir/a.seg.png", b"a mask"),
        ("dir/a.txt", "\ufeffPremière".encode()),
        ("b.txt", b"no image"),
        ("c.JPEG", b"no caption"),
        ("c.webp", b"a second image"),
        ("a.tar.jpg", b"another name"),
    ]
    rows = rows_of(write(tmp_path / "x.tar", members))
    assert [(row.key, row.image, row.caption) for row in rows] == [
        ("x.tar/dir/a", b"png", "Première"),
        ("x.tar/b", None, "no image"),
        ("x.tar/c", b"no caption", None),
    ]


def test_a_key_that_comes_again_is_another_row(tmp_path: Path) -> None:
    members = [("a.jpg", b"1"), ("a.txt", b"one"), ("a.jpg", b"2"), ("a.txt", b"two"), ("b.jpg", b"3"), ("a.jpg", b"4")]
    rows = rows_of(write(tmp_path / "x.tar", members))
    assert [(row.key, row.image, row.caption) for row in rows] == [
        ("x.tar/a", b"1", "one"),
        ("x.tar/a#2", b"2", "two"),
        ("x.tar/b", b"3", None),
        ("x.tar/a#3", b"4", None),
    ]


@pytest.mark.parametrize(
    ("name", "data", "settings", "fault"),
    [
        ("a.txt", b"caf\xe9", {}, r"x.tar, member a.txt: not UTF-8 text (byte 3)"),
        ("a.json", b"{", {}, "x.tar, member a.json: not JSON (Expecting property name"),
        ("a.json", b"[]", {}, "x.tar, member a.json: expected a JSON object, found list"),
        ("a.json", b'{"c": 5}', {"caption_field": "c"}, "x.tar, member a.json: field 'c' is int, expected text"),
        ("a.json", b'{"c": "\\ud800"}', {"caption_field": "c"}, "a.json: field 'c' is not Unicode, expected text"),
    ],
)
def test_a_member_that_cannot_be_read_is_named(
    tmp_path: Path, name: str, data: bytes, settings: dict[str, str], fault: str
) -> None:
    members = [("a.jpg", b"1"), (name, data), ("b.jpg", b"2"), ("b.txt", b"two")]
    wrong, good = rows_of(write(tmp_path / "x.tar", members), **settings)
    assert fault in (wrong.fault or "")
    assert wrong.image is None
    assert (good.image, good.fault) == (b"2", None)


def test_names_that_are_not_utf8_are_spelt_out(tmp_path: Path) -> None:
    members = [("caf\udce9.jpg", b"1"), ("caf\udce9.txt", b"one")]
    (row,) = rows_of(write(tmp_path / "x.tar", members, format=tarfile.GNU_FORMAT))
    assert (row.key, row.image, row.caption) == ("x.tar/caf\\udce9", b"1", "one")


def test_a_torn_tar_says_where_and_what_was_read_before(tmp_path: Path) -> None:
    path = write(tmp_path / "x.tar", samples(0, 20))
    whole = path.read_bytes()
    # A member takes two blocks: its header and its data.
    for size, member, before in [
        (3 * 1024 * 7 + 512 + 3, "000000007.jpg", 7),
        (3 * 1024 * 7 + 1024 + 200, "000000007.jpg", 8),
        (3 * 1024 * 7, "000000006.json", 7),
        (3 * 1024 * 20, "000000019.json", 20),
    ]:
        path.write_bytes(whole[:size])
        message = rf"x\.tar: torn in or after member {member} \(.*\); {before} whole samples stand before that"
        with pytest.raises(SourceError, match=message):
            rows_of(path)
    damaged = bytearray(whole)
    damaged[3 * 1024 * 7 : 3 * 1024 * 7 + 512] = b"\xff" * 512
    path.write_bytes(damaged)
    with pytest.raises(SourceError, match=r"member 000000006\.json \(a damaged header\); 7 whole samples"):
        rows_of(path)


@pytest.mark.parametrize("data", [b"", b"not a tar" * 100])
def test_what_is_no_tar_is_named(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "x.tar").write_bytes(data)
    with pytest.raises(SourceError, match=r"x\.tar: torn in or after member none \(.*\); 0 whole samples"):
        rows_of(tmp_path / "x.tar")


def test_the_headers_are_read_once(tmp_path: Path, data_folder: Path) -> None:
    path = write(tmp_path / "x.tar", samples(0, 4))
    source = WebdatasetSource(name="tars", path=path, shard_size=2)
    before = [shard.digest for shard in source.shards()]
    (index,) = (data_folder / "cache").glob("*.parquet")
    made = index.stat().st_mtime_ns
    assert next(source.rows(1)).caption == "caption 2"
    assert index.stat().st_mtime_ns == made
    write(path, samples(0, 5))
    assert [shard.digest for shard in source.shards()] != before
    assert len(list((data_folder / "cache").glob("*.parquet"))) == 1
