from __future__ import annotations

import csv
import io
import json
import os
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from pydantic import ValidationError

from dqe_assets.ingest.outcomes import of_row
from dqe_assets.ingest.settings import ImageLimits
from dqe_resources.sources.folder import FolderSource
from dqe_resources.sources.local_file import FileError, LocalFile
from dqe_resources.sources.protocol import SourceError
from dqe_resources.sources.sidecars import sort_names
from dqe_resources.sources.texts import original_name, readable_name

if TYPE_CHECKING:
    from pathlib import Path

    from dqe_resources.sources.rows import SourceRow


def jpeg(shade: int = 0) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8), (shade, 40, 200)).save(buffer, "JPEG")
    return buffer.getvalue()


def put(root: Path, **files: str | bytes) -> Path:
    return put_all(root, files)


def put_all(root: Path, files: dict[str, str | bytes]) -> Path:
    """Write files by their names; an image has only to be there."""
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return root


def images(*names: str) -> dict[str, str | bytes]:
    return dict.fromkeys(names, b"image")


def source(root: Path, **settings: Any) -> FolderSource:
    return FolderSource.model_validate({"name": "photos", "path": root, **settings})


def all_rows(root: Path, **settings: Any) -> list[SourceRow]:
    photos = source(root, **settings)
    return [row for shard in photos.shards() for row in photos.rows(shard.index)]


def pairs(root: Path, **settings: Any) -> list[tuple[str, str | None]]:
    return [(row.key, row.caption) for row in all_rows(root, **settings)]


def left_out(root: Path, **settings: Any) -> list[dict[str, int]]:
    """What each shard leaves out."""
    return [dict(shard.left_out.counts) for shard in source(root, **settings).shards()]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    root = put_all(tmp_path / "photos", images("b.jpg", "a.jpg", "deep/c.PNG", "d.webp"))
    return put_all(root, {"a.txt": "Première ligne \nsecond line", "b.txt": ""})


def test_caption_files_give_their_first_line_and_all_lines_are_kept(folder: Path) -> None:
    photos = source(folder, shard_size=3)
    assert [(shard.rows, shard.uncaptioned) for shard in photos.shards()] == [(3, 1), (1, 1)]
    assert pairs(folder) == [("a.jpg", "Première ligne"), ("b.jpg", ""), ("d.webp", None), ("deep/c.PNG", None)]
    assert [row.captions for row in all_rows(folder)][:2] == [["Première ligne", "second line"], None]
    assert photos.key(1) == "photos-00001"


def test_only_the_touched_shard_changes_its_digest(folder: Path) -> None:
    photos = source(folder, shard_size=2)
    before = [shard.digest for shard in photos.shards()]
    (folder / "a.txt").write_text("another caption")
    after = [shard.digest for shard in photos.shards()]
    assert before[0] != after[0]
    assert before[1] == after[1]


@pytest.mark.parametrize(
    "caption_file",
    ["a.txt", "a.TXT", "a.Txt", "a.caption", "a.CAPTION", "a.jpg.txt", "a.JPG.TXT", "a.jpg.caption", "A.txt"],
)
def test_a_caption_file_may_have_any_of_these_names(tmp_path: Path, caption_file: str) -> None:
    put_all(tmp_path, {**images("a.jpg", "b.jpg"), caption_file: "found"})
    assert pairs(tmp_path) == [("a.jpg", "found"), ("b.jpg", None)]


def test_names_that_fit_exactly_come_before_those_that_differ_in_letter_case() -> None:
    found = sort_names(["A.jpg", "A.txt", "a.jpg", "a.png", "a.txt", "b.jpg", "b.jpg.txt", "b.txt", "C.TXT", "x.md"])
    assert found.images == [("A.jpg", "A.txt"), ("a.jpg", "a.txt"), ("a.png", "a.txt"), ("b.jpg", "b.txt")]
    assert found.orphans == ["b.jpg.txt", "C.TXT"]
    assert found.others == ["x.md"]


