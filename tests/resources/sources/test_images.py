from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from pydantic import ValidationError

from dqe_resources.sources.folder import FolderSource
from dqe_resources.sources.parquet import ParquetSource
from dqe_resources.sources.protocol import Source, SourceError
from dqe_resources.sources.sample import SampleSource


def jpeg(shade: int) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8), (shade, 40, 200)).save(buffer, "JPEG")
    return buffer.getvalue()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    root = tmp_path / "photos"
    for number, name in enumerate(["b.jpg", "a.jpg", "deep/c.PNG", "d.webp", "notes.md"]):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(jpeg(number))
    (root / "a.txt").write_text("Première ligne \nsecond line", encoding="utf-8")
    (root / "b.txt").write_text("", encoding="utf-8")
    return root


def all_rows(source: Source) -> list[tuple[str, str | None]]:
    return [(row.key, row.caption) for shard in source.shards() for row in source.rows(shard.index)]


def test_sidecars_give_their_first_line(folder: Path) -> None:
    source = FolderSource(name="photos", path=folder, shard_size=3)
    assert [shard.rows for shard in source.shards()] == [3, 1]
    assert all_rows(source) == [("a.jpg", "Première ligne"), ("b.jpg", ""), ("d.webp", None), ("deep/c.PNG", None)]
    assert source.key(1) == "photos-00001"


def test_images_that_are_not_decoded_have_their_rows_too(tmp_path: Path) -> None:
    names = ["a.jfif", "b.HEIC", "c.svg", "d.jp2", "e.jxl", "f.ico", "g.cr2"]
    for name in names:
        (tmp_path / name).write_bytes(b"x")
        (tmp_path / name).with_suffix(".txt").write_text(f"caption of {name}")
    assert all_rows(FolderSource(name="photos", path=tmp_path)) == [(name, f"caption of {name}") for name in names]


def test_only_the_touched_shard_changes_its_digest(folder: Path) -> None:
    source = FolderSource(name="photos", path=folder, shard_size=2)
    before = [shard.digest for shard in source.shards()]
    (folder / "a.txt").write_text("another caption")
    after = [shard.digest for shard in source.shards()]
    assert before[0] != after[0]
    assert before[1] == after[1]


@pytest.mark.parametrize("kind", ["csv", "jsonl"])
def test_metadata_files_are_read_as_imagefolder_does(folder: Path, kind: str) -> None:
    records = [
        {"file_name": "b.jpg", "legend": 'a "quoted", caption', "link": "http://x/b"},
        {"file_name": "gone.jpg", "legend": "no such file", "link": ""},
    ]
    with (folder / f"metadata.{kind}").open("w", newline="") as file:
        if kind == "csv":
            writer = csv.DictWriter(file, ["file_name", "legend", "link"])
            writer.writeheader()
            writer.writerows(records)
        else:
            file.writelines(json.dumps(record) + "\n" for record in records)
    source = FolderSource(name="photos", path=folder, caption_column="legend", url_column="link")
    rows = list(source.rows(0))
    assert [(row.key, row.caption) for row in rows] == [
        ("b.jpg", 'a "quoted", caption'),
        ("gone.jpg", "no such file"),
    ]
    assert rows[0].url == "http://x/b"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("file_name,caption\na.jpg,x\n", r"metadata\.csv, row 2: no column 'text'; there are: file_name, caption"),
        ("file_name,text\n../../etc/passwd,x\n", "row 2: file_name '../../etc/passwd' leads out of the folder"),
        ("file_name,text\na.jpg,x\na.jpg,y\n", "row 3: file_name 'a.jpg' is also in row 2"),
        ('file_name,text\na.jpg,"x\n', "not CSV"),
    ],
)
def test_a_wrong_metadata_file_is_named_with_its_row(folder: Path, content: str, message: str) -> None:
    (folder / "metadata.csv").write_text(content)
    with pytest.raises(SourceError, match=message):
        list(FolderSource(name="photos", path=folder).shards())


def test_wrong_json_lines_are_named_with_their_row(folder: Path) -> None:
    (folder / "metadata.jsonl").write_text('{"file_name": "a.jpg", "text": "x"}\n\n["no object"]\n')
    with pytest.raises(SourceError, match=r"metadata\.jsonl, row 3: expected an object, found list"):
        list(FolderSource(name="photos", path=folder).shards())


def test_a_sidecar_that_is_not_utf8_is_named(folder: Path) -> None:
    (folder / "a.txt").write_bytes(b"caf\xe9")
    with pytest.raises(SourceError, match=r"a\.txt: not UTF-8 text \(byte 3\)"):
        list(FolderSource(name="photos", path=folder).rows(0))


def write_parquet(path: Path, rows: int = 10, **columns: pa.Array) -> Path:
    table = pa.table(
        {"picture": [jpeg(i) for i in range(rows)], "title": [f"caption {i}" for i in range(rows)], **columns}
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path, row_group_size=3)
    return path


def parquet_source(path: Path, **settings: object) -> ParquetSource:
    return ParquetSource.model_validate(
        {"name": "pairs", "path": path, "image_column": "picture", "caption_column": "title", **settings}
    )


def test_parquet_shards_run_over_files_and_row_groups(tmp_path: Path) -> None:
    write_parquet(tmp_path / "in" / "0.parquet", 10)
    write_parquet(tmp_path / "in" / "1.parquet", 5)
    source = parquet_source(tmp_path / "in", shard_size=4)
    assert [shard.rows for shard in source.shards()] == [4, 4, 4, 3]
    captions = [row.caption for shard in source.shards() for row in source.rows(shard.index)]
    assert captions == [f"caption {i}" for i in [*range(10), *range(5)]]


