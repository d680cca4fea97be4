from __future__ import annotations

import contextlib
import io
import itertools
import tempfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from dqe_resources.sources.local_file import FileError, LocalFile
from dqe_resources.sources.parquet import ParquetSource
from dqe_resources.sources.protocol import SourceError
from dqe_resources.sources.sample import SampleSource


def jpeg(shade: int) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8), (shade, 40, 200)).save(buffer, "JPEG")
    return buffer.getvalue()


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
    assert isinstance(second.image, LocalFile)
    assert second.image.read(10_000) == jpeg(1)


def keyed(path: Path, keys: pa.Array, images: list[bytes] | None = None) -> list[str]:
    rows = len(keys)
    pictures = images or [jpeg(number) for number in range(rows)]
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table({"picture": pictures, "title": [f"c{n}" for n in range(rows)], "id": keys}), path)
    source = parquet_source(path, key_column="id", shard_size=2)
    return [row.key for shard in source.shards() for row in source.rows(shard.index)]


@pytest.mark.parametrize("keys", [pa.array(["x", None, "y", None]), pa.array([1.5, None, 2.5, float("nan")])])
def test_a_row_whose_key_is_null_is_named_by_its_content(tmp_path: Path, keys: pa.Array) -> None:
    found = keyed(tmp_path / "a.parquet", keys)
    assert [found[0], found[2]] == [str(keys[0]), str(keys[2])]
    pq.write_table(pq.read_table(tmp_path / "a.parquet"), tmp_path / "a.parquet", row_group_size=1)
    unkeyed = parquet_source(tmp_path / "a.parquet")
    by_content = [row.key for row in unkeyed.rows(0)]
    assert [found[1], found[3]] == [by_content[1], by_content[3]]
    assert len(set(found)) == 4


@pytest.mark.parametrize("shard_size", [1, 2, 100])
def test_keys_that_come_again_are_numbered_over_all_files(tmp_path: Path, shard_size: int) -> None:
    for name in ("a", "b"):
        keyed(tmp_path / "in" / f"{name}.parquet", pa.array([0, 1, 1]))
    source = parquet_source(tmp_path / "in", key_column="id", shard_size=shard_size)
    keys = [row.key for shard in source.shards() for row in source.rows(shard.index)]
    assert [keys[0], keys[1], len(set(keys))] == ["0", "1", 6]
    assert [(key.partition(":")[0], key.partition("#")[2]) for key in keys[2:]] == [
        ("1", "2"),
        ("0", "2"),
        ("1", "3"),
        ("1", "4"),
    ]


def test_a_column_that_is_there_twice_is_named_with_its_file(tmp_path: Path) -> None:
    columns = [pa.array([jpeg(1)]), pa.array(["x"]), pa.array(["y"])]
    pq.write_table(pa.Table.from_arrays(columns, ["picture", "title", "title"]), tmp_path / "a.parquet")
    with pytest.raises(SourceError, match=r"a\.parquet: 2 columns 'title'; there are: picture, title, title"):
        list(parquet_source(tmp_path / "a.parquet").shards())


def test_of_several_captions_the_first_is_the_caption_and_all_are_kept(tmp_path: Path) -> None:
    texts = pa.array([["one", "two"], ["only"], [], None, [None, "later"]], pa.list_(pa.string()))
    pq.write_table(pa.table({"picture": [jpeg(n) for n in range(5)], "title": texts}), tmp_path / "a.parquet")
    rows = list(parquet_source(tmp_path / "a.parquet").rows(0))
    assert [(row.caption, row.captions) for row in rows] == [
        ("one", ["one", "two"]),
        ("only", None),
        (None, None),
        (None, None),
        ("later", None),
    ]
    assert len({row.key for row in rows}) == 5


def test_values_that_python_cannot_hold_cost_nothing_but_themselves(tmp_path: Path) -> None:
    wrong = pa.array([b"ok", b"caf\xe9"]).view(pa.string())
    images = pa.StructArray.from_arrays([pa.array([jpeg(1), jpeg(2)]), wrong], ["bytes", "path"])
    later = pa.array([4 * 10**18, 0], pa.timestamp("us"))
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"picture": images, "title": ["a", "b"], "id": later}), path)
    good, bad = parquet_source(path).rows(0)
    assert (good.caption, good.fault) == ("a", None)
    assert "row 2: a text in it is not UTF-8" in (bad.fault or "")
    assert next(parquet_source(path, key_column="id").rows(0)).key == "timestamp[us] 4000000000000000000"


IMAGE = pa.array([b"image 0", None, b"image 2"])
CAPTION = pa.array(["one", "caf\u00e9", None])
NAMED = pa.struct([("path", pa.large_string()), ("bytes", pa.large_binary()), ("width", pa.int32())])
ODD_TYPES = {
    "large": (IMAGE.cast(pa.large_binary()), CAPTION.cast(pa.large_string())),
    "views": (IMAGE.cast(pa.binary_view()), CAPTION.cast(pa.string_view())),
    "dictionaries": (IMAGE.dictionary_encode(), CAPTION.dictionary_encode()),
    "texts that are not said to be UTF-8": (IMAGE, CAPTION.cast(pa.binary())),
    "a dictionary of bytes": (IMAGE, CAPTION.cast(pa.binary()).dictionary_encode()),
    "structs of bytes alone": (pa.array([one and {"bytes": one} for one in IMAGE.to_pylist()]), CAPTION),
    "structs of more": (pa.array([one and {"bytes": one, "width": 3} for one in IMAGE.to_pylist()], NAMED), CAPTION),
    "lists": (IMAGE, pa.array([[one] if one else None for one in CAPTION.to_pylist()])),
    "large lists": (IMAGE, pa.array([[one] if one else [] for one in CAPTION.to_pylist()], pa.large_list(pa.string()))),
    "list views": (IMAGE, pa.array([[None, one] for one in CAPTION.to_pylist()], pa.list_view(pa.string()))),
    "lists of bytes": (IMAGE, pa.array([[one and one.encode()] for one in CAPTION.to_pylist()])),
    "lists of dictionaries": (
        IMAGE,
        pa.array([[one] for one in CAPTION.to_pylist()], pa.list_(pa.dictionary(pa.int8(), pa.string()))),
    ),
}


