from __future__ import annotations

import contextlib
import gzip
import io
import json
import lzma
import tarfile
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dqe_resources.sources import tars
from dqe_resources.sources.protocol import SourceError
from dqe_resources.sources.webdataset import WebdatasetSource

if TYPE_CHECKING:
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
    (row,) = rows_of(write(tmp_path / "a.tar", samples(0, 1)), uid_field="width")
    assert "a.tar, sample 000000000: 'width' is 640, expected 32 hex digits" in (row.fault or "")


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


def left_out(path: Path, **settings: Any) -> dict[str, int]:
    """What the only shard leaves out."""
    source = WebdatasetSource.model_validate({"name": "tars", "path": path, **settings})
    (shard,) = source.shards()
    return dict(shard.left_out.counts)


DOTTED = [
    ("22.05.png", b"1"),
    ("22.05.txt", b"one"),
    ("22.06.png", b"2"),
    ("22.06.txt", b"two"),
    ("plain.jpg", b"3"),
    ("v1.2/x.jpg", b"4"),
]


def test_names_with_dots_are_counted_or_read_by_their_last_dot(tmp_path: Path) -> None:
    path = write(tmp_path / "x.tar", DOTTED)
    assert [row.key for row in rows_of(path)] == ["x.tar/plain", "x.tar/v1.2/x"]
    assert left_out(path) == {"members with a dot before the end of their name (key_dot: last reads them)": 4}
    assert [(row.key, row.image, row.caption) for row in rows_of(path, key_dot="last")] == [
        ("x.tar/22.05", b"1", "one"),
        ("x.tar/22.06", b"2", "two"),
        ("x.tar/plain", b"3", None),
        ("x.tar/v1.2/x", b"4", None),
    ]
    assert left_out(path, key_dot="last") == {}


def test_tars_without_a_row_say_what_is_in_them(tmp_path: Path) -> None:
    write(tmp_path / "x.tar", DOTTED[:4])
    with pytest.raises(
        SourceError, match=r"x\.tar: no image, \.txt or \.json in 1 tar; left out: .*key_dot: last.*: 4"
    ):
        rows_of(tmp_path / "x.tar")
    assert len(rows_of(tmp_path / "x.tar", key_dot="last")) == 2


def test_what_is_in_no_sample_is_counted_with_the_shard_where_its_tar_begins(tmp_path: Path) -> None:
    write(tmp_path / "in" / "a.tar", [*samples(0, 2), ("README", b""), ("0.cls", b"1"), ("._0.jpg", b"")])
    write(tmp_path / "in" / "b.tar", [("1.jpg", b"i"), ("1.webp", b"j"), ("1.mp4", b"k"), (".gitignore", b"")])
    write(tmp_path / "in" / "c.tar", [("only.npy", b"")])
    (tmp_path / "in" / "stats.json").write_text("{}")
    (tmp_path / "in" / "link.tar").symlink_to(write(tmp_path / "elsewhere.tar", samples(9, 1)))
    source = WebdatasetSource(name="tars", path=tmp_path / "in", shard_size=2)
    assert [(shard.rows, dict(shard.left_out.counts)) for shard in source.shards()] == [
        (
            2,
            {
                ".json files": 1,
                "links that lead out of the folder (allow_outside: true reads them)": 1,
                "files without a suffix": 1,
                ".cls files": 1,
                "files of the operating system": 1,
            },
        ),
        (
            1,
            {
                "further members of a sample: webp beside another image": 1,
                ".mp4 files": 1,
                "hidden files and folders": 1,
                ".npy files": 1,
            },
        ),
    ]
    assert len(rows_of(tmp_path / "in", allow_outside=True)) == 4


def test_members_of_a_key_that_stand_apart_are_one_sample(tmp_path: Path) -> None:
    members = [("a.jpg", b"1"), ("b.jpg", b"2"), ("c.jpg", b"3"), ("b.txt", b"two"), ("a.txt", b"one"), ("a.txt", b"x")]
    rows = rows_of(write(tmp_path / "x.tar", members))
    assert [(row.key, row.image, row.caption) for row in rows] == [
        ("x.tar/a", b"1", "one"),
        ("x.tar/b", b"2", "two"),
        ("x.tar/c", b"3", None),
        ("x.tar/a#2", None, "x"),
    ]


def linked(name: str, target: str, kind: bytes) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


