"""Original and synthetic captions mixed by their similarity, from the rule to what is trained on."""

from __future__ import annotations

import json
import shutil
import tarfile
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from typer.testing import CliRunner

from dqe_assets.cli.app import app
from dqe_assets.filtering.caption_mix import mixed_captions
from dqe_assets.orchestration.settings import SettingsError, load_settings
from dqe_assets.training.data import open_data
from tests.conftest import environment
from tests.stages import checked, stage_named, table_of
from tests.training.toy import make

if TYPE_CHECKING:
    from pathlib import Path

SHARDS = [f"sample-{index:05d}" for index in range(4)]


def test_the_original_is_taken_where_it_fits_then_the_synthetic_one_then_none() -> None:
    rows = [
        (True, "a dog", 0.30, "a dog on grass", 0.40, "original"),
        (True, "a dog", 0.29, "a dog on grass", 0.30, "labels"),
        (True, "a dog", 0.29, "a dog on grass", 0.10, None),
        (True, " \n", 0.50, None, 0.60, None),
        (True, None, None, "a dog on grass", 0.60, "labels"),
        (True, "a dog", float("nan"), "a dog on grass", None, None),
        (False, "a dog", 0.90, "a dog on grass", 0.90, None),
    ]
    is_in, original, fits, synthetic, synthetic_fits, expected = zip(*rows, strict=True)
    uids = [f"{number:032x}" for number in range(len(rows))]
    scores = pa.table(
        {
            "uid": uids * 2,
            "caption_source": ["original"] * len(rows) + ["labels"] * len(rows),
            "similarity": pa.array([*fits, *synthetic_fits], pa.float32()),
        }
    )
    found = mixed_captions(
        pa.table({"uid": uids, "caption": original}),
        pa.array(is_in),
        pa.table({"caption": pa.array(synthetic, pa.string())}),
        scores,
        "labels",
        float(np.float32(0.3)),
    )
    assert found["caption_source"].to_pylist() == list(expected)
    texts = {"original": original, "labels": synthetic, None: [None] * len(rows)}
    assert found["caption"].to_pylist() == [texts[source][row] for row, source in enumerate(expected)]
    values = {"original": fits, "labels": synthetic_fits, None: [None] * len(rows)}
    wanted = [values[source][row] for row, source in enumerate(expected)]
    assert found["similarity"].to_pylist() == pa.array(wanted, pa.float32()).to_pylist()


@pytest.fixture
def configured(finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The finished sample, with a mix that is trained with."""
    data = tmp_path / "data"
    shutil.copytree(finished, data, symlinks=True)
    for name, value in environment(data).items():
        monkeypatch.setenv(name, value)
    configure(data, [MIX])
    return data


MIX: dict[str, object] = {"name": "mixed", "captioner": "labels", "fraction": 0.3}
TRAINED: list[dict[str, object]] = [{"subsets": ["all"], "scale": "debug", "captions": "mixed"}]


def configure(data: Path, mixes: list[dict[str, object]], runs: list[dict[str, object]] = TRAINED) -> None:
    path = data / "dqe.yaml"
    settings = {**yaml.safe_load(path.read_text()), "caption_mixes": mixes, "training": {"runs": runs}}
    path.write_text(yaml.safe_dump(settings))


def test_a_mix_of_the_sample_is_what_is_trained_on(configured: Path) -> None:
    settings = load_settings()
    names = ["caption_thresholds", "mixed_captions/mixed", "training_data/all_with_mixed"]
    assert not make(settings, *names).failures
    (mix,) = table_of(settings, "caption_thresholds").to_pylist()
    assert (mix["samples"], mix["original"]) == (234, 71), "n + 1 of the best 30 %, as the filter best_30 has"
    assert mix["original"] + mix["synthetic"] + mix["dropped"] == 234
    assert mix["synthetic"] > 50
    tables = pa.concat_tables([table_of(settings, "mixed_captions/mixed", shard) for shard in SHARDS])
    sources = tables["caption_source"].to_pylist()
    assert (sources.count("original"), sources.count("labels")) == (mix["original"], mix["synthetic"])
    assert tables["similarity"].drop_null().to_numpy().min() >= mix["threshold"]

    data = open_data("all_with_mixed")
    assert data.samples == mix["original"] + mix["synthetic"]
    captions = {row["uid"]: row["caption"] for row in tables.to_pylist()}
    with tarfile.open(data.shards[0]) as tar:
        texts = {one.name: tar.extractfile(one).read().decode() for one in tar if one.name.endswith(".txt")}
    assert texts
    assert all(captions[name.partition("-")[0]] == text for name, text in texts.items())
    manifest = json.loads((data.folder / "manifest.json").read_text())
    assert manifest["subset"]["captions"] == ["mixed"]

    # The warehouse waits for what is trained.
    configure(configured, [MIX], runs=[])
    settings = load_settings()
    assert not make(settings, "filter_masks", "warehouse").failures
    with settings.warehouse.connect() as connection:
        table = connection.sql("FROM mixed_captions WHERE mix = 'mixed' AND caption IS NOT NULL")
        counted = dict(table.aggregate("caption_source, count(*)").fetchall())
    assert counted == {"original": mix["original"], "labels": mix["synthetic"]}
    published = CliRunner().invoke(app, ["publish", str(configured / "out"), "--caption", "mixed"])
    assert published.exit_code == 0, published.output
    (file,) = (configured / "out" / "data").glob("*.parquet")
    written = pq.read_table(file, columns=["uid", "caption", "caption_source"]).to_pylist()
    assert {row["uid"]: row["caption"] for row in written} == {uid: text for uid, text in captions.items() if text}
    assert sum(row["caption_source"] == "original" for row in written) == mix["original"]
    lineage = json.loads((configured / "out" / "manifest.json").read_text())["lineage"]["assets"]
    assert "mixed_captions/mixed" in [one["asset"] for one in lineage]

    stage = stage_named(settings, "caption_thresholds")
    table = table_of(settings, "caption_thresholds")
    warned = checked(settings, stage, "independent", stage.work(settings.opened_store, None, SHARDS), table)
    assert not warned.passed
    assert "labels" in warned.description


@pytest.mark.parametrize(
    ("mixes", "message"),
    [
        ([{"name": "mixed", "captioner": "nobody"}], "no captioner 'nobody'; allowed: labels"),
        ([{"name": "best", "captioner": "labels"}], "other captions called 'best'; rename the mix"),
        ([{"name": "mixed", "captioner": "labels"}] * 2, "other captions called 'mixed'"),
        ([], "there is no captions 'mixed'; allowed: original, labels, best"),
        ([{"name": "mixed", "captioner": "labels", "fraction": 1.5}], r"caption_mixes\.0\.fraction"),
    ],
)
def test_wrong_mixes_are_refused_when_the_settings_are_loaded(
    data: Path, mixes: list[dict[str, object]], message: str
) -> None:
    configure(data, mixes)
    with pytest.raises(SettingsError, match=message):
        load_settings()
