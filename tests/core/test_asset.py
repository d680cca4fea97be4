"""A stage as a Dagster asset: what a run records, what Dagster then calls stale, and what the launchpad can change."""

from __future__ import annotations

import inspect
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dagster as dg
import numpy as np
import pytest
import yaml
from dagster._core.definitions.data_version import CachingStaleStatusResolver, StaleStatus
from dagster._core.loader import LoadingContextForTest
from dagster._core.remote_representation.external_data import RepositorySnap
from dagster._serdes import serialize_value
from PIL import Image

from dqe_assets.core.asset import OWNER, asset, asset_key
from dqe_assets.definitions import definitions
from dqe_assets.orchestration import graph, runner
from dqe_assets.orchestration.resources import dagster_resources
from dqe_assets.orchestration.settings import load_settings
from dqe_resources.models.image_model import ImageModel
from tests.conftest import ROOT
from tests.stages import stage_named

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

KEYS = ["noise-00000", "noise-00001"]
CHAIN = ["raw_samples", "image_features"]
BOTH = {"dagster/asset_partition_range_start": KEYS[0], "dagster/asset_partition_range_end": KEYS[1]}
SECRET = "hunter2-is-nobodys-business"


@pytest.fixture
def photos(data: Path) -> Path:
    """Six photos in two shards, and settings that name them."""
    folder = data / "photos"
    folder.mkdir()
    random = np.random.default_rng(11)
    for index in range(6):
        pixels = random.integers(0, 255, (12, 16, 3), np.uint8)
        Image.fromarray(pixels).resize((160, 120)).save(folder / f"{index}.jpg")
        (folder / f"{index}.txt").write_text(f"a picture of noise, number {index}")
    source = {"kind": "folder", "name": "noise", "path": "photos", "shard_size": 3}
    (data / "dqe.yaml").write_text(yaml.safe_dump({"sources": [source], "captioners": []}))
    return folder


@pytest.fixture
def instance(photos: Path) -> Iterator[dg.DagsterInstance]:
    """A Dagster that knows the two shards."""
    with dg.DagsterInstance.ephemeral() as ephemeral:
        runner.sync(load_settings(), ephemeral)
        yield ephemeral


def run(
    instance: dg.DagsterInstance, *names: str, resources: Mapping[str, Any] | None = None, **options: Any
) -> dg.ExecuteInProcessResult:
    """Materialise these assets in one run, with what the launchpad changes of the resources."""
    settings = load_settings()
    return dg.materialize(
        [asset(stage_named(settings, name), shards_per_run=settings.shards_per_run) for name in names],
        instance=instance,
        resources=dagster_resources(settings),
        run_config={
            "resources": {key: {"config": config} for key, config in (resources or {}).items()},
            "loggers": {"console": {"config": {"log_level": "CRITICAL"}}},
        },
        **options,
    )


def events(instance: dg.DagsterInstance, name: str) -> dict[str | None, list[dg.AssetMaterialization]]:
    """All materialisations of an asset by partition, the latest first."""
    found: dict[str | None, list[dg.AssetMaterialization]] = {}
    for record in instance.fetch_materializations(asset_key(name), limit=100).records:
        assert record.asset_materialization is not None
        found.setdefault(record.partition_key, []).append(record.asset_materialization)
    return found


def by_dagster(instance: dg.DagsterInstance, name: str) -> dict[str, str]:
    """What Dagster's UI says of each partition."""
    settings = load_settings()
    assets = [asset(stage_named(settings, one), shards_per_run=2) for one in (*CHAIN, "duplicate_pairs")]
    nodes = dg.Definitions(assets=assets, resources=dagster_resources(settings)).resolve_asset_graph()
    resolver = CachingStaleStatusResolver(instance, nodes, LoadingContextForTest(instance))
    words = {StaleStatus.FRESH: "current", StaleStatus.STALE: "stale", StaleStatus.MISSING: "missing"}
    return {str(key): words[resolver.get_status(asset_key(name), key)] for key in partitions(name)}


def by_store(name: str) -> dict[str, str]:
    """What ``dqe status`` says of each partition."""
    settings = load_settings()
    return {str(key): runner.state(settings, stage_named(settings, name), key, KEYS) for key in partitions(name)}


def partitions(name: str) -> Sequence[str | None]:
    return KEYS if stage_named(load_settings(), name).partitioned else [None]


