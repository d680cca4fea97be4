"""Settings as Dagster resources: all that can be shown is a field, and a run is handed the settings themselves."""

from __future__ import annotations

from collections.abc import Hashable
from pathlib import Path
from typing import Any, get_args

import dagster as dg
import pytest
from pydantic import SecretStr, ValidationError

from dqe_assets.core.resource import StoreResource, as_resource
from dqe_assets.orchestration import graph
from dqe_assets.orchestration.resources import dagster_resources
from dqe_assets.orchestration.settings import SettingsError, load_settings
from dqe_resources.captioners.protocol import CaptionerError
from dqe_resources.configurable import Strict
from dqe_resources.store import Store

EVERYTHING = """
sources: [{kind: sample}]
captioners:
  - {kind: labels, name: labels}
  - {kind: openai, name: vlm, url: "http://127.0.0.1:1", model: tiny, api_key_env: VLM_KEY}
  - {kind: lmdeploy, name: local, model: tiny}
scorer: {kind: open_clip, architecture: ViT-B-32, weights: laion2b_s34b_b79k, precision: bf16}
vectors: {kind: server, url: "http://127.0.0.1:6333", api_key: nobodys-business}
judging: {judge: {url: "http://127.0.0.1:1", model: tiny}, max_tokens_total: 200000}
refining: {captioner: vlm}
fetching: {allow: [10.1.0.0/16]}
concepts: {names: [fly agaric, tabby cat]}
"""
"""Settings that configure every kind of thing."""

CONFIGURATIONS = ["the project's own", "everything"]


@pytest.fixture(params=CONFIGURATIONS)
def parts(request: pytest.FixtureRequest, data: Path) -> dict[str, Strict]:
    """What stages are handed, by key: every part of the settings."""
    if request.param == "everything":
        (data / "dqe.yaml").write_text(EVERYTHING)
    return graph.resources(load_settings({}))


def handed(resource: Any) -> Any:
    return resource.create_resource(dg.build_init_resource_context())


def plain(value: Any) -> Any:
    """A value as it could be typed into the launchpad; None if it could not be."""
    if isinstance(value, list | tuple):
        return [plain(one) for one in value] if value and all(plain(one) is not None for one in value) else None
    if isinstance(value, Path):
        return str(value)
    return value if isinstance(value, bool | int | float | str) else None


def check_fields(shown: Any, settings: Strict) -> None:
    """Every setting that has a plain value is a field of the same name and value, and so is all that is nested."""
    names = set(type(shown).model_fields)
    assert names <= set(type(settings).model_fields)
    for name in type(settings).model_fields:
        value = getattr(settings, name)
        if isinstance(value, Strict):
            check_fields(getattr(shown, name), value)
        elif plain(value) is not None:
            assert name in names, f"{type(settings).__name__}.{name}"
            assert getattr(shown, name) == plain(value), name


def test_every_part_of_the_settings_is_a_resource_with_its_fields_by_name(parts: dict[str, Strict]) -> None:
    assert {"ingest", "captions", "image_model", "scorer", "vectors", "duplicates", "best", "concepts"} < set(parts)
    for key, settings in parts.items():
        resource = as_resource(settings)
        assert isinstance(resource, dg.ConfigurableResource), key
        assert type(resource).__name__ == f"{type(settings).__name__}Resource"
        assert type(resource).__doc__ == type(settings).__doc__
        check_fields(resource, settings)


def test_the_resources_of_a_run_are_the_store_its_options_and_every_part(data: Path) -> None:
    settings = load_settings({})
    resources = dagster_resources(settings)
    assert set(resources) == {"store", "run_options", "workers", *graph.resources(settings)}
    assert all(isinstance(one, dg.ConfigurableResource) for key, one in resources.items() if key != "workers")
    assert resources["workers"].resource_fn(dg.build_init_resource_context()) is None
    store = handed(resources["store"])
    assert isinstance(resources["store"], StoreResource)
    assert isinstance(store, Store)
    assert store.root == settings.opened_store.root == str(data / "store")
    assert not resources["run_options"].force
    assert dagster_resources(settings, force=True)["run_options"].force
    needed = {path.split(".")[0] for stage in graph.stages(settings) for path in stage.resources.values()}
    assert needed <= set(resources)


