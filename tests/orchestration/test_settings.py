from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import yaml

from dqe_assets.orchestration.settings import SettingsError, load_settings
from dqe_resources.sources.protocol import SourceError

if TYPE_CHECKING:
    from pathlib import Path

SAMPLE = {"kind": "sample"}
FOLDER = {"kind": "folder", "name": "x", "path": "/"}


def write(data: Path, **values: object) -> None:
    (data / "dqe.yaml").write_text(yaml.safe_dump({"sources": [SAMPLE], **values}))


def test_the_settings_that_come_with_the_project_load(data: Path) -> None:
    settings = load_settings({})
    assert [source.name for source in settings.sources] == ["sample"]
    assert settings.caption_sources == ["original", "labels"]
    assert settings.opened_store.root == str(data / "store")
    assert settings.ingest.source_of("sample-00003") is settings.sources[0]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (
            {"sorces": []},
            r"dqe\.yaml: unknown key 'sorces'; allowed: automation, best, caption_mixes, .*, sources, store",
        ),
        ({"sources": []}, r"dqe\.yaml: sources: needs at least 1 in the list"),
        (
            {"sources": [{"kind": "smaple"}]},
            r"sources\.0: kind 'smaple' is not known; allowed: datacomp, folder, hf, parquet, sample, sbu",
        ),
        (
            {"sources": [{"name": "x"}]},
            r"sources\.0: needs the key 'kind', one of: datacomp, folder, hf, parquet, sample, sbu",
        ),
        ({"sources": [{"kind": "sample", "shards": 3}]}, r"sources\.0: unknown key 'shards'; allowed: .*shard_size"),
        (
            {"sources": [{"kind": "sample", "shard_size": "many"}]},
            r"shard_size: expected a whole number \(found 'many'\)",
        ),
        (
            {"sources": [{"kind": "sample", "name": "My photos"}]},
            r"sources\.0\.name: expected a name: a small letter a to z, then up to 63 small letters, .* 'My photos'\)",
        ),
        (
            {"sources": [{"kind": "hf", "name": "x", "path": "nlphuji/flickr30k", "image_column": "image"}]},
            r"path: there is nothing at .*flickr30k: .* hub is named by repository: nlphuji/flickr30k",
        ),
        ({"sources": [{**FOLDER, "caption_column": 3}]}, r"sources\.0\.caption_column: expected text \(found 3\)"),
        ({"sources": [{**FOLDER, "allow_outside": "?"}]}, r"allow_outside: expected true or false \(found '\?'\)"),
        ({"sources": [{**FOLDER, "min_success_rate": "x"}]}, r"min_success_rate: expected a number \(found 'x'\)"),
        ({"sources": [{**FOLDER, "path": 5}]}, r"sources\.0\.path: expected a path \(found 5\)"),
        ({"sources": {"a": 1}}, r"dqe\.yaml: sources: expected a list$"),
        ({"duplicates": 5}, r"duplicates: expected keys with values \(found 5\)"),
        ({"refetch": "some"}, r"refetch: expected 'transient', 'failed' or 'all' \(found 'some'\)"),
        ({"filters": {"My filter": "basic"}}, r"filters\.My filter.*: expected a name: a small letter a to z, then"),
        ({"subsets": [{"name": "A", "expression": "basic"}]}, r"subsets\.0\.name: expected a name: a small"),
        ({"vectors": {"kind": "server", "url": "here"}}, r"vectors\.url: expected a URL such as http://localhost:6333"),
        ({"shards_per_run": 1.5}, r"shards_per_run: expected a whole number \(found 1\.5\)"),
        ({"sources": [{"kind": "folder", "name": "x", "path": "/no/such"}]}, r"sources\.0\.path: there is nothing at"),
        ({"sources": [{"kind": "folder", "name": "x"}]}, r"sources\.0\.path: is missing"),
        ({"sources": [SAMPLE, SAMPLE]}, "sources: the name 'sample' is used twice; rename one"),
        (
            {"evaluation": {"tasks": [{"path": "tasks/walls", "scales": ["small"]}]}},
            "evaluation.tasks: walls: no run of training.runs has the scale 'small'; there are: none",
        ),
        ({"captioners": [{"kind": "labels", "name": "original"}]}, "captioners: the name 'original' is reserved"),
        (
            {"captioners": [{"kind": "blip", "name": "x"}]},
            r"captioners\.0: kind 'blip' is not known; allowed: .*labels",
        ),
        ({"scorer": {"kind": "label_space", "device": "cuda"}}, "scorer: unknown key 'device'"),
        ({"duplicates": {"min_cosine": 1.5}}, r"duplicates\.min_cosine: must be at most 1"),
        ({"best": {"by": ["beauty"]}}, r"best\.by\.0: expected 'similarity', 'judgement' or 'vqa'"),
        ({"best": {"by": ["similarity", "similarity"]}}, r"best\.by: 'similarity' is listed twice"),
        ({"best": {"avoid": ["ugly"]}}, r"best\.avoid: there is no flag 'ugly'; there are: cut_off, empty, .*"),
        ({"best": {"sources": ["original", "vlm"]}}, r"best\.sources: there are no captions of 'vlm'; allowed: ori"),
        ({"best": {"min_words": 9, "max_words": 8}}, r"best: max_words \(8\) is less than min_words \(9\)"),
        (
            {"training": {"runs": [{"subsets": ["rest"], "scale": "small"}]}},
            "training.runs: there is no subset 'rest'; allowed: all, best",
        ),
        (
            {"training": {"runs": [{"subsets": ["best"], "scale": "small", "captions": "vlm"}]}},
            "training.runs: there is no captions 'vlm'; allowed: original, best",
        ),
        ({"shards_per_run": 0}, r"shards_per_run: must be at least 1 \(found 0\)"),
    ],
)
def test_what_is_wrong_is_refused_with_the_file_the_key_and_what_is_allowed(
    data: Path, values: dict[str, object], message: str
) -> None:
    write(data, **values)
    with pytest.raises(SettingsError, match=message) as caught:
        load_settings({})
    assert str(data / "dqe.yaml") in str(caught.value)


