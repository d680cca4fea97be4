from __future__ import annotations

import hashlib
import io
import json
import os
import shlex
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
import yaml
from PIL import Image

from dqe_assets.ingest.tables import RAW_SAMPLES
from dqe_assets.publish.captions import CaptionReader
from dqe_assets.publish.card import pictures
from dqe_assets.publish.dataset import Request, publish
from dqe_assets.publish.formats import Shards
from dqe_assets.publish.output import write_files
from dqe_assets.publish.places import place_of
from dqe_assets.publish.places.protocol import File
from dqe_assets.publish.selection import PublishError, select
from dqe_assets.score.tables import JOINT_EMBEDDINGS
from dqe_assets.training.samples import StoreShard
from dqe_resources.locks import HeldError
from tests.conftest import ROOT, dqe, environment

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager
    from pathlib import Path

    from dqe_assets.orchestration.settings import Settings

WELL_ALIGNED = "original_similarity >= 0.2 AND NOT is_duplicate"


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def chosen_by_hand(settings: Settings, condition: str, caption: str) -> list[tuple[str, str]]:
    """Uid and caption of each sample, in the order of the store."""
    source = "coalesce(best_source, 'original')" if caption == "best" else f"'{caption}'"
    with settings.warehouse.connect() as connection:
        return connection.execute(
            f"""SELECT uid,
                (SELECT c.caption FROM captions c WHERE c.uid = s.uid AND c.caption_source = {source}) AS text
            FROM samples s WHERE status = 'ok' AND {condition} AND trim(text) <> '' ORDER BY shard, "row" """
        ).fetchall()


