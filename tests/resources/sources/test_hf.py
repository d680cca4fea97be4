from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from pydantic import ValidationError

from dqe_resources.sources.hf import HfSource
from dqe_resources.sources.local_file import FileError, LocalFile
from dqe_resources.sources.protocol import SourceError
from tests.hub import Hub, hub_environment, serving_hub

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from dqe_resources.sources.rows import SourceRow


def jpeg(shade: int) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8), (shade, 40, 200)).save(buffer, "JPEG")
    return buffer.getvalue()


def dataset(rows: int) -> datasets.Dataset:
    images = [{"bytes": jpeg(number), "path": None} for number in range(rows)]
    columns = {"image": images, "text": [f"caption {number}" for number in range(rows)], "id": list(range(rows))}
    return datasets.Dataset.from_dict(columns).cast_column("image", datasets.Image())


STRUCTS = datasets.Features(
    {
        "image": {"bytes": datasets.Value("binary"), "path": datasets.Value("string")},
        "text": datasets.Value("string"),
    }
)


def rows_of(**settings: Any) -> list[SourceRow]:
    source = HfSource.model_validate({"name": "hf", "shard_size": 3, **settings})
    return [row for shard in source.shards() for row in source.rows(shard.index)]


def test_what_save_to_disk_wrote_is_read(tmp_path: Path) -> None:
    # Shuffled, a dataset is read through a list of indices.
    dataset(7).select([6, 5, 4, 3, 2, 1, 0]).save_to_disk(tmp_path / "saved", num_shards=2)
    rows = rows_of(path=tmp_path / "saved", image_column="image")
    assert [row.caption for row in rows] == [f"caption {number}" for number in range(6, -1, -1)]
    assert [row.image for row in rows] == [jpeg(number) for number in range(6, -1, -1)]
    assert len({row.key for row in rows}) == 7
    assert rows_of(path=tmp_path / "saved", image_column="image", key_column="id")[0].key == "6"


def test_a_saved_dataset_that_names_files_elsewhere_is_refused(tmp_path: Path) -> None:
    dataset(2).save_to_disk(tmp_path / "elsewhere")
    dataset(3).save_to_disk(tmp_path / "saved")
    arrow = next((tmp_path / "elsewhere").glob("*.arrow"))
    state = tmp_path / "saved" / "state.json"
    whole = state.read_text()
    named = json.loads(whole)
    for name in (f"../elsewhere/{arrow.name}", str(arrow), "/dev/zero"):
        state.write_text(json.dumps({**named, "_data_files": [{"filename": name}]}))
        with pytest.raises(SourceError, match=r"leads out of the source's folder .*allow_outside: true"):
            rows_of(path=tmp_path / "saved", image_column="image")
    state.write_text(json.dumps({**named, "_data_files": [{"filename": f"../elsewhere/{arrow.name}"}]}))
    assert len(rows_of(path=tmp_path / "saved", image_column="image", allow_outside=True)) == 2
    faults = {"{": "not JSON", "[]": "expected a JSON object", '{"_data_files": [1]}': "not what save_to_disk"}
    for wrong, message in faults.items():
        state.write_text(wrong)
        with pytest.raises(SourceError, match=rf"state\.json: {message}"):
            rows_of(path=tmp_path / "saved", image_column="image")
    state.write_text(whole)
    (tmp_path / "saved" / "link.arrow").symlink_to("/etc/passwd")
    with pytest.raises(SourceError, match=r"link\.arrow leads out of"):
        rows_of(path=tmp_path / "saved", image_column="image")


def test_paths_in_a_dataset_that_lead_elsewhere_are_not_read(tmp_path: Path) -> None:
    (tmp_path / "x.jpg").write_bytes(jpeg(1))
    images = [{"bytes": None, "path": "../x.jpg"}, {"bytes": None, "path": "/etc/passwd"}]
    datasets.Dataset.from_dict({"image": images, "text": ["a", "b"]}, STRUCTS).save_to_disk(tmp_path / "saved")
    for row in rows_of(path=tmp_path / "saved", image_column="image"):
        assert isinstance(row.image, LocalFile)
        with pytest.raises(FileError, match="refused_path"):
            row.image.read(10_000)


def test_parquet_files_of_a_clone_that_lead_elsewhere_are_refused(tmp_path: Path) -> None:
    (tmp_path / "clone").mkdir()
    pq.write_table(pa.table({"image": [jpeg(1)], "text": ["a"]}), tmp_path / "outside.parquet")
    (tmp_path / "clone" / "train.parquet").symlink_to(tmp_path / "outside.parquet")
    with pytest.raises(SourceError, match=r"train\.parquet leads out of the source's folder"):
        rows_of(path=tmp_path / "clone", image_column="image")
    assert len(rows_of(path=tmp_path / "clone", image_column="image", allow_outside=True)) == 1


def test_a_split_of_a_saved_dictionary_is_chosen(tmp_path: Path) -> None:
    datasets.DatasetDict({"train": dataset(2), "test": dataset(1)}).save_to_disk(tmp_path / "saved")
    assert len(rows_of(path=tmp_path / "saved", image_column="image", split="test")) == 1
    with pytest.raises(SourceError, match=r"saved: no split 'dev'; there are: train, test"):
        rows_of(path=tmp_path / "saved", image_column="image", split="dev")


