"""Measures of data that is in no store are those of the assets, whatever the data is held in."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
import pytest
import yaml
from PIL import Image

import dqe_assets as dqe
from dqe_assets.api.given import RowError
from dqe_assets.orchestration.settings import load_settings
from dqe_resources.errors import UsageError
from dqe_resources.images import decode
from dqe_resources.sources.sample_images import sample_rows
from tests.conftest import ROOT
from tests.image_files import scene, stored_turned
from tests.stages import handed, stage_named, table_of

if TYPE_CHECKING:
    from pathlib import Path

    from dqe_assets.api.rows import Rows

ROWS = 70
"""More than a scorer reads at once."""

ASSETS = ("raw_samples", "image_features", "joint_embeddings", "caption_scores", "text_quality")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of photos, some of which are broken, and most of which have a caption."""
    folder = tmp_path_factory.mktemp("api") / "photos"
    folder.mkdir()
    for number, row in enumerate(sample_rows(0, ROWS)):
        (folder / f"{number:03d}.jpg").write_bytes(row.image if isinstance(row.image, bytes) else b"")
        if number % 7:
            (folder / f"{number:03d}.txt").write_text((row.caption or "") + (" &amp; more" if number == 1 else ""))
    return folder


@pytest.fixture(scope="module")
def measured(folder: Path, model_cache: Path) -> Rows:
    """What ``quality`` says of the folder."""
    return dqe.quality(folder)


def test_a_folder_has_the_values_of_the_assets_bit_for_bit(folder: Path, data: Path, measured: Rows) -> None:
    source = {"kind": "folder", "name": "photos", "path": str(folder)}
    (data / "dqe.yaml").write_text(yaml.safe_dump({"sources": [source], "captioners": [], "image_text": None}))
    settings = load_settings()
    for name in ASSETS:
        stage = stage_named(settings, name)
        stage.make(stage.work(settings.opened_store, "photos-00000", ["photos-00000"]), handed(settings, stage))
    tables = [table_of(settings, name, "photos-00000") for name in ASSETS if name != "joint_embeddings"]
    compared = set()
    for table in tables:
        for name in {*table.column_names} & {*measured.column_names}:
            assert measured[name].combine_chunks().equals(table[name].combine_chunks()), name
            compared.add(name)
    assert compared >= {"uid", "caption", "reason", "pixel_digest", "sharpness", "top_label", "similarity", "tokens"}
    assert compared >= {"language", "patterns", "repetition", "truncated", "perceptual_hash", "colours", "detail"}
    best = pc.list_element(tables[1]["label_probabilities"], 0).cast(pa.float32())
    assert measured["top_label_probability"].equals(best)
    assert measured["row"].to_pylist() == list(range(ROWS))
    assert measured["similarity"].null_count > 0 < measured.filter(pc.equal(measured["status"], "failed")).num_rows


def test_data_frames_and_data_sets_give_the_same_as_the_folder(folder: Path, measured: Rows) -> None:
    datasets = pytest.importorskip("datasets", reason="the extra 'hf' is not installed")
    files = [folder / f"{number:03d}.jpg" for number in range(12)]
    texts = [file.with_suffix(".txt") for file in files]
    images = [file.read_bytes() for file in files]
    columns: dict[str, list[Any]] = {
        "image": images,
        "text": [text.read_text() if text.exists() else None for text in texts],
    }
    of_paths = datasets.Dataset.from_dict({**columns, "image": list(map(str, files))})
    of_paths = of_paths.cast_column("image", datasets.Image())
    schema = pa.schema([("image", pa.binary()), ("text", pa.string())])
    for dataset in (
        pd.DataFrame(columns, index=[f"a{number % 3}" for number in range(len(files))]),
        pl.DataFrame(columns),
        of_paths,
        pa.table(columns, schema),
    ):
        found = dqe.quality(dataset)
        assert found["row"].to_pylist() == list(range(len(files)))
        # Of a file that a path led to, the detail does not say what it begins with.
        for name in {*found.column_names} - {"image_name", "detail", "similarity"}:
            expected = measured[name].combine_chunks().slice(0, len(files))
            assert found[name].combine_chunks().equals(expected), (type(dataset), name)
        # The last bits depend on how many are embedded at once.
        expected = measured["similarity"].to_numpy()[: len(files)]
        assert found["similarity"].to_numpy() == pytest.approx(expected, abs=1e-3, nan_ok=True)
        names = found["image_name"].to_pylist()
        assert names == (list(map(str, files)) if dataset is of_paths else [None] * len(files))