@pytest.mark.parametrize(("images", "captions"), ODD_TYPES.values(), ids=ODD_TYPES)
def test_columns_of_every_type_that_holds_images_and_texts_are_read(
    tmp_path: Path, images: pa.Array, captions: pa.Array
) -> None:
    table = pa.table({"image": images, "caption": captions, "id": pa.array([b"a", b"b", b"c"])})
    pq.write_table(table, tmp_path / "pairs.parquet")
    source = ParquetSource(name="pairs", path=tmp_path, key_column="id")
    assert [(row.key, row.image, row.caption, row.fault) for row in source.rows(0)] == [
        ("a", b"image 0", "one", None),
        ("b", None, "caf\u00e9", None),
        ("c", b"image 2", None, None),
    ]
    assert sum(shard.rows for shard in source.shards()) == 3


def test_bytes_that_are_no_text_are_the_fault_of_their_row(tmp_path: Path) -> None:
    table = pa.table({"image": IMAGE, "caption": pa.array([b"one", b"caf\xe9", b"three"])})
    pq.write_table(table, tmp_path / "pairs.parquet")
    rows = list(ParquetSource(name="pairs", path=tmp_path).rows(0))
    assert [row.caption for row in rows] == ["one", None, "three"]
    assert "row 2: a text in it is not UTF-8" in str(rows[1].fault)


def test_an_image_in_letters_in_place_of_a_path_is_missing_and_is_not_quoted(tmp_path: Path) -> None:
    letters = ["data:image/png;base64," + "iVBORw0KGgo" * 100_000, "aGVsbG8" * 100_000]
    pq.write_table(pa.table({"image": letters, "caption": ["a", "a"]}), tmp_path / "pairs.parquet")
    rows = list(ParquetSource(name="pairs", path=tmp_path).rows(0))
    assert len({row.key for row in rows}) == 2
    for row in rows:
        assert len(row.key) < 5000
        assert isinstance(row.image, LocalFile)
        with pytest.raises(FileError, match=r"missing: .* … .*: (File name too long|No such file)") as caught:
            row.image.read(100)
        assert len(caught.value.detail) < 1000


def test_a_struct_of_other_types_is_no_image(tmp_path: Path) -> None:
    pq.write_table(pa.table({"picture": [{"bytes": "text", "path": 5}], "title": ["a"]}), tmp_path / "a.parquet")
    with pytest.raises(SourceError, match=r"column 'picture' is struct<.*; expected bytes, a path, or a"):
        list(parquet_source(tmp_path / "a.parquet").shards())


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


def test_a_name_of_a_column_that_is_not_utf8_is_damage(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"image": [b"x"], "caption": ["a"], "other": ["b"]}), path, store_schema=False)
    path.write_bytes(path.read_bytes().replace(b"other", b"\xff\xfeher"))
    with pytest.raises(SourceError, match=r"a\.parquet: "):
        list(ParquetSource(name="pairs", path=path).shards())


def _damaged(data: bytes, changes: list[tuple[int, int]]) -> bytes:
    """Parquet with some bytes of its footer changed, where all of its structure is."""
    changed = bytearray(data)
    footer = int.from_bytes(data[-8:-4], "little")
    for place, byte in changes:
        changed[len(data) - 8 - place % footer] = byte
    return bytes(changed)


@given(
    st.lists(st.tuples(st.integers(0, 10_000), st.sampled_from([0, 1, 127, 128, 255])), min_size=1, max_size=5),
    st.sampled_from([None, "id"]),
)
def test_whatever_a_footer_says_it_is_rows_or_damage(changes: list[tuple[int, int]], key_column: str | None) -> None:
    file = io.BytesIO()
    pq.write_table(pa.table({"image": [b"x"] * 9, "caption": ["a"] * 9, "id": ["b"] * 9}), file, row_group_size=4)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "a.parquet")
        path.write_bytes(_damaged(file.getvalue(), changes))
        source = ParquetSource(name="pairs", path=path, key_column=key_column, shard_size=10)
        with contextlib.suppress(SourceError):
            if sum(shard.rows for shard in itertools.islice(source.shards(), 100)) < 100:
                list(source.rows(0))


def test_the_sample_is_cut_into_shards_that_cover_it() -> None:
    source = SampleSource(shard_size=100)
    shards = list(source.shards())
    assert sum(shard.rows for shard in shards) >= 240
    keys = [row.key for shard in shards for row in source.rows(shard.index)]
    assert len(set(keys)) == len(keys) == sum(shard.rows for shard in shards)