@pytest.mark.parametrize(
    ("content", "caption"),
    [
        (b"one\xe2\x80\xa8two", "one\u2028two"),
        (b"one\x0btwo\x0cthree\x1cfour", "one\x0btwo\x0cthree\x1cfour"),
        (b"\xef\xbb\xbfwith a mark\r\nsecond\r\n", "with a mark"),
        (b"old\rmac", "old"),
        (b"\n \n\nlater", "later"),
        (b"nul\0inside", "nul\0inside"),
        (b"", ""),
        (b" \n", ""),
    ],
)
def test_a_line_ends_where_editors_end_it(tmp_path: Path, content: bytes, caption: str) -> None:
    put_all(tmp_path, {**images("a.jpg"), "a.txt": content})
    assert pairs(tmp_path) == [("a.jpg", caption)]


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        (b"caf\xe9", "b.txt: not UTF-8 text (byte 3); save it as UTF-8"),
        ("café".encode("utf-16"), "b.txt: UTF-16 text; save it as UTF-8"),
        (b"\xed\xa0\xbd", "b.txt: not UTF-8 text (byte 0)"),
        (b"x" * (1 << 20) + b"x", "1,048,577 bytes, at most 1,048,576 are allowed"),
    ],
)
def test_a_caption_file_that_cannot_be_read_is_the_fault_of_its_row(tmp_path: Path, content: bytes, fault: str) -> None:
    put_all(tmp_path, {**images("a.jpg", "b.jpg", "c.jpg"), "a.txt": "fine", "b.txt": content, "c.txt": "fine too"})
    first, wrong, last = all_rows(tmp_path)
    assert [(row.caption, row.fault) for row in (first, last)] == [("fine", None), ("fine too", None)]
    assert (wrong.key, wrong.caption, wrong.image) == ("b.jpg", None, None)
    assert fault in (wrong.fault or "")


METADATA = [("b.jpg", 'a "quoted", caption', "http://x/b"), ("gone.jpg", "no such file", "")]