def test_a_row_that_is_wrong_costs_itself_alone(folder: Path) -> None:
    good = folder / "001.jpg"
    picture = Image.open(good)
    images = [
        *(good, str(good), good.read_bytes(), picture, {"bytes": good.read_bytes(), "path": None}),
        *(None, float("nan"), b"", b"junk", 3, "http://127.0.0.1:1/x.jpg", folder / "nobody.jpg", {"x": 1}, folder),
    ]
    captions = ["a cat", ["a cat", "another"], None, float("nan"), pd.NA, 7, *["text"] * 8]
    found = dqe.quality(pd.DataFrame({"picture": images, "said": captions}), image="picture", caption="said")
    reasons = found["reason"].to_pylist()
    assert reasons[:5] == ["ok"] * 5
    assert reasons[5:] == [
        *("bad_row", "missing", "empty", "not_an_image", "bad_row", "bad_row", "missing", "bad_row", "missing"),
    ]
    assert len(set(found["pixel_digest"].to_pylist()[:5])) == 1, "a PIL image is read as the file it came from"
    details = found["detail"].to_pylist()
    assert details[5] == "its caption is no text but a value of type int"
    assert details[9].startswith("its image is a value of type int; expected bytes, a path, a PIL image")
    assert "nothing is fetched here" in details[10]
    assert "nobody.jpg" in details[11]
    assert found["similarity"].is_valid().to_pylist()[:5] == [True, True, False, False, False]
    assert found["image_name"].to_pylist()[0] == str(good)


def test_what_holds_which_column_is_asked_where_it_cannot_be_told() -> None:
    data = scene_bytes()
    two = pd.DataFrame({"a": [data], "b": [data], "text": ["a cat sits"]})
    with pytest.raises(UsageError, match=r"which column holds the image\? It could be: a, b\. Say image='NAME'"):
        dqe.quality(two)
    assert dqe.quality(two, image="b").num_rows == 1
    with pytest.raises(UsageError, match=r"image='c': no such column\. There are: a, b, text"):
        dqe.quality(two, image="c")
    with pytest.raises(UsageError, match=r"no column of images .* There are: text"):
        dqe.quality(two[["text"]])
    assert dqe.quality(two[["a"]])["similarity"].null_count == 1
    assert dqe.quality(two.iloc[:0][["a", "text"]], image="a").num_rows == 0


def scene_bytes() -> bytes:
    return stored_turned(scene(), 1, "JPEG")


def test_what_is_no_data_is_refused_with_what_is() -> None:
    for given, said in (
        (3, "expected a folder, a pandas or Polars data frame, a datasets.Dataset, or an Arrow table, found .* int"),
        ("/nowhere/at/all", "there is nothing at /nowhere/at/all"),
        ("owner/name", "there is nothing at "),
        ({"train": 1, "test": 2}, r"found several: train, test; give one of them, such as dataset\['train'\]"),
        (pl.LazyFrame({"image": [b""]}), r"give frame\.collect\(\)"),
        (pd.DataFrame([[1, 2]], columns=["a", "a"]), "two columns of the data frame have one name"),
    ):
        with pytest.raises(UsageError, match=said):
            dqe.quality(given)