def write_repository(folder: Path) -> Path:
    """A repository of Parquet files, with two splits."""
    (folder / "data").mkdir(parents=True)
    for split, rows in (("train", 5), ("test", 2)):
        dataset(rows).to_parquet(folder / "data" / f"{split}-00000-of-00001.parquet")
    return folder


def test_a_clone_of_a_repository_is_read(tmp_path: Path) -> None:
    write_repository(tmp_path / "clone")
    rows = rows_of(path=tmp_path / "clone", image_column="image")
    assert [row.caption for row in rows] == [f"caption {number}" for number in range(5)]
    assert rows[4].image == jpeg(4)
    assert rows[0].key.startswith("data/train-00000-of-00001.parquet:")
    assert len(rows_of(path=tmp_path / "clone", image_column="image", split="test")) == 2


def test_a_column_of_urls_makes_rows_to_fetch(tmp_path: Path) -> None:
    links = [f"http://a.example/{number}.jpg" for number in range(4)]
    datasets.Dataset.from_dict({"link": links, "text": ["x"] * 4}).save_to_disk(tmp_path / "saved")
    rows = rows_of(path=tmp_path / "saved", url_column="link")
    assert [(row.url, row.image) for row in rows] == [(link, None) for link in links]
    assert rows[1].key.startswith("1.jpg:")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"image_column": "picture"}, r"no column 'picture'; there are: image, text, id"),
        ({"image_column": "id"}, r"column 'id' is int64; expected bytes, a path, or a struct of both"),
        ({"url_column": "id"}, r"column 'id' is int64; expected text"),
    ],
)
def test_wrong_columns_are_named(tmp_path: Path, settings: dict[str, str], message: str) -> None:
    dataset(1).save_to_disk(tmp_path / "saved")
    with pytest.raises(SourceError, match=message):
        rows_of(path=tmp_path / "saved", **settings)


def test_a_repository_that_is_not_parquet_says_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "clone").mkdir()
    (tmp_path / "clone" / "train.csv").write_text("a,b\n1,2\n")
    with pytest.raises(SourceError, match=r"train\.csv is no Parquet file; try the revision refs/convert/parquet"):
        rows_of(path=tmp_path / "clone", url_column="a")
    write_repository(tmp_path / "other")
    with pytest.raises(SourceError, match=r"no split 'dev'; there are: "):
        rows_of(path=tmp_path / "other", image_column="image", split="dev")


def test_a_torn_dataset_is_named(tmp_path: Path) -> None:
    dataset(3).save_to_disk(tmp_path / "saved")
    (arrow,) = (tmp_path / "saved").glob("*.arrow")
    arrow.write_bytes(arrow.read_bytes()[:100])
    with pytest.raises(SourceError, match=r"saved: not what save_to_disk writes"):
        rows_of(path=tmp_path / "saved", image_column="image")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"image_column": "image"}, "give path .* or repository .*, one of the two"),
        ({"repository": "a/b", "path": ".", "image_column": "image"}, "one of the two"),
        ({"repository": "a/b"}, "give image_column, url_column, or both"),
    ],
)
def test_settings_that_do_not_say_what_to_read_are_refused(
    data_folder: Path, settings: dict[str, str], message: str
) -> None:
    with pytest.raises(ValidationError, match=message):
        HfSource.model_validate({"name": "hf", **settings})


@pytest.fixture
def hub() -> Iterator[str]:
    with serving_hub() as endpoint:
        yield endpoint


READ = """
from dqe_resources.sources.hf import HfSource
source = HfSource(name="hub", repository="org/set", url_column="link", image_column="image", shard_size=4)
print([shard.rows for shard in source.shards()])
for row in source.rows(4):
    print(row.key.partition(":")[0], row.url, row.caption, len(row.image))
"""


def read_from(endpoint: str, home: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", READ],
        env={**os.environ, **hub_environment(endpoint, home), **environment},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def test_of_a_repository_on_the_hub_only_what_a_shard_needs_is_fetched(hub: str, tmp_path: Path) -> None:
    images = [{"bytes": os.urandom(400_000), "path": f"{number}.jpg"} for number in range(20)]
    table = pa.table({"image": images, "text": ["c"] * 20, "link": [f"http://a/{number}" for number in range(20)]})
    buffer = io.BytesIO()
    pq.write_table(table, buffer, row_group_size=2, compression="none")
    Hub.data, Hub.served = buffer.getvalue(), 0
    done = read_from(hub, tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        "[4, 4, 4, 4, 4]",
        *(f"data/train.parquet http://a/{number} c 400000" for number in range(16, 20)),
    ]
    assert Hub.served < len(Hub.data) / 4


def test_without_a_network_it_says_how_to_download(tmp_path: Path) -> None:
    done = read_from("http://127.0.0.1:1", tmp_path, HF_HUB_OFFLINE="1")
    assert done.returncode == 1
    assert "Hugging Face repository org/set at revision main is not available" in done.stderr
    assert "hf download org/set --repo-type dataset --revision main --local-dir FOLDER" in done.stderr
