"""The scores of the captions after the first, of a source that has several of an image."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
import yaml

from dqe_assets.core.schema import ORIGINAL
from dqe_assets.ingest.tables import RAW_SAMPLES
from dqe_assets.orchestration.settings import load_settings
from dqe_assets.publish.captions import CaptionReader
from dqe_assets.report.build_warehouse import build_warehouse
from dqe_assets.score.further_captions import further_captions
from dqe_assets.score.tables import FURTHER_CAPTION_SCORES
from dqe_resources.warehouse import Warehouse
from tests.caption_server import jpeg
from tests.conftest import ROOT, environment
from tests.report.make_store import make_store
from tests.stages import checked, handed, stage_named, table_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

ASSET, SEVERAL = "further_caption_scores", "several-00000"
LONG = "A stripe of warm light lies on the wet sand. It has a red edge." + " It is a stripe of light." * 12
CAPTIONS = [
    ["a stripe", "a red stripe", LONG],
    ["a wide stripe", "a stripe &amp; an edge", "light"],
    ["a stripe of light", "two stripes", "the sun over a field"],
]
BROKEN, ALONE = ["no stripe", "nothing", "no light"], ["one stripe"]


def make(asset: str, shard: str) -> Mapping[str, Any]:
    """Make it as a run does; returns its metadata."""
    settings = load_settings()
    stage = stage_named(settings, asset)
    work = stage.work(settings.opened_store, shard, [shard])
    _, metadata, results = stage.make(work, handed(settings, stage))
    assert all(one.passed for name, one in results.items() if name not in {"success_rate", "faults"}), results
    return metadata


@pytest.fixture
def made(data: Path, tiny_clip: Path) -> Path:
    """Pictures with three captions each, one that is broken, one with a caption alone; and the same for each place.

    The sources ``second`` and ``third`` have the same pictures with the caption at that place as the only one.
    """
    for name, lists in {
        "several": [*CAPTIONS, BROKEN, ALONE],
        **{name: [[texts[place]] for texts in CAPTIONS] for place, name in enumerate(("second", "third"), start=1)},
    }.items():
        (data / name).mkdir()
        for row, texts in enumerate(lists):
            (data / name / f"{row}.jpg").write_bytes(b"no picture" if texts is BROKEN else jpeg(40 * row))
            (data / name / f"{row}.txt").write_text("\n".join(texts))
    settings = {
        "sources": [{"kind": "folder", "name": name, "path": name} for name in ("several", "second", "third")],
        "captioners": [],
        "scorer": {
            "kind": "open_clip",
            "architecture": f"local-dir:{tiny_clip}",
            "device": "cpu",
            "long_captions": "sentences_mean",
        },
    }
    (data / "dqe.yaml").write_text(yaml.safe_dump(settings))
    for shard in (SEVERAL, "second-00000", "third-00000"):
        for asset in ("raw_samples", "joint_embeddings", "caption_scores"):
            make(asset, shard)
    return data


def test_a_further_caption_scores_as_the_same_text_does_as_an_original(made: Path) -> None:
    metadata = make(ASSET, SEVERAL)
    settings = load_settings()
    uids = table_of(settings, "raw_samples", SEVERAL)["uid"].to_pylist()
    found = {(uids.index(row["uid"]), row["place"]): row for row in table_of(settings, ASSET, SEVERAL).to_pylist()}
    assert [*found] == [(row, place) for row in range(4) for place in (2, 3)]
    for place, name in ((2, "second"), (3, "third")):
        for row, expected in enumerate(table_of(settings, "caption_scores", f"{name}-00000").to_pylist()):
            assert found[row, place]["similarity"] == pytest.approx(expected["similarity"], abs=1e-3)
            assert {key: found[row, place][key] for key in ("tokens", "truncated")} == {
                key: expected[key] for key in ("tokens", "truncated")
            }
        assert found[3, place]["similarity"] is found[3, place]["tokens"] is found[3, place]["truncated"] is None
    assert found[0, 3]["truncated"]
    scored = [row["similarity"] for row in found.values() if row["similarity"] is not None]
    assert len(set(scored)) == len(scored) == 6
    assert (metadata["captions"], metadata["samples"], metadata["scored"]) == (8, 4, 6)
    assert metadata["mean"] == pytest.approx(sum(scored) / 6)

    read = CaptionReader(settings.opened_store, {ORIGINAL: 1.0}).of_shard(SEVERAL)
    assert [[one["text"] for one in captions] for captions in read[:2]] == CAPTIONS[:2]
    for row, captions in enumerate(read):
        expected = [found[row, place]["similarity"] for place in (2, 3) if (row, place) in found]
        assert [one["similarity"] for one in captions[1:]] == expected


BOTH = f"""
import sys
from tests.score.test_further_captions import make
for shard in ("second-00000", {SEVERAL!r}):
    rows = make({ASSET!r}, shard)["dagster/partition_row_count"]
    print(shard, rows, "torch" in sys.modules)