def write_metadata(path: Path, rows: list[tuple[Any, ...]], names: tuple[str, ...]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".parquet":
        buffer = io.BytesIO()
        pq.write_table(pa.Table.from_pylist([dict(zip(names, row, strict=True)) for row in rows]), buffer)
        path.write_bytes(buffer.getvalue())
        return
    with path.open("w", newline="") as file:
        if path.suffix == ".jsonl":
            file.writelines(json.dumps(dict(zip(names, row, strict=True))) + "\n" for row in rows)
        else:
            csv.writer(file, delimiter="\t" if path.suffix == ".tsv" else ",").writerows([names, *rows])


@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet"])
def test_metadata_files_are_read_as_imagefolder_does(folder: Path, kind: str) -> None:
    write_metadata(folder / f"metadata.{kind}", METADATA, ("file_name", "legend", "link"))
    rows = all_rows(folder, caption_column="legend", url_column="link")
    assert [(row.key, row.caption, row.url) for row in rows] == [
        ("b.jpg", 'a "quoted", caption', "http://x/b"),
        ("gone.jpg", "no such file", None),
    ]
    assert rows[0].image == LocalFile(folder / "b.jpg", folder)


@pytest.mark.parametrize("kind", ["csv", "tsv", "jsonl", "parquet"])
@pytest.mark.parametrize("shard_size", [1, 2, 100])
def test_metadata_of_subfolders_counts_from_there_and_other_folders_keep_their_rows(
    tmp_path: Path, kind: str, shard_size: int
) -> None:
    put_all(tmp_path, images("train/1.jpg", "train/deep/2.jpg", "train/3.jpg", "test/1.jpg", "plain/a.jpg"))
    put_all(tmp_path, {"plain/a.txt": "next to it"})
    write_metadata(
        tmp_path / f"train/metadata.{kind}", [("1.jpg", "one"), ("deep/2.jpg", "two")], ("file_name", "text")
    )
    write_metadata(tmp_path / f"test/metadata.{kind}", [("./1.jpg", "three")], ("file_name", "text"))
    expected = [
        ("test/1.jpg", "three"),
        ("train/1.jpg", "one"),
        ("train/deep/2.jpg", "two"),
        ("plain/a.jpg", "next to it"),
    ]
    assert pairs(tmp_path, shard_size=shard_size) == expected
    counted = left_out(tmp_path, shard_size=shard_size)
    assert {reason: count for shard in counted for reason, count in shard.items()} == {
        "images that no metadata file names": 1
    }


def test_all_rows_of_metadata_are_read_once_and_then_by_shard(tmp_path: Path, data_folder: Path) -> None:
    names = [f"{number}.jpg" for number in range(10)]
    put_all(tmp_path, images(*names))
    write_metadata(tmp_path / "metadata.csv", [(name, f"c {name}") for name in names], ("file_name", "text"))
    photos = source(tmp_path, shard_size=3)
    before = [shard.digest for shard in photos.shards()]
    made = {path: path.stat().st_mtime_ns for path in (data_folder / "cache").glob("*.parquet")}
    assert [row.caption for row in photos.rows(2)] == ["c 6.jpg", "c 7.jpg", "c 8.jpg"]
    assert {path: path.stat().st_mtime_ns for path in (data_folder / "cache").glob("*.parquet")} == made
    (tmp_path / "4.jpg").write_bytes(b"another image")
    after = [shard.digest for shard in photos.shards()]
    assert [one == other for one, other in zip(before, after, strict=True)] == [True, False, True, True]


@pytest.mark.parametrize(
    ("kind", "content", "found"),
    [
        ("csv", "1.jpg,a dog, running\n2.jpg,a cat\n3.jpg\n", [("1.jpg", "3 fields"), "a cat", ("3.jpg", "1 field")]),
        ("csv", '1.jpg,"a dog\n2.jpg,a cat\n', [(None, "a quote that is not closed"), "a cat"]),
        ("csv", "1.jpg,caf\xe9\n2.jpg,a cat\n", [("1.jpg", "not in UTF-8"), "a cat"]),
        ("csv", ",no name\r\n2.jpg,a cat\r\n", [(None, "column 'file_name' is empty"), "a cat"]),
        ("tsv", '1.jpg\t"a" dog\n2.jpg\ta\tcat\n', ['"a" dog', ("2.jpg", "3 fields")]),
        ("jsonl", '{"file_name": "1.jpg", "text": ["a", "b"]}\n', ["a"]),
        ("jsonl", '{"file_name": "1.jpg", "text": []}\n', [None]),
        ("jsonl", '{"file_name": "1.jpg"}\n{"file_name": "2.jpg", "text": "x"}\n', [None, "x"]),
        ("jsonl", '{"file_name": "1.jpg", "text": ["a", 5]}\n', [("1.jpg", "a list of something else than texts")]),
        ("jsonl", '{"file_name": "1.jpg", "text": NaN}\n', [("1.jpg", "column 'text' is float")]),
        ("jsonl", '{"file_name": "1.jpg", "text": 12}\n', [("1.jpg", "column 'text' is int")]),
        ("jsonl", '{"file_name": "1.jpg", "text": {"en": "x"}}\n', [("1.jpg", "column 'text' is dict")]),
        ("jsonl", '{"file_name": "1.jpg", "text": "half \\ud83d pair"}\n', [("1.jpg", "not in UTF-8")]),
        ("jsonl", '{"file_name": "1.jpg", "text": "x", "text": "y"}\n', [(None, 'key "text" comes 2 times')]),
        ("jsonl", '{"text": "x"}\n{"file_name": "2.jpg"}\n', [(None, "column 'file_name' is empty"), None]),
        ("jsonl", '{"file_name": 5.5, "text": "x"}\n', [(None, "column 'file_name' is float")]),
        ("jsonl", '{"file_name": "\\ud800.jpg", "text": "x"}\n', [(None, "column 'file_name' is not in UTF-8")]),
        ("jsonl", '["no object"]\n{"file_name": "2.jpg", "text": "x"}\n', [(None, "expected an object"), "x"]),
        ("jsonl", '{"file_name": "a\\u0000.jpg", "text": "nul"}\n', ["nul"]),
    ],
)
def test_what_is_wrong_in_a_row_of_metadata_stays_with_it(
    tmp_path: Path, kind: str, content: str, found: list[str | tuple[str | None, str] | None]
) -> None:
    header = {"csv": "\ufefffile_name,text\r\n", "tsv": "file_name\ttext\n"}.get(kind, "")
    data = header.encode() + content.encode("latin-1" if "\xe9" in content else "utf-8")
    put_all(tmp_path, {**images("1.jpg", "2.jpg", "3.jpg"), f"metadata.{kind}": data})
    rows = all_rows(tmp_path)
    assert len(rows) == len(found)
    for row, expected in zip(rows, found, strict=True):
        if isinstance(expected, tuple):
            name, fault = expected
            assert fault in (row.fault or "")
            assert f"metadata.{kind}, line" in (row.fault or "")
            assert (row.key == name) if name else row.key.startswith("row:")
            assert row.image is None
            assert row.metadata is not None or "is empty" in fault
        else:
            assert (row.caption, row.fault) == (expected, None)
    assert len({row.key for row in rows}) == len(rows)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        (
            "metadata.csv",
            "file_name,caption\na.jpg,x\n",
            r"metadata\.csv: no column 'text'; there are: file_name, capt",
        ),
        ("metadata.csv", "file_name,text,text\na.jpg,x,y\n", r"metadata\.csv: 2 columns 'text'; there are: file_name"),
        ("metadata.jsonl", '{"text": "x"}\n', r"metadata\.jsonl: no column 'file_name'; there are: text"),
        ("metadata.csv", "", r"metadata\.csv: empty; expected a first line"),
        ("deep/metadata.csv", "file_name,text\na,x\n".encode("utf-16"), r"deep/metadata\.csv: is UTF-16"),
        ("metadata.parquet", b"PAR1", r"metadata\.parquet: not a Parquet file"),
    ],
)
def test_what_is_wrong_with_a_whole_metadata_file_is_an_error(
    folder: Path, name: str, content: str | bytes, message: str
) -> None:
    put_all(folder, {name: content})
    with pytest.raises(SourceError, match=message):
        list(source(folder).shards())


