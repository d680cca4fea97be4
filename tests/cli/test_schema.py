"""The JSON Schema of dqe.yaml: it describes every key, and accepts what is accepted when the file is loaded."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import jsonschema
import pytest
import yaml
from pydantic import BaseModel, ValidationError

from dqe_assets.cli.settings_schema import SCHEMA_FILE, settings_schema, settings_schema_text
from dqe_assets.orchestration.settings import Settings
from dqe_resources.configurable import Strict
from tests.conftest import ROOT, dqe

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SCHEMA = settings_schema()


def subclasses(cls: type[BaseModel]) -> Iterator[type[BaseModel]]:
    for one in cls.__subclasses__():
        yield one
        yield from subclasses(one)


def is_valid(settings: Any) -> bool:
    """Whether the schema accepts it, by both drafts that editors know."""
    verdicts = {
        draft(SCHEMA).is_valid(settings) for draft in (jsonschema.Draft7Validator, jsonschema.Draft202012Validator)
    }
    assert len(verdicts) == 1
    return verdicts.pop()


def test_every_field_of_every_settings_class_is_described() -> None:
    unsaid = [
        f"{cls.__module__}.{cls.__qualname__}.{name}"
        for cls in subclasses(Strict)
        if cls.__module__.startswith("dqe_")
        for name, field in cls.model_fields.items()
        if not field.description
    ]
    assert unsaid == []


def test_no_docstring_describes_a_field_that_is_not_there() -> None:
    for cls in subclasses(Strict):
        described = {line.split(":")[0].strip() for line in own_attributes(cls)}
        assert described <= set(cls.model_fields), cls


def own_attributes(cls: type[BaseModel]) -> list[str]:
    _, _, attributes = (cls.__doc__ or "").partition("Attributes:\n")
    return [line for line in attributes.splitlines() if line.startswith(" " * 8) and line[8] != " "]


def test_every_key_of_the_schema_is_described() -> None:
    objects = {"": SCHEMA, **SCHEMA["$defs"]}
    for name, found in objects.items():
        for key, value in found["properties"].items():
            target = SCHEMA["$defs"].get(value.get("$ref", "").rpartition("/")[2], {})
            assert value.get("description") or target.get("description"), f"{name}.{key}"


def test_a_description_is_of_the_class_nearest_to_the_field() -> None:
    assert "accuracies" in SCHEMA["$defs"]["ConceptSettings"]["properties"]["measurements"]["description"]
    assert "Parquet" in SCHEMA["$defs"]["Scaling"]["properties"]["measurements"]["description"]
    sample = SCHEMA["$defs"]["SampleSource"]["properties"]
    assert sample["shard_size"]["description"] == "Rows in a shard."
    assert sample["shard_size"]["default"] == 64


def test_the_schema_file_next_to_dqe_yaml_is_current_and_its_first_line_names_it() -> None:
    assert (ROOT / "data" / SCHEMA_FILE).read_text() == settings_schema_text(), (
        "run: dqe schema --out data/dqe.schema.json"
    )
    first = (ROOT / "data" / "dqe.yaml").read_text().splitlines()[0]
    assert first == f"# yaml-language-server: $schema={SCHEMA_FILE}"


def test_the_command_prints_it_or_writes_it(data: Path, tmp_path: Path) -> None:
    assert json.loads(dqe(data, "schema").stdout) == SCHEMA
    done = dqe(data, "schema", "--out", str(tmp_path / "s.json"))
    assert (done.returncode, done.stdout) == (0, f"written to {tmp_path / 's.json'}\n")
    assert (tmp_path / "s.json").read_text() == settings_schema_text()


def test_the_schema_is_itself_valid() -> None:
    jsonschema.Draft202012Validator.check_schema(SCHEMA)


def test_the_projects_own_settings_are_valid() -> None:
    assert is_valid(yaml.safe_load((ROOT / "data" / "dqe.yaml").read_text()))


GOOD = [
    "sources: [{kind: sample}]\nautomation: off",
    "sources: [{kind: sample}]",
    "sources: [{kind: folder, name: holiday, path: .}]\nimage_text: null",
    "sources: [{kind: urls, name: web, path: '*.csv', metadata_columns: [a, b], quoted: false}]",
    "sources: [{kind: hf, name: hub, repository: owner/name, url_column: url}]",
    "sources: [{kind: sample}]\ncaptioners: [{kind: openai, name: a, url: http://h:1, model: m, max_tokens: 64}]",
    "sources: [{kind: sample}]\nscorer: {kind: open_clip, architecture: ViT-B-32, weights: openai, precision: bf16}",
    "sources: [{kind: sample}]\nvectors: {kind: server, url: http://h:6333}",
    "sources: [{kind: sample}]\nscaling: {samples_seen: [32M, 640000000, 12.8M]}",
    "sources: [{kind: sample}]\nconcepts: {tagger: {kind: labels}, curriculum: {rarity: 2}}",
    "sources: [{kind: sample}]\njudging: {judge: {url: http://h:1, model: m}, per_shard: 3}",
    "sources: [{kind: sample}]\nfilters: {long: caption_quality(min_tokens=9)}\nsubsets: [{name: a, expression: long}]",
    "sources: [{kind: sample}]\nfetching: {connections: 3, allow: [10.1.0.0/16], placeholders: {same_bytes: null}}",
]

BAD = [
    "sources: [{kind: sample}]\nautomation: on",
    "captioners: []",
    "sources: []",
    "sources: [{name: without_kind, path: .}]",
    "sources: [{kind: smaple}]",
    "sources: [{kind: folder, name: Holiday, path: .}]",
    "sources: [{kind: folder, path: .}]",
    "sources: [{kind: folder, name: a, path: ., image_column: image}]",
    "sources: [{kind: sample, shard_size: 0}]",
    "sources: [{kind: sample}]\nscorer: {kind: label_space, architecture: ViT-B-32}",
    "sources: [{kind: sample}]\nscorer: {kind: open_clip, precision: int8}",
    "sources: [{kind: sample}]\nvectors: {kind: server}",
    "sources: [{kind: sample}]\nwarehouse: {kind: duckdb}",
    "sources: [{kind: sample}]\nscaling: {samples_seen: []}",
    "sources: [{kind: sample}]\nfilters: {Upper: basic_filter}",
    "sources: [{kind: sample}]\nfetching: {attempts: 0}",
    "sources: [{kind: sample}]\nno_such_key: 1",
    "sources: [{kind: sample}]\nshards_per_run: many",
]


@pytest.mark.parametrize("text", GOOD)
def test_what_is_loaded_is_valid(data: Path, text: str) -> None:
    (data / "list.csv").write_text("url,caption\n")
    settings = yaml.safe_load(text)
    Settings.model_validate(settings)
    assert is_valid(settings)


@pytest.mark.parametrize("text", BAD)
def test_what_is_refused_is_not_valid(data: Path, text: str) -> None:
    settings = yaml.safe_load(text)
    with pytest.raises(ValidationError):
        Settings.model_validate(settings)
    assert not is_valid(settings)


def test_a_kind_is_one_of_a_list_of_which_an_editor_knows_each_by_its_constant() -> None:
    choices = [
        SCHEMA["$defs"][one["$ref"].rpartition("/")[2]] for one in SCHEMA["properties"]["captioners"]["items"]["oneOf"]
    ]
    assert [one["properties"]["kind"]["const"] for one in choices] == [
        "labels",
        "lmdeploy",
        "openai",
        "retrieval",
        "rewrite",
        "table",
        "transformers",
    ]
    assert all(one["required"].count("kind") == 1 for one in choices)