def test_where_nothing_is_changed_a_run_is_handed_the_very_same_settings(parts: dict[str, Strict]) -> None:
    for key, settings in parts.items():
        assert handed(as_resource(settings)) is settings, key


def test_each_launch_of_a_resource_can_be_changed_by_itself(data: Path) -> None:
    found: list[Any] = []

    @dg.asset(required_resource_keys={"ingest", "image_model"})
    def reads(context):
        found.append((context.resources.ingest, context.resources.image_model))

    settings = load_settings({})
    resources = dagster_resources(settings)
    ingest = {"images": {"longest_side": 320}, "fetching": {"placeholders": {"sha256": ["0" * 64]}}}
    changes = [{}, {"ingest": {"config": ingest}}, {"image_model": {"config": {"batch_size": 2}}}, {}]
    for change in changes:
        assert dg.materialize([reads], resources=resources, run_config={"resources": change}).success
    assert [model.batch_size for _, model in found] == [8, 8, 2, 8]
    assert [part.images.longest_side for part, _ in found] == [None, 320, None, None]
    changed = found[1][0]
    assert changed.fetching.placeholders.sha256 == ["0" * 64]
    assert type(changed) is type(settings.ingest)
    same = {"images": changed.images.model_copy(update={"longest_side": None}), "fetching": settings.fetching}
    assert changed.model_copy(update=same) == settings.ingest, "and nothing else is"
    assert found[2][0] is found[0][0] is found[3][0], "what is not changed is the same object"
    assert found[2][1].signature() == settings.image_model.signature()


def test_a_list_or_a_choice_is_changed_as_a_whole_and_checked_as_the_file_is(data: Path) -> None:
    (data / "dqe.yaml").write_text(EVERYTHING)
    settings = load_settings({})
    resource = as_resource(settings.best)
    assert handed(type(resource)(by=["similarity"])) == settings.best.model_copy(update={"by": ("similarity",)})
    with pytest.raises(ValidationError, match="by"):
        handed(type(resource)(by=["beauty"]))
    scorer = as_resource(settings.scorer)
    assert handed(type(scorer)(precision="fp32")).precision == "fp32"
    with pytest.raises(ValidationError, match="precision"):
        handed(type(scorer)(precision="fp3"))


def _types_in(annotation: Any) -> set[Any]:
    """The type itself and all that it is made of, however deep."""
    return {annotation}.union(*(_types_in(one) for one in get_args(annotation) if isinstance(one, Hashable)))


def test_what_is_secret_is_no_field_and_stays_what_it_is(data: Path) -> None:
    (data / "dqe.yaml").write_text(EVERYTHING)
    settings = load_settings({})
    secret = {
        (key, name)
        for key, part in graph.resources(settings).items()
        for name, field in type(part).model_fields.items()
        if SecretStr in _types_in(field.annotation)
    }
    assert secret == {("vectors", "api_key")}
    resource = as_resource(settings.vectors)
    assert "api_key" not in type(resource).model_fields
    changed = handed(type(resource)(collection="another"))
    assert changed.collection == "another"
    assert changed.api_key.get_secret_value() == "nobodys-business"
    for key, part in graph.resources(settings).items():
        one = as_resource(part)
        assert "nobodys-business" not in f"{one!r} {one.model_dump()}", key


def test_a_url_with_a_password_is_no_field_and_no_message_has_it(data: Path) -> None:
    (data / "dqe.yaml").write_text(EVERYTHING.replace("http://127", "http://user:s3cret@127"))
    settings = load_settings({})
    assert settings.captioners[1].url == "http://user:s3cret@127.0.0.1:1"
    for key in ("captioner_vlm", "vectors", "judging"):
        resource = as_resource(graph.resources(settings)[key])
        assert "s3cret" not in f"{resource!r} {resource.model_dump()}", key
        assert handed(resource) is graph.resources(settings)[key]
    assert str(CaptionerError(f"{settings.captioners[1].url}: away")) == "http://127.0.0.1:1: away"
    (data / "dqe.yaml").write_text(EVERYTHING.replace("http://127", "tcp://user:s3cret@127"))
    with pytest.raises(SettingsError, match=r"url.*tcp://127") as wrong:
        load_settings({})
    assert "s3cret" not in str(wrong.value)