def test_an_image_that_metadata_names_again_is_another_row(tmp_path: Path) -> None:
    put_all(tmp_path, images("sub/1.jpg"))
    write_metadata(tmp_path / "metadata.csv", [("sub/1.jpg", "one"), ("sub/1.jpg", "two")], ("file_name", "text"))
    write_metadata(tmp_path / "sub" / "metadata.csv", [("1.jpg", "three")], ("file_name", "text"))
    rows = all_rows(tmp_path)
    assert [row.caption for row in rows] == ["one", "two", "three"]
    assert [row.key.partition(":")[0] for row in rows] == ["sub/1.jpg"] * 3
    assert [row.key[-2:] for row in rows[1:]] == ["#2", "#3"]
    assert [row.image for row in rows] == [LocalFile(tmp_path / "sub/1.jpg", tmp_path)] * 3


def test_lists_of_captions_and_nulls_in_parquet_metadata(tmp_path: Path) -> None:
    table = pa.table({"file_name": ["1.jpg", "2.jpg", None], "text": [["a", "b"], None, ["c"]]})
    pq.write_table(table, tmp_path / "metadata.parquet")
    first, second, third = all_rows(tmp_path)
    assert (first.caption, first.captions, second.caption) == ("a", ["a", "b"], None)
    assert "metadata.parquet, row 3: column 'file_name' is empty" in (third.fault or "")


