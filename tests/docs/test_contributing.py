"""The examples of CONTRIBUTING.md are built and run as they stand there, on the sample."""

from __future__ import annotations

import importlib
import re
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import dagster as dg
import numpy as np
import pyarrow.compute as pc
import pytest
import yaml
from PIL import Image

from dqe_assets.core.asset import asset, asset_key
from dqe_assets.core.partitions import registered_shards
from dqe_assets.core.stage import connected
from dqe_assets.filtering.build_subset import make_subset
from dqe_assets.filtering.expression import parse
from dqe_assets.filtering.filters import FILTERS
from dqe_assets.filtering.store_pool import StorePool
from dqe_assets.orchestration import graph
from dqe_assets.orchestration.instance import instance
from dqe_assets.orchestration.resources import dagster_resources
from dqe_assets.orchestration.settings import Settings, load_settings
from dqe_assets.report.assets import warehouse_of
from tests.conftest import ROOT, environment

if TYPE_CHECKING:
    from types import ModuleType

EXAMPLE = re.compile(r"^```python\n# (?P<path>\S+\.py)\n(?P<code>.*?)^```$", re.MULTILINE | re.DOTALL)
EXPECTED = """
    SELECT CASE WHEN brightness < 0.3 THEN 'dark' WHEN brightness > 0.6 THEN 'bright'
        WHEN brightness IS NOT NULL THEN 'medium' END, count(*)
    FROM samples GROUP BY ALL
"""
PAGE = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")


@pytest.fixture
def example(tmp_path, monkeypatch):
    """Imports an example as if it were in its package."""
    before = {*sys.modules}
    for found in EXAMPLE.finditer(PAGE):
        path = tmp_path / found["path"]
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(found["code"], encoding="utf-8")

    def module(path: str) -> ModuleType:
        name = ".".join(Path(path).with_suffix("").parts)
        root = importlib.import_module(name.partition(".")[0])
        monkeypatch.setattr(root, "__path__", [*root.__path__, str(tmp_path / root.__name__)])
        folder = (tmp_path / path).parent
        package = importlib.import_module(name.rpartition(".")[0])
        if str(folder) not in package.__path__:
            monkeypatch.setattr(package, "__path__", [*package.__path__, str(folder)])
        return importlib.import_module(name)

    yield module
    for name in {*sys.modules} - before:
        if name.startswith(("dqe_assets.", "dqe_resources.")):
            del sys.modules[name]


@pytest.fixture
def shards(opened):
    with instance() as current:
        return tuple(registered_shards(current))


def test_a_captioner(example, opened, shards):
    captioner = example("dqe_resources/captioners/colours.py").ColoursCaptioner(name="colours", most=2)
    settings = settings_with(captioners=[captioner])
    (stage,) = (one for one in graph.stages(settings) if one.name == "synthetic_captions/colours")
    work = stage.work(opened.opened_store, shards[0], shards)
    table = stage.function(work, captioner)
    assert all(check.run(work, table).passed for check in stage.checks)
    captions = table["caption"].drop_null().to_pylist()
    assert len(captions) == pc.sum(pc.equal(work.read("raw_samples")["status"], "ok")).as_py()
    assert all(caption.startswith("A picture in ") and caption.count(",") <= 1 for caption in captions)


def test_a_filter(example, opened, shards, monkeypatch):
    bright = example("dqe_assets/filtering/filters/bright.py").Bright
    monkeypatch.setitem(FILTERS, bright.name, bright)
    made = make_subset(parse("bright(0.5) & ~bright(0.9)"), [StorePool(opened.opened_store, shards)])
    with opened.warehouse.connect() as connection:
        between = "SELECT count(*) FROM samples WHERE brightness >= 0.5::FLOAT AND brightness < 0.9::FLOAT"
        assert len(made.uids) == connection.execute(between).fetchone()[0] > 0


def test_a_source(example, tmp_path):
    (tmp_path / "images").mkdir()
    (tmp_path / "captions").mkdir()
    for name in ("one", "two", "three"):
        Image.new("RGB", (64, 64)).save(tmp_path / "images" / f"{name}.jpg")
        (tmp_path / "captions" / f"{name}.txt").write_text(f"caption {name}", encoding="utf-8")
    (tmp_path / "captions" / "two.txt").unlink()
    kind = example("dqe_resources/sources/pairs.py").PairsSource
    source = kind(name="mine", images=tmp_path / "images", captions=tmp_path / "captions", shard_size=2)
    assert [(shard.index, shard.rows) for shard in source.shards()] == [(0, 2), (1, 1)]
    rows = [row for shard in source.shards() for row in source.rows(shard.index)]
    assert [(row.key, row.caption) for row in rows] == [
        ("one.jpg", "caption one"),
        ("three.jpg", "caption three"),
        ("two.jpg", None),
    ]


def test_a_tagger(example, opened, shards):
    tagger = example("dqe_resources/taggers/top_label.py").TopLabelTagger()
    features = opened.opened_store.read("image_features", shards[0], graph_schema("image_features"))
    features = features.filter(features["top_label"].is_valid())
    names = sorted(set(features["top_label"].to_pylist()))
    probabilities = tagger.probabilities(features, names)
    assert probabilities.dtype == np.float32
    assert [names[place] for place in probabilities.argmax(axis=1)] == features["top_label"].to_pylist()


@pytest.mark.slow
def test_a_stage(example, finished, tmp_path, monkeypatch):
    shutil.copytree(finished, tmp_path / "data", symlinks=True)
    for name, value in environment(tmp_path / "data").items():
        monkeypatch.setenv(name, value)
    lighting = example("dqe_assets/lighting/assets.py").lighting
    settings = load_settings()
    # As in the list of graph.stages: before the warehouse, which reads what all others make, and the view of that.
    made = [*(one for one in graph.stages(settings) if one.group not in {"report", "view"}), lighting]
    reading = warehouse_of(made, graph.captioner_infos(settings), settings.scorer)
    (lighting, warehouse) = connected([*made, reading])[-2:]
    with instance() as current:
        shards = registered_shards(current)
        for stage, partition in [*((lighting, shard) for shard in shards), (warehouse, None)]:
            result = dg.materialize(
                [asset(stage, shards_per_run=1)],
                instance=current,
                partition_key=partition,
                resources=dagster_resources(settings),
            )
            assert result.success
        (event,) = current.fetch_materializations(asset_key("lighting"), limit=1).records
    metadata = event.asset_materialization.metadata
    assert "data:image/png" in metadata["plot"].value
    assert sum(metadata["images"].value.values()) > 0
    assert asset(lighting, shards_per_run=1).group_names_by_key == {asset_key("lighting"): "lighting"}
    with settings.warehouse.connect() as connection:
        shown = connection.execute("SELECT lighting, count(*) FROM lighting GROUP BY ALL").fetchall()
        assert dict(shown) == dict(connection.execute(EXPECTED).fetchall())


def settings_with(**changes):
    """The project's settings with components that no list names."""
    values = yaml.safe_load((ROOT / "data" / "dqe.yaml").read_text(encoding="utf-8"))
    return Settings.model_validate(values | changes)


def graph_schema(asset):
    """The schema of an asset's table."""
    return next(one.schema for one in graph.stages(settings_with()) if one.name == asset)