def test_datasets_and_webdataset_give_the_same_samples(
    opened: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    datasets, webdataset = pytest.importorskip("datasets"), pytest.importorskip("webdataset")
    for kind in ("hf", "webdataset"):
        publish(opened, tmp_path / kind, Request("NOT is_duplicate OR width > 500", "best", kind, 40))
    expected = chosen_by_hand(opened, "(NOT is_duplicate OR width > 500)", "best")
    assert len(expected) > 80
    assert len({len(text) for _, text in expected}) > 20

    dataset = datasets.load_dataset(str(tmp_path / "hf"), cache_dir=str(tmp_path / "cache"), split="train")
    assert isinstance(dataset.features["image"], datasets.Image)
    assert list(zip(dataset["uid"], dataset["caption"], strict=True)) == expected
    undecoded = dataset.cast_column("image", datasets.Image(decode=False))
    tars = sorted(str(path) for path in (tmp_path / "webdataset" / "data").glob("*.tar"))
    assert len(tars) == -(-len(expected) // 40)
    samples = list(webdataset.WebDataset(tars, shardshuffle=False))
    assert len(samples) == len(dataset)
    for row, picture, sample in zip(undecoded, dataset["image"], samples, strict=True):
        extension = row["image"]["path"].rpartition(".")[2]
        data = row["image"].pop("bytes")
        assert sample["__key__"] == row["uid"]
        assert sample[extension] == data
        assert sample["txt"].decode() == row["caption"]
        assert json.loads(sample["json"]) == {name: value for name, value in row.items() if name != "image"}
        assert row["sha256"] == hashlib.sha256(data).hexdigest()
        assert sum(one["weight"] for one in row["captions"]) == pytest.approx(1)
        of_source = {one["source"]: one for one in row["captions"]}
        chosen = of_source[row["caption_source"]]
        assert (chosen["text"], chosen["similarity"]) == (row["caption"], row["similarity"])
        assert picture.size == (row["width"], row["height"])
        with Image.open(io.BytesIO(data)) as image:
            assert image.getexif().get(0x0112, 1) == 1
    assert {row["caption_source"] for row in undecoded} == {"original", "labels"}


def test_the_schema_in_the_file_is_that_which_datasets_writes(opened: Settings, tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    publish(opened, tmp_path / "out", Request(WELL_ALIGNED, "original", "hf", 1000))
    schema = pq.read_schema(tmp_path / "out" / "data" / "train-00000-of-00001.parquet")
    features = datasets.Features.from_arrow_schema(schema)
    assert schema.metadata[b"huggingface"] == features.arrow_schema.metadata[b"huggingface"]
    assert (schema.names, schema.types) == (features.arrow_schema.names, features.arrow_schema.types)


def test_a_source_is_drawn_as_often_as_its_weight_says(opened: Settings, tmp_path: Path) -> None:
    request = Request(WELL_ALIGNED, "original", "hf", 1000, weights=(("labels", 2.0),))
    assert publish(opened, tmp_path / "out", request)["caption_weights"] == {"original": 0.0, "labels": 2.0}
    (file,) = (tmp_path / "out" / "data").iterdir()
    for captions in pq.read_table(file)["captions"].to_pylist():
        assert {one["source"]: one["weight"] for one in captions} == {"original": 0.0, "labels": 1.0}
    with pytest.raises(PublishError, match="--weight nobody: there is no such caption source; there are: original, la"):
        publish(opened, tmp_path / "other", Request("true", "best", "hf", 1000, weights=(("nobody", 1.0),)))


def test_the_manifest_and_the_card_say_what_was_done(opened: Settings, tmp_path: Path) -> None:
    where = f"{WELL_ALIGNED} AND uid IN (SELECT uid FROM filter_masks WHERE basic)"
    manifest = publish(opened, tmp_path / "out", Request(where, "original", "hf", 5))
    assert json.loads((tmp_path / "out" / "manifest.json").read_text()) == manifest
    written = contents(tmp_path / "out")
    del written["manifest.json"]
    assert {name: (len(data), hashlib.sha256(data).hexdigest()) for name, data in written.items()} == {
        file["name"]: (file["bytes"], file["sha256"]) for file in manifest["files"]
    }
    terms = where.split(" AND ")
    assert [step["condition"] for step in manifest["selection"]["steps"]] == terms
    with opened.warehouse.connect() as connection:
        for number, step in enumerate(manifest["selection"]["steps"]):
            for key, kept in (("alone", terms[number]), ("left", " AND ".join(terms[: number + 1]))):
                query = f"SELECT count(*) FROM samples WHERE status = 'ok' AND {kept}"
                assert connection.execute(query).fetchall() == [(step[key],)]
    assert manifest["samples"] == manifest["selection"]["steps"][-1]["left"]
    assert {one["asset"] for one in manifest["lineage"]["assets"]} >= {"raw_samples", "caption_scores"}
    assert manifest["selection"]["filters"] == {"basic": "basic_filter()"}

    card = written["README.md"].decode()
    front = yaml.safe_load(card.split("---\n")[1])
    assert front["configs"] == [
        {"config_name": "default", "data_files": [{"split": "train", "path": "data/train-*.parquet"}]}
    ]
    assert (front["license"], front["size_categories"]) == ("other", ["n<1K"])
    assert f"    {where}\n" in card
    assert "dahlia: vultilion on Flickr, CC BY 2.0" in card
    assert f"| samples | 234 | {manifest['samples']} |" in card
    assert "| sample | " in card
    for name in ("similarity.png", "selection.png"):
        assert len(written[name]) < 60_000
        with Image.open(io.BytesIO(written[name])) as image:
            assert image.width > 600


def test_a_condition_and_a_name_are_harmless_in_the_card(opened: Settings, tmp_path: Path) -> None:
    where = "caption <> '```\n---\n<script>alert(1)</script> | [x](y) $a$' AND NOT is_duplicate"
    publish(opened, tmp_path / "out", Request(where, "original", "datacomp", 1000))
    card = (tmp_path / "out" / "README.md").read_text()
    outside_of_code = [line for line in card.splitlines()[20:] if not line.startswith("    ")]
    assert not [line for line in outside_of_code if "<script" in line.replace("\\<", "") or line.startswith("```")]


def test_metadata_is_a_pool_of_datacomp(opened: Settings, finished: Path, tmp_path: Path) -> None:
    publish(opened, tmp_path / "out", Request("width >= 200", "original", "datacomp", 50))
    expected = chosen_by_hand(opened, "width >= 200", "original")
    files = sorted((tmp_path / "out" / "metadata").glob("*.parquet"))
    table = pa.concat_tables(pq.read_table(file) for file in files)
    assert [len(pq.read_table(file)) for file in files[:-1]] == [50] * (len(files) - 1)
    assert list(zip(table["uid"].to_pylist(), table["text"].to_pylist(), strict=True)) == expected
    stored = pa.concat_tables(
        opened.opened_store.read("raw_samples", f"sample-{n:05d}", RAW_SAMPLES, ["uid", "sha256"]) for n in range(4)
    )
    digests = dict(zip(stored["uid"].to_pylist(), stored["sha256"].to_pylist(), strict=True))
    assert table["sha256"].to_pylist() == [digests[uid] for uid, _ in expected]
    pool = str(tmp_path / "out" / "metadata")
    done = dqe(finished, "filter", pool, "--expr", "basic_filter", "--out", str(tmp_path / "subset.npy"))
    assert done.returncode == 0, done.stderr
    basic = "width >= 200 AND uid IN (SELECT uid FROM filter_masks WHERE basic)"
    assert len(np.load(tmp_path / "subset.npy")) == len(chosen_by_hand(opened, basic, "original"))


Answer = dict[str, tuple[float, dict[str, Any]]]
"""Score and payload of every point that a search found, by uid."""


@contextmanager
def in_client(folder: Path) -> Iterator[Callable[[list[float], str], Answer]]:
    """Loads published vectors, twice, as their own script does, and searches all of them with qdrant-client."""
    from qdrant_client import QdrantClient

    samples = json.loads((folder / "manifest.json").read_text())["samples"]
    for _ in range(2):
        loaded = subprocess.run(
            [sys.executable, folder / "load_vectors.py", "samples", folder / "qdrant"],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert loaded.returncode == 0, loaded.stderr
        assert loaded.stdout == f"{samples:,} points\n"
    client = QdrantClient(path=str(folder / "qdrant"))
    assert client.count("samples").count == samples

    def search(vector: list[float], name: str) -> Answer:
        points = client.query_points("samples", query=vector, using=name, limit=400).points
        return {point.id.replace("-", ""): (point.score, point.payload) for point in points}

    yield search
    client.close()


@contextmanager
def in_edge(folder: Path) -> Iterator[Callable[[list[float], str], Answer]]:
    """Loads published vectors into a new shard of the embedded engine, and searches all of them."""
    from qdrant_edge import (
        Distance,
        EdgeConfig,
        EdgeShard,
        EdgeVectorParams,
        Point,
        Query,
        QueryRequest,
        SearchParams,
        UpdateOperation,
    )  # fmt: skip

    table = pq.read_table(folder / "vectors")
    sizes = {field.name: field.type.list_size for field in table.schema if field.name.startswith("vector_")}
    points = []
    for row in table.to_pylist():
        named = {name.removeprefix("vector_"): row.pop(name) for name in sizes}
        points.append(Point(row["uid"], {name: vector for name, vector in named.items() if vector}, row))
    (folder / "edge").mkdir()
    params = {name.removeprefix("vector_"): EdgeVectorParams(size, Distance.Cosine) for name, size in sizes.items()}
    shard = EdgeShard.create(str(folder / "edge"), EdgeConfig(vectors=params))
    shard.update(UpdateOperation.upsert_points(points))

    def search(vector: list[float], name: str) -> Answer:
        query = Query.Nearest(vector, using=name)
        request = QueryRequest(limit=400, query=query, params=SearchParams(exact=True), with_payload=True)
        return {point.id.hex: (point.score, point.payload) for point in shard.query(request)}

    yield search
    shard.close()


@pytest.mark.parametrize("loaded", [in_client, in_edge])
def test_vectors_load_into_another_qdrant_with_the_same_neighbours(
    opened: Settings, tmp_path: Path, loaded: Callable[..., AbstractContextManager[Callable[..., Answer]]]
) -> None:
    request = Request("md5_number_lower(uid) % 2 = 0", "best", "datacomp", 40, vectors=True)
    manifest = publish(opened, tmp_path / "out", request)
    table = pq.read_table(tmp_path / "out" / "vectors")
    assert table.schema.field("vector_image").type == pa.list_(pa.float32(), opened.scorer.dimension)
    assert set(manifest["vectors"]) == {"image", *opened.caption_sources}
    published = {row["uid"]: row for row in table.to_pylist()}
    with opened.vectors.open() as collection, loaded(tmp_path / "out") as search:
        for name in manifest["vectors"]:
            stored = opened.opened_store.read("joint_embeddings", "sample-00002", JOINT_EMBEDDINGS)
            query = stored.filter(pc.and_(pc.equal(stored["item"], name), pc.is_valid(stored["embedding"])))
            query = query.filter(pc.is_in(query["uid"], value_set=table["uid"]))
            vector = np.asarray(query["embedding"][7].as_py(), np.float32)
            here = [hit for hit in collection.search(vector, name, 400) if hit.uid in published]
            there = search(vector.tolist(), name)
            assert len(here) == len(there) > 80
            assert [there[hit.uid][0] for hit in here] == pytest.approx([hit.score for hit in here], abs=2e-4)
            assert max(score for score, _ in there.values()) == pytest.approx(1, abs=1e-3)
            for uid, (_, payload) in there.items():
                known = {key: value for key, value in published[uid].items() if not key.startswith("vector_")}
                assert {key: payload.get(key) for key in known} == pytest.approx(known, abs=1e-6)


def test_the_same_request_gives_the_same_bytes_and_is_done_only_once(opened: Settings, tmp_path: Path) -> None:
    request = Request(WELL_ALIGNED, "best", "webdataset", 7, vectors=True)
    first = publish(opened, tmp_path / "a", request)
    publish(opened, tmp_path / "b", request)
    before = contents(tmp_path / "a")
    assert before == contents(tmp_path / "b")
    times = {path: path.stat().st_mtime_ns for path in (tmp_path / "a").rglob("*") if path.is_file()}
    assert publish(opened, tmp_path / "a", request) == first
    assert times == {path: path.stat().st_mtime_ns for path in (tmp_path / "a").rglob("*") if path.is_file()}
    (tmp_path / "a" / "data" / "00000001.tar").write_bytes(b"cut")
    publish(opened, tmp_path / "a", request)
    assert contents(tmp_path / "a") == before


@pytest.mark.parametrize(
    "request_",
    [
        Request(WELL_ALIGNED, "original", "hf", 7),
        Request(WELL_ALIGNED, "best", "webdataset", 7),
        Request(f"{WELL_ALIGNED} AND width > 300", "best", "hf", 7),
        Request(WELL_ALIGNED, "best", "hf", 8),
    ],
)
def test_a_folder_that_holds_another_publication_is_refused(
    opened: Settings, tmp_path: Path, request_: Request
) -> None:
    publish(opened, tmp_path / "out", Request(WELL_ALIGNED, "best", "hf", 7))
    before = contents(tmp_path / "out")
    with pytest.raises(PublishError, match="holds something else, or what was published with another condition"):
        publish(opened, tmp_path / "out", request_)
    assert contents(tmp_path / "out") == before


def test_a_folder_or_file_of_someone_else_is_refused(opened: Settings, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(PublishError, match="holds something else"):
        publish(opened, tmp_path, Request(WELL_ALIGNED, "best", "hf", 7))
    with pytest.raises(PublishError, match="is a file"):
        publish(opened, tmp_path / "notes.txt", Request(WELL_ALIGNED, "best", "hf", 7))
    assert contents(tmp_path) == {"notes.txt": b"mine"}


def test_two_runs_do_not_write_to_one_folder(tmp_path: Path) -> None:
    def inside(_: object) -> None:
        with pytest.raises(HeldError, match="another run is writing to it"):
            write_files(place_of(tmp_path / "out"), {}, [])

    write_files(place_of(tmp_path / "out"), {}, [File("a", 1, inside)])
    assert sorted(contents(tmp_path / "out")) == ["a", "manifest.json"]


def test_killed_it_goes_on_where_it_was(finished: Path, tmp_path: Path) -> None:
    arguments = ["--where", "true", "--caption", "best", "--shard-size", "6", "--format", "webdataset"]
    whole = dqe(finished, "publish", str(tmp_path / "whole"), *arguments)
    assert whole.returncode == 0, whole.stderr
    out = tmp_path / "out"
    with subprocess.Popen(
        [sys.executable, "-m", "dqe_assets.cli", "publish", str(out), *arguments],
        env=environment(finished), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
    ) as run:  # fmt: skip
        while len(list(out.glob("data/*.tar"))) < 3:
            assert run.poll() is None, run.stderr and run.stderr.read()
            time.sleep(0.005)
        os.kill(run.pid, signal.SIGKILL)
    expected = contents(tmp_path / "whole")
    there = {name: data for name, data in contents(out).items() if name.endswith(".tar")}
    assert 3 <= len(there) < len([name for name in expected if name.endswith(".tar")])
    assert all(expected[name] == data for name, data in there.items())
    assert not (out / "manifest.json").exists()
    recorded = {file["name"] for file in json.loads((out / "unfinished.json").read_text())["files"]}
    times = {name: (out / name).stat().st_mtime_ns for name in recorded}
    assert recorded
    (out / "data" / ".00000003.tar.0.tmp").write_bytes(b"torn")
    again = dqe(finished, "publish", str(out), *arguments)
    assert again.returncode == 0, again.stderr
    assert contents(out) == expected
    assert times == {name: (out / name).stat().st_mtime_ns for name in recorded}


@pytest.mark.parametrize(
    ("condition", "caption", "message"),
    [
        (
            "widht > 300",
            "best",
            r"--where: .*widht.*; the columns of samples are: uid, source, shard, .*cluster, .*, contaminated$",
        ),
        ("width >", "best", r"--where: not an SQL condition: "),
        ("true) OR (true", "best", r"--where: brackets do not match: true\) OR \(true$"),
        ("true, true", "best", r"--where: expected a condition that is true or false, this gives struct"),
        ("width > 3 AND\n height >", "best", r"--where: not an SQL condition: .* width > 3 AND height >$"),
        ("true; DROP TABLE samples", "best", r"--where: not"),
        ("true) UNION SELECT (true", "best", r"--where: not"),
        ("width", "best", r"--where: expected a condition that is true or false, this gives int32: width$"),
        ("random() < 0.5 AND width > 3", "best", r"--where: random\(\) can give another value each time"),
        ("current_date > DATE '2020-01-01'", "best", r"--where: current_date\(\) can give another value each time"),
        ("caption IN (SELECT content FROM read_text('/etc/hostname'))", "best", r"only the warehouse can be read"),
        ("true", "gpt", r"--caption gpt: there are no such captions; there are: best, labels, original$"),
        (
            "width > 100 AND original_similarity > 2 AND NOT is_duplicate",
            "best",
            r"^nothing to publish: of 234 .* by themselves, width > 100 keeps \d+; .* > 2 keeps 0; NOT is_du.* \d+$",
        ),
        ("width > 9999", "best", r"^nothing to publish: of 234 samples with an image, width > 9999 keeps 0$"),
        ("caption IS NULL", "original", r"samples fulfil the condition, but none of them has a caption of original"),
        ("width / (height - height) > 1 AND caption::INTEGER = 3", "best", r"--where: Conversion Error"),
    ],
)
def test_what_cannot_be_published_is_one_clear_line(
    opened: Settings, tmp_path: Path, condition: str, caption: str, message: str
) -> None:
    with pytest.raises((PublishError, ValueError), match=message) as error:
        publish(opened, tmp_path / "out", Request(condition, caption, "hf", 7))
    assert "\n" not in str(error.value)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("condition", "terms"),
    [
        ("width BETWEEN 100 AND 900 AND NOT is_duplicate", ["width BETWEEN 100 AND 900", "NOT is_duplicate"]),
        ("(width > 9 OR height > 9) and caption <> 'a AND b'", ["(width > 9 OR height > 9)", "caption <> 'a AND b'"]),
        ("caption <> 'é ü' AND width > 9", ["caption <> 'é ü'", "width > 9"]),
        ("width > 9 OR height > 9 AND is_duplicate", ["width > 9 OR height > 9 AND is_duplicate"]),
        ("width > 9 -- AND\n AND is_duplicate", ["width > 9 -- AND\n AND is_duplicate"]),
    ],
)
def test_the_terms_of_a_condition_are_told_apart(opened: Settings, condition: str, terms: list[str]) -> None:
    with opened.warehouse.session() as query:
        assert [step.condition for step in select(query, condition, "best").steps] == terms


def test_samples_without_a_caption_of_the_rule_are_left_out_and_counted(opened: Settings) -> None:
    with opened.warehouse.session() as query:
        selection = select(query, "true", "original")
        assert pictures(query, selection)["selection.png"].startswith(b"\x89PNG")
    assert selection.total == len(chosen_by_hand(opened, "true", "original")) < selection.samples
    assert selection.without_caption == selection.samples - selection.total


def test_a_store_that_has_changed_since_is_not_published(opened: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    read: Callable[..., Any] = StoreShard.pictures
    with opened.warehouse.session() as query:
        captions = CaptionReader(opened.opened_store, {"original": 1.0})
        shards = Shards(opened.opened_store, query, select(query, "true", "best"), captions)
        monkeypatch.setattr(StoreShard, "pictures", lambda self, wanted: list(read(self, wanted))[1:].__iter__())
        with pytest.raises(PublishError, match="sample-00000: has changed since the warehouse was built; run"):
            shards.write_images(io.BytesIO(), 0, 10)


def test_a_warehouse_that_is_not_current_is_not_published(data: Path, tmp_path: Path) -> None:
    refused = dqe(data, "publish", str(tmp_path / "out"))
    assert refused.returncode == 1
    assert "run: dqe materialize" in refused.stderr
    wrong = dqe(data, "publish", str(tmp_path / "out"), "--format", "zip")
    assert "'zip' is not one of 'hf', 'webdataset', 'datacomp'" in wrong.stderr


GOOD = "original_similarity >= 0.2 AND NOT is_duplicate"
BASIC = "least(width, height) >= 200 AND uid IN (SELECT uid FROM filter_masks WHERE basic)"


@pytest.mark.parametrize(
    ("page", "folder", "opened_by", "condition", "caption"),
    [
        ("README.md", "aligned", 'load_dataset("{folder}")', GOOD, "best"),
        ("docs/publish.md", "training", "{folder}/data/{{00000000..00000000}}.tar", f"{GOOD} AND {BASIC}", "original"),
    ],
)
def test_the_lines_of_the_pages_are_true(
    finished: Path,
    opened: Settings,
    tmp_path: Path,
    page: str,
    folder: str,
    opened_by: str,
    condition: str,
    caption: str,
) -> None:
    lines = (ROOT / page).read_text().splitlines()
    (line,) = (line for line in lines if line.startswith(f"    dqe publish {folder} "))
    program, command, _, *options = shlex.split(line)
    assert (program, command) == ("dqe", "publish")
    target = tmp_path / folder
    done = dqe(finished, command, str(target), *options)
    assert done.returncode == 0, done.stderr
    assert opened_by.format(folder=target) in done.stdout.splitlines()[-1]
    samples = json.loads((target / "manifest.json").read_text())["samples"]
    assert samples == len(chosen_by_hand(opened, condition, caption)) > 0


def test_a_licence_of_a_source_changes_nothing_that_is_made_of_it(opened: Settings) -> None:
    (source,) = opened.sources
    assert source.model_copy(update={"license": "cc0-1.0"}).signature() == source.signature()
    assert "license" not in source.signature()