def test_links_have_the_content_of_what_they_link_to_and_never_of_other_files(tmp_path: Path) -> None:
    (tmp_path / "secret.txt").write_text("secret")
    with tarfile.open(tmp_path / "x.tar", "w") as tar:
        tar.addfile(linked("d/early.jpg", "../store/1.jpg", tarfile.SYMTYPE))
        for name, data in (("store/1.jpg", b"image"), ("d/hard.txt", b"caption")):
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
        tar.addfile(linked("d/hard.jpg", "store/1.jpg", tarfile.LNKTYPE))
        tar.addfile(linked("d/chain.jpg", "./hard.jpg", tarfile.SYMTYPE))
        tar.addfile(linked("out.jpg", "../../../../etc/passwd", tarfile.SYMTYPE))
        tar.addfile(linked("abs.txt", str(tmp_path / "secret.txt"), tarfile.SYMTYPE))
        tar.addfile(linked("loop.jpg", "loop.jpg", tarfile.SYMTYPE))
        tar.addfile(linked("folder", "", tarfile.DIRTYPE))
        tar.addfile(linked("pipe.jpg", "", tarfile.FIFOTYPE))
        tar.addfile(linked("zero.jpg", "", tarfile.CHRTYPE))
    rows = {row.key.removeprefix("x.tar/"): row for row in rows_of(tmp_path / "x.tar")}
    assert [rows[name].image for name in ("d/early", "store/1", "d/hard", "d/chain")] == [b"image"] * 4
    assert rows["d/hard"].caption == "caption"
    for name in ("out", "abs", "loop"):
        assert "which is no file of this tar" in (rows[name].fault or "")
        assert (rows[name].image, rows[name].caption) == (None, None)
    assert len(rows) == 7
    assert left_out(tmp_path / "x.tar") == {"members that are neither files nor links": 2}


def test_tars_one_after_the_other_are_all_read(tmp_path: Path) -> None:
    parts = [write(tmp_path / f"{number}.tar", samples(0, 2)).read_bytes() for number in range(3)]
    (tmp_path / "whole").mkdir()
    path = tmp_path / "whole" / "x.tar"
    path.write_bytes(b"".join(parts))
    assert [row.key for row in rows_of(path)] == [
        f"x.tar/00000000{number}{again}" for again in ("", "#2", "#3") for number in range(2)
    ]
    assert all(row.caption == f"caption {row.key[14]}" for row in rows_of(path))
    path.write_bytes(parts[0] + b"no tar" * 200)
    assert len(rows_of(path)) == 2
    assert left_out(path) == {"bytes after a tar's end that are no tar": 1}
    path.write_bytes(parts[0] + parts[1][:2000])
    with pytest.raises(SourceError, match=r"x\.tar: torn in or after member .*; 3 whole samples stand before that"):
        rows_of(path)