def keys_by_caption(source: ParquetSource) -> dict[str | None, str]:
    return {row.caption: row.key for shard in source.shards() for row in source.rows(shard.index)}


def test_a_row_without_a_key_is_named_by_its_content_wherever_it_stands(tmp_path: Path) -> None:
    path = write_parquet(tmp_path / "a.parquet", 6)
    first = keys_by_caption(parquet_source(path))
    pq.write_table(pq.read_table(path).take([5, 4, 3, 2, 1, 0]), path)
    assert keys_by_caption(parquet_source(path, shard_size=4)) == first
    assert len(set(first.values())) == 6


@pytest.mark.parametrize("shard_size", [1, 2, 3, 100])
def test_equal_rows_keep_keys_of_their_own_whatever_the_shards(tmp_path: Path, shard_size: int) -> None:
    write_parquet(tmp_path / "in" / "0.parquet", 2)
    table = pq.read_table(tmp_path / "in" / "0.parquet")
    pq.write_table(pa.concat_tables([table, table, table]), tmp_path / "in" / "1.parquet")
    source = parquet_source(tmp_path / "in", shard_size=shard_size)
    keys = [row.key for shard in source.shards() for row in source.rows(shard.index)]
    assert len(set(keys)) == 8
    assert keys == [row.key for row in parquet_source(tmp_path / "in", shard_size=50).rows(0)]


def test_texts_that_are_not_utf8_are_faults(tmp_path: Path) -> None:
    broken = pa.array([b"ok", b"caf\xe9"]).view(pa.string())
    pq.write_table(pa.table({"picture": [jpeg(1), jpeg(2)], "title": broken}), tmp_path / "a.parquet")
    good, wrong = (
        row
        for shard in parquet_source(tmp_path / "a.parquet").shards()
        for row in parquet_source(tmp_path / "a.parquet").rows(shard.index)
    )
    assert (good.caption, good.fault) == ("ok", None)
    assert "a.parquet, row 2: a text in it is not UTF-8" in (wrong.fault or "")


def test_keys_are_what_they_have_always_been(tmp_path: Path) -> None:
    images = pa.array([{"bytes": b"x", "path": "p.jpg"}] * 3 + [{"bytes": None, "path": "p.jpg"}] * 3)
    table = pa.table({"picture": images, "title": ["c", "c", "d", "", None, ""]})
    pq.write_table(table, tmp_path / "a.parquet", row_group_size=2)
    for shard_size in (1, 2, 4, 100):
        source = parquet_source(tmp_path / "a.parquet", shard_size=shard_size)
        assert [row.key for shard in source.shards() for row in source.rows(shard.index)] == [
            "a.parquet:p.jpg:497c4f9e30bfd568",
            "a.parquet:p.jpg:497c4f9e30bfd568#2",
            "a.parquet:p.jpg:3cbe29b870aa0923",
            "a.parquet:p.jpg:10ec855590837f5d",
            "a.parquet:p.jpg:10ec855590837f5d#2",
            "a.parquet:p.jpg:10ec855590837f5d#3",
        ]


def test_key_column_structs_and_paths(tmp_path: Path) -> None:
    (tmp_path / "x.jpg").write_bytes(jpeg(1))
    images = pa.array([{"bytes": jpeg(2), "path": "in.jpg"}, {"bytes": None, "path": "x.jpg"}])
    table = pa.table({"picture": images, "title": ["a", None], "id": [7, 8]})
    pq.write_table(table, tmp_path / "a.parquet")
    first, second = parquet_source(tmp_path / "a.parquet", key_column="id").rows(0)
    assert (first.key, first.image, second.key, second.caption) == ("7", jpeg(2), "8", None)
    assert isinstance(second.image, Path)
    assert second.image.read_bytes() == jpeg(1)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"caption_column": "text"}, r"a\.parquet: no column 'text'; there are: picture, title"),
        ({"image_column": "number"}, "column 'number' is int64; expected bytes, a path"),
    ],
)
def test_wrong_columns_are_named(tmp_path: Path, settings: dict[str, str], message: str) -> None:
    write_parquet(tmp_path / "a.parquet", number=pa.array(range(10)))
    with pytest.raises(SourceError, match=message):
        list(parquet_source(tmp_path / "a.parquet", **settings).shards())


def test_a_file_that_is_no_parquet_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.parquet").write_text("PAR1 but no")
    with pytest.raises(SourceError, match=r"a\.parquet: not a Parquet file"):
        list(parquet_source(tmp_path / "a.parquet").shards())


def test_a_folder_kind_refuses_a_file(tmp_path: Path) -> None:
    (tmp_path / "x").write_text("")
    with pytest.raises(ValidationError, match="is a file; the kind folder needs a folder"):
        FolderSource(name="x", path=tmp_path / "x")


def test_a_shard_that_went_is_an_error_with_the_fix(folder: Path) -> None:
    source = FolderSource(name="photos", path=folder)
    with pytest.raises(SourceError, match=r"has no shard photos-00009.*run: dqe sync"):
        source.shard("photos-00009")


def test_the_sample_is_cut_into_shards_that_cover_it() -> None:
    source = SampleSource(shard_size=100)
    shards = list(source.shards())
    assert sum(shard.rows for shard in shards) >= 240
    keys = [row.key for shard in shards for row in source.rows(shard.index)]
    assert len(set(keys)) == len(keys) == sum(shard.rows for shard in shards)
