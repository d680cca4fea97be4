"""``dqe init`` on real small data of each kind: what it writes is loaded, and its rows are what the data holds."""

from __future__ import annotations

import csv
import gzip
import io
import json
import os
import subprocess
import sys
import tarfile
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from PIL import Image
from typer.testing import CliRunner

from dqe_assets.cli.app import app
from dqe_assets.cli.data_folder import default_settings
from dqe_assets.cli.settings_schema import settings_schema_text
from dqe_assets.orchestration.settings import load_settings
from dqe_resources.sources.local_file import LocalFile
from tests.conftest import ROOT
from tests.hub import Hub, hub_environment, serving_hub

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from click.testing import Result

    from dqe_resources.sources.rows import SourceRow

CAPTIONS = ("a red square", "a green square on a wall", "blue", "a square that is nearly black")


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder to work in, with an empty data folder next to the data."""
    monkeypatch.setenv("DQE_DATA", str(tmp_path / "data"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def init(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["init", *map(str, arguments)])


def said(found: Result) -> str:
    return " ".join(found.output.split())


def written(found: Result) -> dict[str, Any]:
    """The source that dqe.yaml holds now; the file is loaded as every command does."""
    assert found.exit_code == 0, found.output
    assert found.output.splitlines()[-1] == "Next: dqe materialize"
    (source,) = load_settings().sources
    return {"kind": source.kind, **source.model_dump(mode="json", exclude_defaults=True)}


def rows() -> list[SourceRow]:
    (source,) = load_settings().sources
    return [row for shard in source.shards() for row in source.rows(shard.index)]


def picture(number: int) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (32, 24), (60 * number, 90, 200 - 40 * number)).save(buffer, "JPEG")
    return buffer.getvalue()


def folder_of_images(folder: Path, *, sidecars: bool) -> Path:
    (folder / "more").mkdir(parents=True)
    for number, caption in enumerate(CAPTIONS):
        path = folder / ("more" if number % 2 else ".") / f"{number}.jpg"
        path.write_bytes(picture(number))
        if sidecars and number != 3:
            path.with_suffix(".txt").write_text(caption)
    return folder


def parquet(path: Path, **columns: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(columns), path)
    return path


def urls(host: str = "example.org") -> list[str]:
    return [f"https://{host}/{number}.jpg" for number in range(4)]


def tar(path: Path, members: dict[str, bytes]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as file:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            file.addfile(info, io.BytesIO(content))
    return path


def test_a_folder_of_images_with_captions_next_to_them(place: Path) -> None:
    folder = folder_of_images(place / "Holiday 2024", sidecars=True)
    found = init(folder)
    assert written(found) == {"kind": "folder", "name": "holiday_2024", "path": str(folder)}
    assert "a folder of 4 images, 3 of them with a caption file" in said(found)
    assert "source holiday_2024, kind folder: 4 rows in 1 shard" in said(found)
    assert [row.caption for row in rows()] == ["a red square", "blue", "a green square on a wall", None]


def test_a_folder_without_captions_is_taken_and_that_is_said(place: Path) -> None:
    folder_of_images(place / "images", sidecars=False)
    (place / "images" / "labels.csv").write_text("name,label\n")
    found = init("images")
    assert written(found)["kind"] == "folder"
    assert "no image has a caption; looked for: a.txt, a.jpg.txt, a.caption and a.jpg.caption" in said(found)
    assert "left out: .csv files: 1 (labels.csv)" in said(found)
    assert "labels.csv is not read" in said(found)


def test_a_folder_with_a_metadata_table_whose_caption_column_is_guessed(place: Path) -> None:
    folder = folder_of_images(place / "images", sidecars=False)
    lines = [f"{number}.jpg,{caption},{number}" for number, caption in enumerate(CAPTIONS) if not number % 2]
    (folder / "metadata.csv").write_text("file_name,description,stars\n" + "\n".join(lines))
    assert written(init("images")) == {
        "kind": "folder", "name": "images", "path": str(folder), "caption_column": "description",
    }  # fmt: skip
    assert [row.caption for row in rows()] == ["a red square", "blue"]


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_a_folder_with_metadata_in_its_subfolders(place: Path, kind: str) -> None:
    folder = folder_of_images(place / "images", sidecars=False)
    (folder / "more" / "metadata.csv").write_text("file_name,legend\n1.jpg,a green square\n3.jpg,nearly black\n")
    if kind == "parquet":
        (folder / "more" / "metadata.csv").unlink()
        parquet(folder / "more" / "metadata.parquet", file_name=["1.jpg", "3.jpg"], legend=[["a green square"], ["b"]])
    found = init("images")
    assert written(found) == {"kind": "folder", "name": "images", "path": str(folder), "caption_column": "legend"}
    assert f"a folder of images with more/metadata.{kind}" in said(found)
    assert [row.caption for row in rows()][:1] == ["a green square"]
    assert len(rows()) == 4


def test_caption_files_of_all_names_are_counted_and_what_is_left_out_is_said(place: Path) -> None:
    folder = folder_of_images(place / "images", sidecars=False)
    (folder / "0.jpg.txt").write_text("zero")
    (folder / "more" / "1.CAPTION").write_text("one")
    (folder / "notes.md").write_text("x")
    found = init("images")
    assert "a folder of 4 images, 2 of them with a caption file" in said(found)
    assert "4 rows in 1 shard left out: .md files: 1 (notes.md)" in said(found)


@pytest.mark.parametrize("name", ["metadata.csv", "list.csv", "x.parquet", "x.tar"])
def test_pipes_and_links_to_other_places_are_not_opened(place: Path, name: str) -> None:
    for kind in ("pipe", "link"):
        folder = folder_of_images(place / kind, sidecars=False) if name == "metadata.csv" else place / kind
        folder.mkdir(exist_ok=True)
        os.mkfifo(folder / name) if kind == "pipe" else (folder / name).symlink_to("/etc/passwd")
        found = init(folder)
        assert found.exit_code != 0
        expected = ("is no regular file", "neither files nor folders", "leads out of", "lead out of the folder")
        assert any(words in said(found) for words in expected), found.output
        assert "root:" not in found.output


@pytest.mark.parametrize("name", ["x.tar", "x.tar.gz"])
def test_tars_whose_names_have_dots_and_that_are_compressed(place: Path, name: str) -> None:
    path = tar(place / "in" / "x.tar", {"22.05.jpg": picture(0), "22.05.txt": b"one", "a.cls": b"1"})
    if name.endswith(".gz"):
        path.with_name(name).write_bytes(gzip.compress(path.read_bytes()))
        path.unlink()
    found = init("in")
    assert written(found) == {"kind": "webdataset", "name": "in", "path": str(place / "in"), "key_dot": "last"}
    assert "names have dots, so the last one ends the name of a sample (key_dot)" in said(found)
    assert [(row.key, row.caption) for row in rows()] == [(f"{name}/22.05", "one")]


def test_a_column_of_lists_of_captions_is_found(place: Path) -> None:
    parquet(place / "p.parquet", image=[picture(0), picture(1)], words=[["a dog", "a pet"], ["a cat that sleeps"]])
    assert written(init("p.parquet"))["caption_column"] == "words"
    assert [(row.caption, row.captions) for row in rows()] == [
        ("a dog", ["a dog", "a pet"]),
        ("a cat that sleeps", None),
    ]


def test_parquet_with_images_of_any_form_and_a_key(place: Path) -> None:
    images = [{"bytes": picture(number), "path": None} for number in range(4)]
    path = parquet(place / "pairs.parquet", photo=images, TEXT=CAPTIONS, id=[7, 8, 9, 10], link=urls())
    found = written(init(path))
    assert found == {
        "kind": "parquet", "name": "pairs", "path": str(path),
        "image_column": "photo", "url_column": "link", "caption_column": "TEXT", "key_column": "id",
    }  # fmt: skip
    assert [(row.key, row.caption) for row in rows()] == [(str(7 + n), CAPTIONS[n]) for n in range(4)]
    assert rows()[0].image == picture(0)


def test_a_key_that_comes_twice_is_none(place: Path) -> None:
    images = [picture(number) for number in range(4)]
    parquet(place / "parts" / "a.parquet", image=images, caption=CAPTIONS, id=["a", "b", "c", "d"])
    parquet(place / "parts" / "b.parquet", image=images, caption=CAPTIONS, id=["d", "e", "f", "g"])
    assert written(init("parts")) == {"kind": "parquet", "name": "parts", "path": str(place / "parts")}
    assert len(rows()) == 8


def test_parquet_with_paths_of_images(place: Path) -> None:
    folder_of_images(place, sidecars=False)
    path = parquet(place / "list.parquet", file=["0.jpg", "more/1.jpg", "2.jpg", "more/3.jpg"], caption=CAPTIONS)
    assert written(init(path))["image_column"] == "file"
    names = ["0.jpg", "more/1.jpg", "2.jpg", "more/3.jpg"]
    assert [row.image for row in rows()] == [LocalFile(place / name, place) for name in names]


def test_names_of_images_that_are_nowhere_are_no_images(place: Path) -> None:
    parquet(place / "list.parquet", file=[f"{n}.jpg" for n in range(4)], url=urls(), caption=CAPTIONS)
    assert written(init("list.parquet"))["kind"] == "urls"


def test_parquet_with_urls_alone_is_a_list(place: Path) -> None:
    path = parquet(place / "web.parquet", url=urls(), alt=CAPTIONS, width=[1, 2, 3, 4])
    assert written(init(path)) == {"kind": "urls", "name": "web", "path": str(path), "caption_column": "alt"}


def test_datacomps_metadata_keep_their_uids(place: Path) -> None:
    uids = [f"{number:032x}" for number in range(4)]
    path = parquet(place / "metadata" / "0.parquet", uid=uids, url=urls(), text=CAPTIONS, clip_score=[0.1] * 4)
    assert written(init("metadata")) == {"kind": "datacomp", "name": "metadata", "path": str(path.parent)}
    assert [row.uid for row in rows()] == uids


def write_csv(path: Path, header: list[str] | None, delimiter: str = ",") -> Path:
    with path.open("w", newline="") as file:
        writer = csv.writer(file, delimiter=delimiter)
        writer.writerows([*([header] if header else []), *zip(CAPTIONS, urls(), strict=True)])
    return path


def test_a_list_of_urls_as_csv_whatever_its_columns_are_called(place: Path) -> None:
    path = write_csv(place / "mine.csv", ["What it shows", "Where it is"])
    assert written(init(path)) == {
        "kind": "urls", "name": "mine", "path": str(path),
        "url_column": "Where it is", "caption_column": "What it shows",
    }  # fmt: skip
    assert [(row.url, row.caption) for row in rows()] == list(zip(urls(), CAPTIONS, strict=True))


def test_a_list_without_a_first_line_of_names(place: Path) -> None:
    path = write_csv(place / "Train-GCC.tsv", None, "\t")
    found = init(path)
    assert written(found) == {
        "kind": "urls", "name": "train_gcc", "path": str(path),
        "caption_column": "column_1", "column_names": ["column_1", "url"],
    }  # fmt: skip
    assert "the first line is already a row" in said(found)
    assert [row.caption for row in rows()] == list(CAPTIONS)


def test_a_pattern_of_compressed_json_lines_with_a_bad_line(place: Path) -> None:
    for part in range(2):
        lines = [
            json.dumps({"link": url, "caption": text}) for url, text in zip(urls(f"h{part}.org"), CAPTIONS, strict=True)
        ]
        (place / f"{part}.jsonl.gz").write_bytes(gzip.compress("\n".join(["{not json", *lines]).encode()))
    found = written(init("*.jsonl.gz", "--name", "many"))
    assert found == {"kind": "urls", "name": "many", "path": str(place / "*.jsonl.gz"), "url_column": "link"}
    assert [row.fault is None for row in rows()] == [False, *[True] * 4] * 2


def test_tars_with_captions_in_text_files(place: Path) -> None:
    members = {
        name: content
        for n, caption in enumerate(CAPTIONS)
        for name, content in ((f"{n:05d}.jpg", picture(n)), (f"{n:05d}.txt", caption.encode()))
    }
    tar(place / "shards" / "0.tar", members)
    assert written(init("shards")) == {"kind": "webdataset", "name": "shards", "path": str(place / "shards")}
    assert [row.caption for row in rows()] == list(CAPTIONS)


def test_tars_as_img2dataset_leaves_them_with_captions_and_uids_in_json(place: Path) -> None:
    members = {}
    for n, caption in enumerate(CAPTIONS):
        members[f"{n:05d}.jpg"] = picture(n)
        fields = {"caption": caption, "original_url": urls()[n], "uid": f"{n:032x}", "status": "success"}
        members[f"{n:05d}.json"] = json.dumps(fields).encode()
    tar(place / "laion" / "00000.tar", members)
    parquet(place / "laion" / "00000.parquet", url=urls(), caption=CAPTIONS)
    (place / "laion" / "00000_stats.json").write_text("{}")
    assert written(init("laion")) == {
        "kind": "webdataset", "name": "laion", "path": str(place / "laion"),
        "caption_field": "caption", "url_field": "original_url", "uid_field": "uid",
    }  # fmt: skip
    assert [(row.caption, row.url) for row in rows()] == list(zip(CAPTIONS, urls(), strict=True))


def test_a_dataset_that_was_saved_to_disk(place: Path) -> None:
    datasets = pytest.importorskip("datasets")
    values = {"img": [Image.new("RGB", (8, 8), (n, n, n)) for n in range(4)], "title": list(CAPTIONS)}
    features = datasets.Features({"img": datasets.Image(), "title": datasets.Value("string")})
    datasets.DatasetDict({"test": datasets.Dataset.from_dict(values, features)}).save_to_disk(str(place / "saved"))
    wrong = init("saved")
    assert wrong.exit_code == 1
    assert "no split 'train'; there are: test" in said(wrong)
    assert written(init("saved", "--split", "test")) == {
        "kind": "hf", "name": "saved", "path": str(place / "saved"), "split": "test",
        "image_column": "img", "caption_column": "title",
    }  # fmt: skip
    assert [row.caption for row in rows()] == list(CAPTIONS)


def test_a_dataset_of_the_hub_that_cannot_be_reached_is_written_by_its_name_alone(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    datasets = pytest.importorskip("datasets")

    def unreachable(*_: object, **__: object) -> None:
        raise ConnectionError("Couldn't reach 'owner/set' on the Hub")

    monkeypatch.setattr(datasets, "load_dataset_builder", unreachable)
    found = init("owner/set", "--caption-column", "blip_caption")
    assert written(found) == {
        "kind": "hf", "name": "set", "repository": "owner/set",
        "image_column": "image", "caption_column": "blip_caption",
    }  # fmt: skip
    assert "nothing was looked at" in said(found)
    assert "check the names of the columns" in said(found)
    assert "rows in" not in said(found)


def test_a_dataset_of_the_hub_is_looked_at_where_it_can_be_reached(
    place: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    buffer = io.BytesIO()
    images = [{"bytes": picture(n), "path": f"{n}.jpg"} for n in range(4)]
    pq.write_table(pa.table({"image": images, "blip": CAPTIONS, "link": urls()}), buffer)
    monkeypatch.setattr(Hub, "data", buffer.getvalue())
    with serving_hub() as endpoint:
        done = subprocess.run(
            [sys.executable, "-m", "dqe_assets.cli", "init", "org/set"],
            env={**os.environ, **hub_environment(endpoint, place), "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            check=False,
        )
    assert done.returncode == 0, done.stderr
    assert "source set, kind hf: 4 rows in 1 shard" in done.stdout
    (source,) = yaml.safe_load((place / "data" / "dqe.yaml").read_text())["sources"]
    assert source == {
        "kind": "hf", "name": "set", "repository": "org/set",
        "image_column": "image", "url_column": "link", "caption_column": "blip",
    }  # fmt: skip


def no_images(folder: Path) -> Path:
    (folder / "notes").mkdir(parents=True)
    (folder / "notes" / "a.txt").write_text("a red square")
    return folder


def two_kinds(folder: Path) -> Path:
    parquet(folder / "a.parquet", url=urls(), caption=CAPTIONS)
    write_csv(folder / "b.csv", ["caption", "url"])
    return folder


def without_captions(path: Path) -> Path:
    return parquet(path.with_suffix(".parquet"), url=urls(), width=[1, 2, 3, 4])


def with_two_captions(path: Path) -> Path:
    return parquet(path.with_suffix(".parquet"), url=urls(), seen=CAPTIONS, said=CAPTIONS[::-1])


def with_two_urls(path: Path) -> Path:
    return parquet(path.with_suffix(".parquet"), page=urls("a.org"), photo_at=urls(), caption=CAPTIONS)


def without_urls(path: Path) -> Path:
    path.with_suffix(".csv").write_text("file,caption\n0.jpg,a red square\n")
    return path.with_suffix(".csv")


def an_image(path: Path) -> Path:
    path.with_suffix(".jpg").write_bytes(picture(0))
    return path.with_suffix(".jpg")


def something_else(path: Path) -> Path:
    path.with_suffix(".docx").write_bytes(b"PK\x03\x04")
    return path.with_suffix(".docx")


def not_parquet(path: Path) -> Path:
    path.with_suffix(".parquet").write_bytes(b"nothing of the kind")
    return path.with_suffix(".parquet")


def not_a_tar(path: Path) -> Path:
    path.with_suffix(".tar").write_bytes(b"nothing of the kind")
    return path.with_suffix(".tar")


def tar_without_captions(path: Path) -> Path:
    return tar(path.with_suffix(".tar"), {"0.jpg": picture(0), "1.jpg": picture(1)})


def empty_list(path: Path) -> Path:
    path.with_suffix(".csv").write_text("url,caption\n")
    return path.with_suffix(".csv")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path: path, "there is nothing at "),
        (no_images, "holds no images, Parquet files, tars or lists of URLs"),
        (two_kinds, "holds 1 Parquet file, 1 list. Say which by a pattern in quotes"),
        (without_captions, "which column holds the caption? There are: url, width. Say --caption-column NAME"),
        (with_two_captions, "which column holds the caption? It could be: seen, said. Say --caption-column NAME"),
        (with_two_urls, "which column holds the url? It could be: page, photo_at. Say --url-column NAME"),
        (without_urls, "no column of URLs. There are: file, caption. Say --url-column NAME"),
        (
            an_image,
            "neither a Parquet file, a tar nor a list of URLs (.csv, .tsv, .jsonl); name the folder of the images",
        ),
        (something_else, "neither a Parquet file, a tar nor a list of URLs"),
        (not_parquet, "not a Parquet file"),
        (not_a_tar, "not a tar"),
        (tar_without_captions, "no captions: neither .txt nor .json among its first files"),
        (empty_list, "holds no rows"),
    ],
)
def test_what_it_cannot_tell_it_says_and_writes_nothing(
    place: Path, make: Callable[[Path], Path], message: str
) -> None:
    found = init(make(place / "what"))
    assert found.exit_code in {1, 2}, found.output
    assert message in said(found)
    assert "Traceback" not in found.output
    assert not (place / "data" / "dqe.yaml").exists()


def test_what_was_asked_for_is_given_by_an_option(place: Path) -> None:
    path = with_two_captions(place / "what")
    assert written(init(path, "--caption-column", "said"))["caption_column"] == "said"
    wrong = init(path, "--caption-column", "none", "--force")
    assert wrong.exit_code == 2
    assert "--caption-column none: no such column. There are: url, seen, said" in said(wrong)
    wrong = init(path, "--caption-column", "said", "--name", "Not a name", "--force")
    assert wrong.exit_code == 2
    assert "--name Not a name" in said(wrong)


def test_a_dqe_yaml_that_is_there_is_overwritten_only_by_force(place: Path) -> None:
    folder_of_images(place / "images", sidecars=True)
    (place / "data").mkdir()
    (place / "data" / "dqe.yaml").write_text("sources: [{kind: sample}]\n")
    refused = init("images")
    assert refused.exit_code == 2
    assert "dqe.yaml exists already; add the source to it, or overwrite it with --force" in said(refused)
    assert f"- kind: folder name: images path: {place}/images" in said(refused)
    assert (place / "data" / "dqe.yaml").read_text() == "sources: [{kind: sample}]\n"
    assert written(init("images", "--force"))["kind"] == "folder"


def test_a_path_in_the_data_folder_counts_from_there(place: Path) -> None:
    folder_of_images(place / "data" / "images", sidecars=True)
    assert "path: images" in yaml_of(init("data/images"), place)
    assert len(rows()) == 4


def yaml_of(found: Result, place: Path) -> str:
    assert found.exit_code == 0, found.output
    return (place / "data" / "dqe.yaml").read_text()


def test_the_file_points_to_its_schema_and_keeps_the_rest_of_the_platforms_own(place: Path) -> None:
    folder_of_images(place / "images", sidecars=True)
    text = yaml_of(init("images"), place)
    assert text.splitlines()[0] == "# yaml-language-server: $schema=dqe.schema.json"
    assert (place / "data" / "dqe.schema.json").read_text() == settings_schema_text()
    assert "    # shard_size: 10000  # Rows in a shard.\n" in text
    made, default = yaml.safe_load(text), yaml.safe_load(default_settings())
    assert {**made, "sources": default["sources"]} == default


def test_the_platforms_own_settings_are_those_of_the_data_folder() -> None:
    assert default_settings() == (ROOT / "data" / "dqe.yaml").read_text()