def test_scores_are_those_of_quality_and_an_error_names_the_row(folder: Path, measured: Rows) -> None:
    ok = [row for row in measured if row["status"] == "ok"][:12]
    images = [folder / row["image_name"] for row in ok]
    found = dqe.score(images, [row["caption"] for row in ok])
    assert found.num_rows == 12
    assert found["similarity"].to_pylist() == pytest.approx([row["similarity"] for row in ok], abs=1e-3)
    assert found["tokens"].to_pylist() == [row["tokens"] for row in ok]
    (broken,) = [row for row in measured if row["status"] == "failed"][:1]
    with pytest.raises(RowError, match=rf"images, row 1 \(.*{broken['image_name']}\): {broken['reason']}: ") as error:
        dqe.score([images[0], folder / broken["image_name"]], ["a", "b"])
    assert (error.value.row, error.value.reason) == (1, broken["reason"])
    with pytest.raises(RowError, match="captions, row 1: expected a text or None, found a value of type int"):
        dqe.score(images[:2], ["a", 3])
    with pytest.raises(UsageError, match="12 images and 1 captions: expected as many of both"):
        dqe.score(images, ["a"])
    with pytest.raises(UsageError, match="images: expected a list of them, found a value of type str"):
        dqe.score("a.jpg", ["a"])
    with pytest.raises(UsageError, match="captions: expected a list of them, found a value of type str"):
        dqe.score(images[:1], "a")
    assert dqe.score([], []).num_rows == 0


def test_texts_are_measured_by_themselves(measured: Rows) -> None:
    found = dqe.text_quality(measured["caption"].to_pylist())
    assert found.column_names[:3] == ["language", "language_probability", "words"]
    for name in found.column_names:
        assert found[name].combine_chunks().equals(measured[name].combine_chunks()), name
    assert dqe.text_quality(pd.Series(["a cat", None]))["words"].to_pylist() == [2, None]
    assert dqe.text_quality([]).num_rows == 0
    with pytest.raises(RowError, match="captions, row 2: expected a text or None, found a text that is not UTF-8"):
        dqe.text_quality(["a", None, "\udce9"])


def test_duplicates_are_clustered_under_the_numbers_that_were_given(folder: Path) -> None:
    photo = Image.open(folder / "001.jpg")
    smaller = photo.resize((photo.width * 2 // 3, photo.height * 2 // 3))
    other = Image.open(folder / "010.jpg")
    found = dqe.find_duplicates([smaller, other, photo, folder / "001.jpg", (folder / "001.jpg").read_bytes()])
    clusters = [row for row in found if row["kind"] == "any"]
    assert [row["row"] for row in clusters] == [0, 2, 3, 4]
    assert {(row["cluster"], row["representative"], row["size"]) for row in clusters} == {(0, 2, 4)}
    assert [row["row"] for row in clusters if row["is_representative"]] == [2]
    exact = found.pairs.filter(pc.equal(found.pairs["kind"], "exact"))
    assert {(row["row_a"], row["row_b"]) for row in exact.to_pylist()} >= {(2, 3), (2, 4)}
    assert dqe.find_duplicates([]).num_rows == dqe.find_duplicates([other]).num_rows == 0
    with pytest.raises(RowError, match="images, row 1: not_an_image"):
        dqe.find_duplicates([photo, b"junk"])


def test_a_turned_picture_of_pil_is_read_as_it_is_shown() -> None:
    data = stored_turned(scene(), 6, "JPEG")
    as_file, as_picture = dqe.quality(pd.DataFrame({"image": [data, Image.open(io.BytesIO(data))]}))
    assert (as_file["width"], as_file["height"]) == decode(data).size
    assert as_file["pixel_digest"] == as_picture["pixel_digest"]


def test_no_data_folder_and_no_network_are_needed(folder: Path, tmp_path: Path, model_cache: Path) -> None:
    cache = tmp_path / "cache" / "data-quality-engine"
    cache.mkdir(parents=True)
    (cache / "cache").symlink_to(model_cache)
    code = (
        "import socket, sys\n"
        "def refused(*_): raise AssertionError('the network was asked')\n"
        "socket.socket.connect = refused\n"
        "import dqe_assets as dqe\n"
        f"found = dqe.score([{str(folder / '001.jpg')!r}], ['a cat'])\n"
        "print(found['similarity'][0].as_py(), 'dagster' in sys.modules)"
    )
    environ = {name: value for name, value in os.environ.items() if not name.startswith("DQE_")}
    environ |= {"XDG_CACHE_HOME": str(tmp_path / "cache"), "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=environ, capture_output=True, text=True, check=True
    )
    value, has_dagster = done.stdout.split()
    assert has_dagster == "False"
    assert float(value) == dqe.score([folder / "001.jpg"], ["a cat"])["similarity"][0].as_py()
    assert done.stderr == "", "no bar where nobody looks"
    assert [path.name for path in tmp_path.iterdir()] == ["cache"]