def test_what_is_no_row_is_counted_with_the_shard_that_it_stands_in(tmp_path: Path) -> None:
    put_all(tmp_path, images("a.jpg", "b.jpg", "deep/c.jpg"))
    put_all(tmp_path, {"notes.md": "x", "b.json": "x", "alone.txt": "x", "LICENSE": "x", ".hidden.jpg": "x"})
    put_all(tmp_path, {"deep/c.json": "x", "deep/._c.jpg": "x", "deep/__MACOSX/._c.jpg": "x", "deep/Thumbs.db": "x"})
    put_all(tmp_path, {"deep/.DS_Store": "x", ".git/config.jpg": "x"})
    (tmp_path / "linked").symlink_to(tmp_path / "deep")
    assert [row.key for row in all_rows(tmp_path)] == ["a.jpg", "b.jpg", "deep/c.jpg"]
    here = {
        ".md files": 1,
        ".json files": 1,
        "captions without an image, or of one that has another": 1,
        "files without a suffix": 1,
        "hidden files and folders": 2,
        "links to folders": 1,
    }
    below = {".json files": 1, "files of the operating system": 4}
    assert left_out(tmp_path, shard_size=2) == [here, below]
    (whole,) = source(tmp_path).shards()
    assert whole.left_out.counts == {**here, **below, ".json files": 2}
    assert whole.left_out.examples["links to folders"] == "linked/"
    assert "files of the operating system" not in whole.left_out.of_concern
    assert str(whole.left_out).startswith("files of the operating system: 4 (deep/")
    assert source(tmp_path, shard_size=2).shard("photos-00001").left_out.counts == below


def test_of_a_name_of_any_length_no_more_than_its_ends_are_said(tmp_path: Path) -> None:
    folder = tmp_path
    for _ in range(8):
        folder = folder / ("d" * 200)
        folder.mkdir()
    (folder / "notes.doc").touch()
    (tmp_path / "a.jpg").write_bytes(b"x")
    (shard,) = FolderSource(name="s", path=tmp_path).shards()
    assert str(shard.left_out).endswith("/notes.doc)")
    assert len(str(shard.left_out)) < 500


def test_a_second_metadata_file_is_left_out(folder: Path) -> None:
    for kind in ("csv", "jsonl"):
        write_metadata(folder / f"metadata.{kind}", [("a.jpg", kind)], ("file_name", "text"))
    assert pairs(folder) == [("a.jpg", "csv")]
    assert left_out(folder) == [
        {"images that no metadata file names": 3, "further metadata files of a folder": 1, ".txt files": 2}
    ]


NOT_UTF8 = ["caf\udce9.jpg", "\udcff\udcfe/x.jpg", "\\udce9.jpg", "\\udc5c.jpg", "a\\b.jpg", "line\nend.jpg"]


def test_file_names_that_are_not_utf8_are_kept_readable_and_no_two_alike(tmp_path: Path) -> None:
    put_all(tmp_path, images(*NOT_UTF8))
    put_all(tmp_path, {"caf\udce9.txt": "a café"})
    rows = all_rows(tmp_path)
    assert {original_name(row.key) for row in rows} == set(NOT_UTF8)
    assert len({row.key for row in rows}) == len(NOT_UTF8)
    found = {row.key: row for row in rows}
    assert found["caf\\udce9.jpg"].caption == "a café"
    for row in rows:
        assert row.key.encode()
        assert isinstance(row.image, LocalFile)
        assert row.image.read(100) == b"image"


def test_metadata_in_a_folder_whose_name_is_not_utf8(tmp_path: Path) -> None:
    put_all(tmp_path, images("caf\udce9/1.jpg"))
    for kind, caption in (("csv", "one"), ("parquet", "two")):
        write_metadata(tmp_path / "caf\udce9" / f"metadata.{kind}", [("1.jpg", caption)], ("file_name", "text"))
        (row,) = all_rows(tmp_path)
        assert (row.key, row.caption) == ("caf\\udce9/1.jpg", caption)
        assert isinstance(row.image, LocalFile)
        assert row.image.read(100) == b"image"
        (tmp_path / "caf\udce9" / f"metadata.{kind}").unlink()


@given(st.binary(min_size=1, max_size=12).filter(lambda name: not {b"/"[0], 0} & set(name)))
def test_every_name_can_be_had_back(name: bytes) -> None:
    decoded = os.fsdecode(name)
    assert os.fsencode(original_name(readable_name(decoded))) == name
    assert readable_name(decoded).encode()


