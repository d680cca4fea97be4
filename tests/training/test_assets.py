"""The asset ``training_run``, from the store to the warehouse: killed or not, it ends the same."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from dqe_assets.orchestration import runner
from dqe_assets.orchestration.settings import load_settings
from dqe_assets.training.checkpoints import checkpoint_path, checkpoints, weights_digest
from dqe_assets.training.loss_log import read_log
from dqe_assets.training.run_folder import RUN, run_folder
from dqe_resources.cache import data_directory
from tests.conftest import environment
from tests.stages import checked, stage_named, table_of
from tests.training.toy import CAPTIONER, SCALE, make, make_folder

if TYPE_CHECKING:
    from pathlib import Path

    from dqe_assets.orchestration.settings import Settings
    from dqe_resources.store import StoredPartition

SHARDS = [f"walls-{number:05d}" for number in range(3)]
RUNS: list[dict[str, Any]] = [
    {"subsets": ["all"], "scale": "toy", "seeds": [0]},
    {"subsets": ["all"], "scale": "toy", "seeds": [5], "captions": CAPTIONER, "label": "warm"},
]
COLD, WARM = "all-toy-0", "warm-toy-5"
EVERY = (
    "raw_samples",
    "reviews",
    f"synthetic_captions/{CAPTIONER}",
    "training_data/all",
    f"training_data/all_with_{CAPTIONER}",
)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder with everything that the runs are trained on."""
    data = tmp_path_factory.mktemp("prepared") / "data"
    with pytest.MonkeyPatch.context() as patch:
        use(data, patch)
        assert not make(make_folder(data, 50, training()), *EVERY).failures
    return data