"""


def test_no_model_is_loaded_for_a_shard_without_further_captions(made: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", BOTH], env=environment(made), cwd=ROOT, capture_output=True, text=True, check=True
    )
    lines = [line for line in done.stdout.splitlines() if "-00000 " in line]
    assert lines == ["second-00000 0 False", f"{SEVERAL} 8 True"], done.stderr


def twice(table: pa.Table) -> pa.Table:
    return pa.concat_tables([table, table.slice(0, 1)])


def with_similarity(value: float | None) -> Callable[[pa.Table], pa.Table]:
    return lambda table: table.set_column(2, table.schema.field(2), pa.array([value] * len(table), pa.float32()))


def test_each_check_can_fail(made: Path) -> None:
    make(ASSET, SEVERAL)
    settings = load_settings()
    stage, table = stage_named(settings, ASSET), table_of(settings, ASSET, SEVERAL)
    damages = {
        "keys_unique": [twice],
        "coverage": [lambda good: good.slice(1), lambda good: good.slice(0, len(good) - 1), with_similarity(None)],
        "similarity_finite": [with_similarity(1.5)],
    }
    assert damages.keys() == {check.name for check in stage.checks}
    work = stage.work(settings.opened_store, SEVERAL, [SEVERAL])
    for check, changes in damages.items():
        assert not any(checked(settings, stage, check, work, change(table)).passed for change in changes)


def test_the_warehouse_has_them_with_their_texts(tmp_path: Path) -> None:
    store = make_store(tmp_path, shards=1, rows=4, captioners=(), duplicates=False)
    files = dict(store.inputs.assets)
    raw = pq.read_table(files["raw_samples"][0], schema=RAW_SAMPLES).to_pylist()
    uids = [row["uid"] for row in raw]
    raw[1]["original_captions"] = ["first", "second", "third"]
    pq.write_table(pa.Table.from_pylist(raw, RAW_SAMPLES), files["raw_samples"][0])
    scores = [
        {"uid": uids[1], "place": 3, "similarity": 0.25, "tokens": 3, "truncated": False},
        {"uid": uids[1], "place": 2, "similarity": None, "tokens": None, "truncated": None},
    ]
    files["further_caption_scores"] = [tmp_path / files["raw_samples"][0].name]
    pq.write_table(pa.Table.from_pylist(scores, FURTHER_CAPTION_SCORES), files["further_caption_scores"][0])
    warehouse = Warehouse(path=tmp_path / "warehouse.duckdb")
    warehouse.rebuild(lambda connection: build_warehouse(connection, replace(store.inputs, assets=files)))
    assert warehouse.query("FROM further_captions").to_pylist() == [
        {**scores[1], "caption": "second"},
        {**scores[0], "caption": "third"},
    ]


def test_blank_captions_have_no_row_and_keep_their_place() -> None:
    lists = [None, ["a"], [], ["a", " ", None, "b&nbsp;\n c", "&nbsp;"], [None, "d"]]
    raw = pa.table({"uid": [*"vwxyz"], "original_captions": pa.array(lists, pa.list_(pa.string()))})
    assert further_captions(raw).to_pylist() == [
        {"uid": "y", "place": 4, "caption": "b c"},
        {"uid": "z", "place": 2, "caption": "d"},
    ]
    parts = pa.concat_tables([raw.slice(3), raw.slice(0, 3)])
    assert pc.all(pc.equal(further_captions(parts)["place"], further_captions(raw)["place"])).as_py()
    assert len(further_captions(raw.slice(0, 3))) == len(further_captions(raw.slice(0, 0))) == 0