def test_a_source_may_be_away_until_it_is_read(data: Path) -> None:
    (data / "folder").mkdir()
    sources = [
        {"kind": "folder", "name": "a", "path": "away"},
        {"kind": "parquet", "name": "b", "path": "away/*.parquet"},
        {"kind": "hf", "name": "c", "path": "away", "image_column": "image"},
        {"kind": "sbu", "name": "d", "urls": "away.txt", "captions": "away.txt"},
        {"kind": "webdataset", "name": "e", "path": "away/*.tar"},
        {"kind": "urls", "name": "f", "path": "away.csv"},
        {"kind": "datacomp", "name": "g", "path": "away"},
    ]
    write(data, sources=sources)
    with pytest.raises(SettingsError) as caught:
        load_settings({})
    assert str(caught.value).count("there is nothing at") == 8
    for source in load_settings({}, sources_may_be_away=True).sources:
        with pytest.raises(SourceError, match="away"):
            list(source.shards())
    write(data, sources=[{"kind": "folder", "name": "a", "path": "dqe.yaml"}])
    with pytest.raises(SettingsError, match=r"dqe\.yaml is a file; the kind folder needs a folder"):
        load_settings({}, sources_may_be_away=True)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("sources: [", r"dqe\.yaml: not YAML: .*line 1"),
        (
            "- a\n- b\n",
            r"dqe\.yaml: expected keys and values; allowed keys: automation, best, caption_mixes, captioners",
        ),
        ("", "expected keys and values"),
    ],
)
def test_a_file_that_is_no_mapping_is_refused(data: Path, text: str, message: str) -> None:
    (data / "dqe.yaml").write_text(text)
    with pytest.raises(SettingsError, match=message):
        load_settings({})


def test_a_missing_file_says_where_it_was_looked_for(data: Path) -> None:
    (data / "dqe.yaml").unlink()
    with pytest.raises(SettingsError, match=r"dqe\.yaml: not there; .*DQE_DATA"):
        load_settings({})


def test_the_environment_overrides_and_is_named_when_wrong(data: Path) -> None:
    server = {"DQE_QDRANT_URL": "http://localhost:6333"}
    assert load_settings(server | {"DQE_STORE": "s3://bucket/x"}).opened_store.root == "s3://bucket/x"
    assert load_settings(server).vectors.kind == "server"
    with pytest.raises(SettingsError, match=r"^DQE_SHARDS_PER_RUN: shards_per_run: .*'few'"):
        load_settings({"DQE_SHARDS_PER_RUN": "few"})


def test_an_embedded_collection_is_refused_where_the_store_is_for_several_machines(data: Path) -> None:
    assert data.exists()
    assert load_settings({"DQE_STORE": f"file://{data}/store"}).vectors.kind == "embedded"
    with pytest.raises(SettingsError, match=r"vectors: kind embedded .*s3://bucket/x.*kind: server, url"):
        load_settings({"DQE_STORE": "s3://bucket/x"})


def test_relative_paths_count_from_the_settings_file(data: Path) -> None:
    (data / "mine").mkdir()
    write(data, sources=[{"kind": "folder", "name": "mine", "path": "mine"}])
    assert load_settings({}).sources[0].model_dump()["path"] == data / "mine"


def test_a_shard_of_no_source_is_refused(data: Path) -> None:
    with pytest.raises(SourceError, match="shard web-00000 belongs to no configured source; there are: sample"):
        load_settings({}).ingest.source_of("web-00000")