@pytest.mark.parametrize("runs", [[{"tags": BOTH}], [{"partition_key": key} for key in KEYS]], ids=["one run", "two"])
def test_each_partition_records_one_event_with_its_own_version_and_metadata(
    instance: dg.DagsterInstance, photos: Path, runs: list[dict[str, Any]]
) -> None:
    (photos / "4.jpg").write_bytes(b"<html>gone</html>")  # so that the shards differ in what is said of them
    for options in runs:
        assert run(instance, *CHAIN, **options).success
    store = load_settings().opened_store
    for name in CHAIN:
        recorded = events(instance, name)
        assert {key: len(found) for key, found in recorded.items()} == dict.fromkeys(KEYS, 1)
        for key in KEYS:
            stored, (event,) = store.get(name, key), recorded[key]
            assert stored is not None
            assert (event.tags or {})["dagster/data_version"] == stored.stamp.identity
            assert event.metadata["fingerprint"].value == stored.stamp.fingerprint
            assert event.metadata["dagster/uri"].value == stored.path
            assert event.metadata["dagster/partition_row_count"].value == 3
        assert not instance.fetch_observations(asset_key(name), limit=1).records
    of_shards = [events(instance, "raw_samples")[key][0].metadata for key in KEYS]
    assert [(said["ok"].value, said["failed"].value) for said in of_shards] == [(3, 0), (2, 1)]


def test_checks_of_a_run_of_many_partitions_are_recorded_once_and_name_the_one_that_fails(
    instance: dg.DagsterInstance, photos: Path
) -> None:
    result = run(instance, *CHAIN, tags=BOTH)
    checks = {(one.asset_key.to_user_string(), one.check_name): one for one in result.get_asset_check_evaluations()}
    expected = {(name, check.name) for name in CHAIN for check in stage_named(load_settings(), name).checks}
    assert set(checks) == expected
    assert len(result.get_asset_check_evaluations()) == len(expected)
    assert all(one.passed and one.description == "holds for all 2 shards" for one in checks.values())

    for index in (3, 4, 5):
        (photos / f"{index}.jpg").write_bytes(b"<html>gone</html>")
    result = run(instance, *CHAIN, tags=BOTH, raise_on_error=False)
    assert not result.success
    (failed,) = (one for one in result.get_asset_check_evaluations() if not one.passed)
    assert failed.check_name == "success_rate"
    assert (failed.description or "").startswith("noise-00001: 0 of 3 rows have an image")
    assert by_store("raw_samples") == {"noise-00000": "current", "noise-00001": "failed"}
    assert len(events(instance, "image_features")["noise-00001"]) == 1, "what is downstream was not made again"


@pytest.mark.parametrize("runs", [[{"tags": BOTH}], [{"partition_key": key} for key in KEYS]], ids=["one run", "two"])
def test_dagster_calls_stale_what_the_store_calls_stale(
    instance: dg.DagsterInstance, photos: Path, runs: list[dict[str, Any]]
) -> None:
    every = [*CHAIN, "duplicate_pairs"]

    def states(name: str) -> dict[str, str]:
        assert by_dagster(instance, name) == by_store(name), name
        return by_store(name)

    assert {name: set(states(name).values()) for name in every} == {name: {"missing"} for name in every}
    for options in runs:
        run(instance, *CHAIN, **options)
    run(instance, "duplicate_pairs")
    assert {name: set(states(name).values()) for name in every} == {name: {"current"} for name in every}

    for changed in ("caption", "image"):
        if changed == "caption":
            (photos / "5.txt").write_text("another caption of the last photo")
        else:
            (photos / "5.jpg").write_bytes((photos / "0.jpg").read_bytes())
        # Both shards in one run, or the second alone: only that has changed.
        run(instance, "raw_samples", **runs[-1])
        assert set(states("raw_samples").values()) == {"current"}
        assert states("image_features") == {"noise-00000": "current", "noise-00001": "stale"}
        assert states("duplicate_pairs") == {"None": "stale"}

        for options in runs:
            run(instance, "image_features", **options)
        assert set(states("image_features").values()) == {"current"}
        assert states("duplicate_pairs") == {"None": "stale"}
        run(instance, "duplicate_pairs")
        assert states("duplicate_pairs") == {"None": "current"}


def test_a_run_of_many_partitions_over_what_is_current_leaves_it_and_its_version(
    instance: dg.DagsterInstance,
) -> None:
    run(instance, *CHAIN, tags=BOTH)
    run(instance, *CHAIN, tags=BOTH)
    for name in CHAIN:
        for again, first in events(instance, name).values():
            assert (again.metadata["reused"].value, first.metadata["reused"].value) == (True, False)
            assert (again.tags or {})["dagster/data_version"] == (first.tags or {})["dagster/data_version"]
    assert by_dagster(instance, "image_features") == dict.fromkeys(KEYS, "current")