def test_a_folder_without_images_says_what_was_looked_for_and_what_is_there(tmp_path: Path) -> None:
    put_all(tmp_path, {"a.txt": "x", "b.mp4": "x"})
    with pytest.raises(SourceError) as caught:
        list(source(tmp_path).shards())
    assert f"{tmp_path}: no image in this folder or below it (a name that ends in .jpg" in str(caught.value)
    assert "no row in a metadata.csv, metadata.jsonl, metadata.parquet, metadata.tsv" in str(caught.value)
    assert ".mp4 files: 1 (b.mp4)" in str(caught.value)
    put_all(tmp_path, {"metadata.csv": "file_name,text\n"})
    with pytest.raises(SourceError, match="no image in this folder"):
        list(source(tmp_path).shards())


def test_it_says_where_it_looks_for_captions(folder: Path) -> None:
    assert source(folder).caption_places == (
        "a.txt, a.jpg.txt, a.caption and a.jpg.caption next to a.jpg, and metadata.csv, metadata.jsonl, "
        "metadata.parquet, metadata.tsv in its folder and those above"
    )


def test_a_folder_kind_refuses_a_file(tmp_path: Path) -> None:
    (tmp_path / "x").write_text("")
    with pytest.raises(ValidationError, match="is a file; the kind folder needs a folder"):
        FolderSource(name="x", path=tmp_path / "x")


def test_a_shard_that_went_is_an_error_with_the_fix(folder: Path) -> None:
    with pytest.raises(SourceError, match=r"has no shard photos-00009.*run: dqe sync"):
        source(folder).shard("photos-00009")


SECRET = b"root:x:0:0"


@pytest.fixture
def hostile(tmp_path: Path) -> Path:
    """A folder with links and special files, next to files that are none of its business."""
    outside = put_all(tmp_path / "outside", {"secret.txt": SECRET, "photo.jpg": jpeg(), "more/in.jpg": jpeg(1)})
    root = put_all(tmp_path / "photos", {"a.jpg": jpeg(2)})
    (root / "b.jpg").symlink_to(outside / "photo.jpg")
    (root / "c.jpg").symlink_to("a.jpg")
    (root / "d.jpg").symlink_to("gone.jpg")
    os.mkfifo(root / "e.jpg")
    (root / "f.jpg").symlink_to("/dev/zero")
    (root / "a.txt").symlink_to(outside / "secret.txt")
    (root / "g").symlink_to(outside / "more")
    return root


def reasons(rows: list[SourceRow]) -> dict[str, str]:
    outcomes = {row.key: of_row(row, ImageLimits(max_bytes=10_000)) for row in rows}
    assert not any(SECRET.decode() in str(outcome.get("detail")) for outcome in outcomes.values())
    return {key: outcome["reason"] for key, outcome in outcomes.items()}


def test_links_out_of_the_folder_and_special_files_are_rows_that_are_not_read(hostile: Path) -> None:
    assert reasons(all_rows(hostile)) == {
        "a.jpg": "bad_row",
        "b.jpg": "refused_path",
        "c.jpg": "ok",
        "d.jpg": "missing",
        "e.jpg": "refused_path",
        "f.jpg": "refused_path",
    }
    assert left_out(hostile) == [{"links to folders": 1}]


def test_links_out_of_the_folder_are_followed_if_that_is_allowed(hostile: Path) -> None:
    rows = all_rows(hostile, allow_outside=True)
    assert reasons(rows) == {
        "a.jpg": "ok",
        "b.jpg": "ok",
        "c.jpg": "ok",
        "d.jpg": "missing",
        "e.jpg": "refused_path",
        "f.jpg": "refused_path",
        "g/in.jpg": "ok",
    }
    assert rows[0].caption == SECRET.decode()