def compressed(data: bytes, kind: str) -> bytes:
    if kind == "xz":
        return lzma.compress(data)
    target = pa.BufferOutputStream()
    with pa.CompressedOutputStream(target, kind) as stream:
        stream.write(data)
    return target.getvalue().to_pybytes()


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        *(("x.tar.gz", "gzip"), ("x.tgz", "gzip"), ("x.tar.zst", "zstd"), ("x.tar.bz2", "bz2"), ("x.tar", "gzip")),
        *(("x.tar.xz", "xz"), ("x.tar.lz4", "lz4")),
    ],
)
def test_compressed_tars_are_read(tmp_path: Path, data_folder: Path, name: str, kind: str) -> None:
    data = compressed(write(tmp_path / "plain.tar", samples(0, 5)).read_bytes(), kind)
    (tmp_path / "in").mkdir()
    path = tmp_path / "in" / name
    path.write_bytes(data)
    rows = rows_of(tmp_path / "in", shard_size=2)
    assert [row.image for row in rows] == [f"image {number}".encode() for number in range(5)]
    assert rows[4].key == f"{name}/000000004"
    assert all(found.suffix in {".parquet", ".lock"} for found in (data_folder / "cache").iterdir())
    path.write_bytes(data + data)
    assert len(rows_of(tmp_path / "in")) == 10
    path.write_bytes(data[: len(data) // 2])
    with pytest.raises(SourceError, match=rf"{name}, after .* bytes: damaged or cut off"):
        rows_of(tmp_path / "in")


@pytest.mark.parametrize("kind", ["gzip", "xz"])
def test_zeros_after_the_end_of_a_compressed_tar_are_nothing_and_junk_is_damage(tmp_path: Path, kind: str) -> None:
    data = compressed(write(tmp_path / "plain.tar", samples(0, 2)).read_bytes(), kind)
    path = tmp_path / "x.tar.z"
    path.write_bytes(data + bytes(512) + data + bytes(100))
    assert len(rows_of(path)) == 4
    path.write_bytes(data + b"junk" * 9)
    with pytest.raises(SourceError, match="damaged or cut off"):
        rows_of(path)


def test_xz_takes_no_more_memory_than_it_may(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = write(tmp_path / "plain.tar", samples(0, 2)).read_bytes()
    (tmp_path / "x.tar.xz").write_bytes(lzma.compress(data, preset=9))
    assert len(rows_of(tmp_path / "x.tar.xz")) == 2
    monkeypatch.setattr(tars, "_XZ_MEMORY", 1 << 24)
    (tmp_path / "y.tar.xz").write_bytes(lzma.compress(data, preset=9))
    with pytest.raises(SourceError, match="Memory usage limit exceeded"):
        rows_of(tmp_path / "y.tar.xz")


PAX = {
    "a size that is no number": {"size": "many"},
    "a size that no number of 64 bits holds": {"size": str(1 << 70)},
    "a size below zero": {"size": "-5"},
    "a map of holes that is none": {"GNU.sparse.map": "0,5,x", "GNU.sparse.size": "9"},
    "a size of holes that is none": {"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.realsize": "x"},
}


@pytest.mark.parametrize("headers", PAX.values(), ids=PAX)
def test_a_header_that_says_nonsense_is_damage_of_its_tar(tmp_path: Path, headers: dict[str, str]) -> None:
    path = tmp_path / "x.tar"
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as tar:
        for name, given in (("a.jpg", {}), ("b.jpg", headers), ("c.jpg", {})):
            info = tarfile.TarInfo(name)
            info.size, info.pax_headers = 5, given
            tar.addfile(info, io.BytesIO(b"image"))
    with pytest.raises(SourceError, match=r"x\.tar: torn in or after member [ab]\.jpg"):
        rows_of(path)


@pytest.mark.parametrize("kind", [tarfile.GNUTYPE_LONGNAME, tarfile.XHDTYPE])
def test_a_header_as_long_as_a_disk_is_not_taken_into_memory(tmp_path: Path, kind: bytes) -> None:
    info = tarfile.TarInfo("././@LongLink")
    info.type, info.size = kind, 1 << 33
    path = tmp_path / "x.tar"
    with path.open("wb") as file:
        file.write(info.tobuf(tarfile.GNU_FORMAT))
        file.truncate(1 << 34)
    with pytest.raises(SourceError, match=r"x\.tar: torn .*a header of 8,589,934,592 bytes"):
        rows_of(path)


@given(st.lists(st.tuples(st.integers(0, 511), st.integers(0, 255)), min_size=1, max_size=4), st.booleans())
def test_whatever_a_header_says_it_is_a_row_or_damage(changes: list[tuple[int, int]], is_summed: bool) -> None:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for name in ("a.jpg", "b.jpg"):
            info = tarfile.TarInfo(name)
            info.size, info.pax_headers = 5, {"comment": "some"}
            tar.addfile(info, io.BytesIO(b"image"))
    data = bytearray(file.getvalue())
    header = bytearray(data[2048:2560])
    for place, byte in changes:
        header[place] = byte
    if is_summed:
        header[148:156] = b" " * 8
        header[148:156] = b"%06o\0 " % sum(header)
    data[2048:2560] = header
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "x.tar")
        path.write_bytes(data)
        with contextlib.suppress(SourceError):
            rows_of(path)


def test_a_tar_that_unpacks_to_far_more_than_it_is_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tars, "_MOST_UNPACKED", 1 << 20)
    write(tmp_path / "plain.tar", [("a.jpg", bytes(40 << 20))])
    (tmp_path / "x.tar.gz").write_bytes(gzip.compress((tmp_path / "plain.tar").read_bytes()))
    with pytest.raises(SourceError, match=r"x\.tar\.gz: unpacks to more than .* bytes"):
        rows_of(tmp_path / "x.tar.gz")


def test_a_member_of_a_negative_size_ends_the_tar(tmp_path: Path) -> None:
    path = write(tmp_path / "x.tar", samples(0, 2))
    data = bytearray(path.read_bytes())
    header = bytearray(data[3 * 1024 : 3 * 1024 + 512])
    header[124:136] = b"\xff" * 10 + b"\xfc\x00"
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    data[3 * 1024 : 3 * 1024 + 512] = header
    path.write_bytes(data)
    with pytest.raises(SourceError, match=r"a member of -1024 bytes"):
        rows_of(path)


def test_sparse_members_and_long_texts_are_faults(tmp_path: Path) -> None:
    members = [("a.jpg", b"1"), ("a.txt", b"x" * ((1 << 20) + 1)), ("b.jpg", b"2")]
    path = write(tmp_path / "x.tar", members)
    first, second = rows_of(path)
    assert "member a.txt: 1,048,577 bytes, at most 1,048,576 are read" in (first.fault or "")
    assert second.image == b"2"
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as tar:
        info = tarfile.TarInfo("s.jpg")
        info.pax_headers = {
            "GNU.sparse.major": "0",
            "GNU.sparse.minor": "1",
            "GNU.sparse.map": "0,4",
            "GNU.sparse.size": "9",
        }
        info.size = 4
        tar.addfile(info, io.BytesIO(b"data"))
    (row,) = rows_of(path)
    assert "member s.jpg: a sparse file, which is not read" in (row.fault or "")


def test_several_captions_in_the_json(tmp_path: Path) -> None:
    texts = [["one", "two"], ["only"], [], "plain", None]
    members = [
        member
        for number, text in enumerate(texts)
        for member in ((f"{number}.jpg", b"i"), (f"{number}.json", json.dumps({"c": text}).encode()))
    ]
    rows = rows_of(write(tmp_path / "x.tar", members), caption_field="c")
    assert [(row.caption, row.captions) for row in rows] == [
        ("one", ["one", "two"]),
        ("only", None),
        (None, None),
        ("plain", None),
        (None, None),
    ]


def test_it_says_where_it_looks_for_captions(tmp_path: Path) -> None:
    path = write(tmp_path / "x.tar", samples(0, 1))
    assert WebdatasetSource(name="t", path=path).caption_places == "the .txt of each sample"
    field = WebdatasetSource(name="t", path=path, caption_field="alt")
    assert field.caption_places == "the field alt of each .json"