@pytest.fixture
def settings(prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """The settings of a copy of it."""
    shutil.copytree(prepared, tmp_path / "data")
    use(tmp_path / "data", monkeypatch)
    return load_settings({})


def use(data: Path, patch: pytest.MonkeyPatch) -> None:
    for name in ("DQE_DATA", "DAGSTER_HOME"):
        patch.setenv(name, environment(data)[name])


def training(**changes: Any) -> dict[str, Any]:
    scale = {**SCALE, **changes.pop("scale", {})}
    return {"runs": changes.pop("runs", RUNS), "scales": {"toy": scale}, "log_every": 5, **changes}


def changed(**changes: Any) -> Settings:
    """The settings with another ``training``."""
    path = data_directory() / "dqe.yaml"
    path.write_text(yaml.safe_dump({**yaml.safe_load(path.read_text()), "training": training(**changes)}))
    return load_settings({})


def state(settings: Settings, key: str) -> str:
    return runner.state(settings, stage_named(settings, "training_run"), key, SHARDS)


def stored(settings: Settings, key: str) -> StoredPartition:
    found = settings.opened_store.get("training_run", key)
    assert found is not None
    return found


def digests(key: str) -> list[str]:
    return [weights_digest(path) for path in checkpoints(run_folder(key)).values()]


def test_a_run_is_a_row_for_each_checkpoint_and_is_trained_again_only_for_a_reason(settings: Settings) -> None:
    outcome = make(settings, "training_run", runs=(COLD,))
    assert not outcome.failures
    assert outcome.made[-1] == ("training_run", COLD)
    first, last = table_of(settings, "training_run", COLD).to_pylist()
    about = ("run", "subset", "captions", "data", "scale", "seed", "start", "schedule")
    assert [last[name] for name in about] == [COLD, "all", "original", "all", "toy", 0, None, "cosine"]
    assert [(row["checkpoint"], row["is_final"], row["step"], row["samples_seen"]) for row in (first, last)] == [
        (1, False, 20, 320),
        (2, True, 40, 640),
    ]
    assert (last["data_size"], last["gpus"], last["cost"]) == (49, 0, None)
    assert [row["path"] for row in (first, last)] == [f"training/{COLD}/checkpoints/epoch_{n}.pt" for n in (1, 2)]
    assert [row["sha256"] for row in (first, last)] == digests(COLD)
    assert last["loss"] < first["loss"] < 3
    log = [line for row in (first, last) for line in row["log"]]
    assert [line["step"] for line in log] == [5, 10, 15, 20, 25, 30, 35, 40]
    assert last["loss"] == pytest.approx(sum(line["loss"] for line in last["log"]) / 4)
    assert last["seconds"] == pytest.approx(sum(line["seconds"] for line in last["log"]))
    facts = stored(settings, COLD).stamp.facts
    assert facts["configuration"] == json.loads((run_folder(COLD) / RUN).read_text())
    assert facts["configuration"]["versions"]["torch"]
    assert (facts["configuration"]["data"]["samples"], facts["configuration"]["scale"]["epsilon"]) == (49, 1e-6)
    assert state(settings, COLD) == "current"
    assert state(settings, WARM) == "missing"

    before = checkpoint_path(run_folder(COLD), 2).stat().st_mtime_ns
    assert not make(settings, *EVERY, force=True).failures
    assert state(settings, COLD) == "current", "the same samples are no reason to train again"
    another = changed(runs=[*RUNS, {"subsets": ["all"], "scale": "toy", "seeds": [9]}], samples_per_shard=7)
    assert state(another, COLD) == "current", "nor are other runs"
    shorter = changed(scale={"samples_seen": 320})
    assert state(shorter, COLD) == "stale"
    assert not make(shorter, "training_data/all", "training_run", runs=(COLD,)).failures
    assert [row["samples_seen"] for row in table_of(shorter, "training_run", COLD).to_pylist()] == [160, 320]
    assert [line.step for line in read_log(run_folder(COLD))] == [5, 10, 15, 20]
    assert checkpoint_path(run_folder(COLD), 2).stat().st_mtime_ns > before


def test_what_is_done_on_disk_is_not_done_again_unless_it_is_of_another_configuration(settings: Settings) -> None:
    assert not make(settings, "training_run", runs=(COLD,)).failures
    path = checkpoint_path(run_folder(COLD), 2)
    before, expected = path.stat().st_mtime_ns, digests(COLD)

    def again() -> bool:
        """Make the table once more; whether that trained."""
        nonlocal before
        (data_directory() / "store" / "training_run" / f"{COLD}.parquet").unlink()
        assert not make(settings, "training_run", runs=(COLD,)).failures
        assert digests(COLD) == expected
        trained, before = path.stat().st_mtime_ns != before, path.stat().st_mtime_ns
        return trained

    assert not again()
    record = json.loads((run_folder(COLD) / RUN).read_text())
    record["versions"]["torch"] = "1.0"
    (run_folder(COLD) / RUN).write_text(json.dumps(record))
    assert again(), "what an earlier torch has made is not gone on with"
    assert not again()


def test_a_run_starts_from_another_and_says_what_is_missing(settings: Settings) -> None:
    start = f"training/{COLD}/checkpoints/epoch_2.pt"
    warm = changed(runs=[RUNS[0], {**RUNS[1], "start": start}])
    (failure,) = make(warm, "training_run", runs=(WARM,)).failures
    assert f"{start}: a run starts from this checkpoint, and it is not there; list the run that makes it" in failure
    assert not make(warm, "training_run").failures
    cold_row, warm_row = (table_of(warm, "training_run", key).to_pylist()[0] for key in (COLD, WARM))
    assert (warm_row["start"], warm_row["captions"]) == (start, CAPTIONER)
    assert warm_row["log"][0]["loss"] < cold_row["log"][0]["loss"]
    assert state(warm, WARM) == "current"
    assert not make(warm, "training_run", runs=(COLD,), force=True).failures
    assert state(warm, WARM) == "current", "the same weights again"
    longer = changed(runs=[RUNS[0], {**RUNS[1], "start": start}], scale={"samples_seen": 960})
    assert not make(longer, "training_run", runs=(COLD,)).failures
    assert state(warm, WARM) == "stale"


def test_checks_find_a_checkpoint_that_is_gone_or_another_and_a_run_that_learns_nothing(settings: Settings) -> None:
    assert not make(settings, "training_run", runs=(COLD,)).failures
    stage, table = stage_named(settings, "training_run"), table_of(settings, "training_run", COLD)
    work = stage.work(settings.opened_store, COLD, SHARDS)
    for check in ("checkpoints_there", "learns"):
        assert checked(settings, stage, check, work, table).passed
    first, second = (checkpoint_path(run_folder(COLD), number) for number in (1, 2))
    shutil.copy(first, second)
    assert checked(settings, stage, "checkpoints_there", work, table).metadata == {"wrong": 1}
    second.unlink()
    assert not checked(settings, stage, "checkpoints_there", work, table).passed
    assert state(settings, COLD) == "stale"
    lost = table.set_column(table.schema.get_field_index("loss"), "loss", [[2.7, 2.8]])
    found = checked(settings, stage, "learns", work, lost)
    assert (found.passed, found.description) == (False, "the loss is 2.800 in the end, 2.773 for a guess")


def test_a_scale_that_needs_a_gpu_is_refused_with_an_estimate(settings: Settings) -> None:
    import torch

    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    big = changed(runs=[{"subsets": ["all"], "scale": "medium"}])
    outcome = make(big, "training_run")
    assert len(outcome.failures) == 1
    assert "no GPU. The scale medium takes about 38.9 hours of an A100" in outcome.failures[0]
    assert state(big, "all-medium-0") == "missing"