def test_folders_that_link_to_each_other_are_walked_once(tmp_path: Path) -> None:
    outside = put_all(tmp_path / "outside", images("x.jpg"))
    root = put_all(tmp_path / "photos", images("a.jpg"))
    (root / "one").symlink_to(outside)
    (root / "two").symlink_to(outside)
    (outside / "back").symlink_to(root)
    (outside / "self").symlink_to(outside)
    rows = all_rows(root, allow_outside=True)
    assert [row.key for row in rows] == ["a.jpg", "one/x.jpg"]
    assert left_out(root, allow_outside=True) == [{"links to folders": 3}]


def test_what_is_in_a_file_that_is_no_image_is_not_said(hostile: Path) -> None:
    (hostile / "z.jpg").symlink_to(hostile.parent / "outside" / "secret.txt")
    (row,) = (row for row in all_rows(hostile, allow_outside=True) if row.key == "z.jpg")
    outcome = of_row(row, ImageLimits())
    assert (outcome["reason"], outcome["detail"]) == ("not_an_image", f"{hostile}/z.jpg: 10 bytes of something else")


@pytest.mark.parametrize(
    "name", ["../outside/photo.jpg", "../../etc/passwd", "/etc/passwd", "/dev/zero", "b.jpg", "e.jpg"]
)
def test_paths_in_metadata_that_lead_out_of_the_folder_are_not_read(hostile: Path, name: str) -> None:
    write_metadata(hostile / "metadata.jsonl", [(name, "x"), ("a.jpg", "y")], ("file_name", "text"))
    first, second = reasons(all_rows(hostile)).values()
    assert (first, second) == ("refused_path", "ok")


def test_a_metadata_file_that_leads_out_of_the_folder_is_not_read(hostile: Path) -> None:
    (hostile / "metadata.csv").symlink_to(hostile.parent / "outside" / "secret.txt")
    with pytest.raises(SourceError, match=r"metadata\.csv leads out of the source's folder .*; .*allow_outside: true"):
        list(source(hostile).shards())


def test_a_link_that_is_put_in_the_way_after_the_look_up_is_not_followed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_all(tmp_path, {"outside/secret.txt": SECRET, "photos/deep/a.jpg": b"image"})
    root = tmp_path / "photos"
    looked_up = os.path.realpath(root / "deep" / "a.jpg")
    monkeypatch.setattr(os.path, "realpath", str)
    (root / "deep" / "a.jpg").unlink()
    (root / "deep" / "a.jpg").symlink_to(tmp_path / "outside" / "secret.txt")
    with pytest.raises(FileError, match="no regular file"):
        LocalFile(root / "deep" / "a.jpg", root).read(100)
    (root / "deep").rename(root / "was_deep")
    (root / "deep").symlink_to(tmp_path / "outside")
    with pytest.raises(FileError, match="missing"):
        LocalFile(root / "deep" / "secret.txt", root).read(100)
    assert looked_up == str(root / "deep" / "a.jpg")


def test_no_more_than_the_limit_is_read(tmp_path: Path) -> None:
    put_all(tmp_path, {"a.jpg": bytes(100)})
    assert len(LocalFile(tmp_path / "a.jpg", tmp_path).read(100)) == 100
    with pytest.raises(FileError, match="too_large: 100 bytes, at most 99 are allowed"):
        LocalFile(tmp_path / "a.jpg", tmp_path).read(99)


def test_a_source_as_it_is_now_gives_the_shards_of_that_moment(tmp_path: Path) -> None:
    photos = source(put_all(tmp_path, images("a.jpg", "b.jpg", "c.jpg")), shard_size=2)
    now = photos.as_it_is_now()
    keys = ["photos-00000", "photos-00001"]
    assert list(now.listed()) == keys
    before = [photos.shard(key) for key in keys]
    assert [now.shard(key) for key in keys] == before
    put_all(tmp_path, images("a.jpg", "d.jpg", "e.jpg") | {"a.jpg": b"another image"})
    assert [now.shard(key) for key in keys] == before
    assert list(photos.listed()) == [*keys, "photos-00002"]
    assert [photos.shard(key).digest for key in keys] != [shard.digest for shard in before]
    with pytest.raises(SourceError, match="dqe sync"):
        now.shard("photos-00007")