@pytest.mark.parametrize("options", [{"tags": BOTH}, {"partition_key": KEYS[0]}], ids=["both", "one"])
def test_forced_in_the_launchpad_what_is_current_is_made_again(
    instance: dg.DagsterInstance, options: dict[str, Any]
) -> None:
    run(instance, *CHAIN, tags=BOTH)
    path = load_settings().opened_store.get("image_features", KEYS[0])
    assert path is not None
    before = Path(path.path).stat().st_mtime_ns
    run(instance, *CHAIN, **options)
    assert Path(path.path).stat().st_mtime_ns == before
    run(instance, *CHAIN, resources={"run_options": {"force": True}}, **options)
    assert Path(path.path).stat().st_mtime_ns > before
    forced = events(instance, "image_features")
    assert [forced[KEYS[0]][place].metadata["reused"].value for place in (0, 1)] == [False, True]


def test_what_the_launchpad_changes_of_a_resource_reaches_the_stage(
    instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    batches: list[int] = []
    embed = ImageModel.embed

    def counting(self: ImageModel, pixels: np.ndarray) -> Any:
        batches.append(len(pixels))
        return embed(self, pixels)

    monkeypatch.setattr(ImageModel, "embed", counting)
    run(instance, *CHAIN, partition_key=KEYS[0])
    run(instance, *CHAIN, partition_key=KEYS[1], resources={"image_model": {"batch_size": 1}})
    assert batches == [3, 1, 1, 1]
    assert by_store("image_features") == dict.fromkeys(KEYS, "current"), "how many at a time changes nothing"


@pytest.mark.parametrize(
    ("resources", "fault"),
    [
        ({"image_model": {"batch_size": 0}}, r"batch_size[\s\S]*greater than or equal to 1"),
        ({"image_model": {"batch_size": "many"}}, r"batch_size[\s\S]*Int"),
        ({"image_model": {"batch": 1}}, r'unexpected config entry "batch"'),
        ({"ingest": {"images": {"longest_side": 3}}}, r"longest_side[\s\S]*greater than or equal to 16"),
        ({"ingest": {"refetch": "sometimes"}}, r"refetch[\s\S]*'transient'"),
        ({"run_options": {"force": "please"}}, r"force[\s\S]*Bool"),
    ],
)
def test_what_the_launchpad_cannot_mean_is_refused(
    instance: dg.DagsterInstance, resources: dict[str, Any], fault: str
) -> None:
    with pytest.raises((dg.DagsterInvalidConfigError, dg.DagsterResourceFunctionError)) as caught:
        run(instance, *CHAIN, partition_key=KEYS[0], resources=resources)
    assert re.search(fault, f"{caught.value} {caught.value.__cause__}")
    assert by_store("image_features") == dict.fromkeys(KEYS, "missing")


def test_what_is_secret_is_nowhere_in_what_the_ui_is_sent(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    vectors = {"kind": "server", "url": "http://qdrant.example:6333", "api_key": SECRET}
    monkeypatch.setenv("DQE_VECTORS", yaml.safe_dump(vectors))
    settings = load_settings()
    assert settings.vectors.api_key.get_secret_value() == SECRET
    defs = definitions(settings)
    resource = dagster_resources(settings)["vectors"]
    assert "api_key" not in type(resource).model_fields
    repository = defs.get_repository_def()
    sent = serialize_value(RepositorySnap.from_def(repository, defer_snapshots=False))
    shown = [sent, repr(resource), str(resource.model_dump()), repr(defs)]
    assert "http://qdrant.example:6333" in sent, "the address is shown, so the key would be too"
    assert not [text for text in shown if SECRET in text]
    handed = resource.create_resource(dg.build_init_resource_context())
    assert handed.api_key.get_secret_value() == SECRET, "but the stage is handed it"


def test_each_asset_links_to_its_own_function_and_has_an_owner_kinds_and_the_group_of_its_folder(data: Path) -> None:
    settings = load_settings()
    nodes = definitions(settings).resolve_asset_graph()
    stages = graph.stages(settings)
    assert {asset_key(stage.name) for stage in stages} == set(nodes.get_all_asset_keys())
    for stage in stages:
        node = nodes.get(asset_key(stage.name))
        (reference,) = node.metadata["dagster/code_references"].code_references
        assert Path(reference.file_path) == Path(inspect.getsourcefile(stage.function) or "")
        lines = Path(reference.file_path).read_text(encoding="utf-8").splitlines()[reference.line_number - 1 :]
        assert lines[0].strip().startswith("@stage("), stage.name
        defined = next(found[1] for line in lines if (found := re.match(r"\s*def (\w+)\(", line)))
        assert defined == stage.function.__name__, stage.name
        assert node.owners == [OWNER]
        assert 1 <= len(node.kinds) <= 3
        assert node.kinds == stage.kinds
        assert node.group_name == Path(reference.file_path).relative_to(ROOT / "dqe_assets").parts[0]
