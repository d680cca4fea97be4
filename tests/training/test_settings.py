"""Which runs the settings plan, and that Dagster's partitions follow them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import dagster as dg
import pytest
import yaml
from pydantic import ValidationError

from dqe_assets.core.partitions import registered
from dqe_assets.core.stage import TRAINING_RUNS
from dqe_assets.orchestration import runner
from dqe_assets.orchestration.sensors import shard_sensor
from dqe_assets.orchestration.settings import load_settings
from dqe_assets.training.scales import SCALES, Scale
from dqe_assets.training.settings import Training

if TYPE_CHECKING:
    from pathlib import Path

TOY = {"model": "ViT-B-32", "samples_seen": "1k", "batch_size": 100, "warmup": 2}


def planned(*runs: dict[str, Any], **values: Any) -> Training:
    return Training.model_validate({"runs": list(runs), "scales": {"toy": TOY}, **values})


def test_the_scales_are_datacomps() -> None:
    assert [(name, one.samples_seen, one.model, one.batch_size) for name, one in SCALES.items()] == [
        ("debug", 128_000, "ViT-B-32", 1024),
        ("small", 12_800_000, "ViT-B-32", 4096),
        ("medium", 128_000_000, "ViT-B-32", 4096),
        ("large", 1_280_000_000, "ViT-B-16", 8192),
        ("xlarge", 12_800_000_000, "ViT-L-14", 90_112),
    ]
    assert [(one.learning_rate, one.warmup, one.beta1, one.beta2) for one in SCALES.values()] == [
        (1e-4, 500, 0.9, 0.98),
        *[(5e-4, 500, 0.9, 0.98)] * 3,
        (1e-3, 10_000, 0.9, 0.95),
    ]
    assert {(one.epsilon, one.weight_decay, one.checkpoints, one.schedule) for one in SCALES.values()} == {
        (1e-6, 0.2, 5, "cosine")
    }
    assert {one.grad_clip_norm for one in SCALES.values()} == {None}


def test_samples_seen_are_rounded_up_to_whole_batches_of_each_checkpoint() -> None:
    assert SCALES["small"].steps_per_checkpoint == 625
    odd = Scale(model="ViT-B-32", samples_seen=1001, batch_size=100, checkpoints=5)
    assert (odd.steps_per_checkpoint, odd.steps) == (2, 10)


def test_each_subset_scale_and_seed_is_a_run() -> None:
    training = planned(
        {"subsets": ["best", "all"], "scale": "small", "seeds": [0, 1]},
        {"subsets": ["all"], "scale": "toy", "captions": "labels"},
        {"subsets": ["all"], "scale": "toy", "captions": {"original": 1, "labels": 3}, "label": "mixed"},
    )
    assert training.keys == [
        "best-small-0",
        "best-small-1",
        "all-small-0",
        "all-small-1",
        "all_with_labels-toy-0",
        "mixed-toy-0",
    ]
    mixed = training.run("mixed-toy-0")
    assert (mixed.data, mixed.captions, mixed.scale.samples_seen) == (
        "all_with_labels_original",
        (("labels", 3.0), ("original", 1.0)),
        1000,
    )
    assert training.run("best-small-1").data == "best"
    with pytest.raises(LookupError, match="no training run best-small-2; there are: best-small-0"):
        training.run("best-small-2")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"runs": [{"subsets": ["all"], "scale": "tiny"}]}, "no scale 'tiny'; allowed: debug, small, medium"),
        ({"scales": {"small": TOY}}, "'small' is a scale of DataComp; rename yours"),
        ({"runs": [{"subsets": ["a", "a"], "scale": "toy"}]}, "two runs are 'a-toy-0'; give one of them a label"),
        ({"runs": [{"subsets": ["a", "b"], "scale": "toy", "label": "c"}]}, "label: one name for 2 subsets"),
        (
            {
                "runs": [
                    {"subsets": ["a"], "scale": "toy", "captions": "b", "label": "x"},
                    {"subsets": ["a_with_b"], "scale": "toy"},
                ]
            },
            "'a_with_b' would be two subsets or captions; rename one of them",
        ),
        ({"scales": {"own": {**TOY, "model": {"embed_dim": 8}}}}, "needs vision_cfg, text_cfg"),
        (
            {"scales": {"own": {**TOY, "schedule": "constant_cooldown", "cooldown_checkpoints": 6}}},
            "6 of 5 checkpoints; give at most as many",
        ),
    ],
)
def test_wrong_settings_are_named(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        Training.model_validate(
            {"scales": {"toy": TOY}}
            | {"runs": values.get("runs", [])}
            | {"scales": {"toy": TOY, **values.get("scales", {})}}
        )


def write_runs(data: Path, *runs: dict[str, Any]) -> None:
    path = data / "dqe.yaml"
    settings = yaml.safe_load(path.read_text())
    path.write_text(yaml.safe_dump({**settings, "training": {"runs": list(runs)}}))


def test_dagsters_partitions_follow_the_runs(data: Path) -> None:
    with dg.DagsterInstance.ephemeral() as instance:
        write_runs(data, {"subsets": ["best"], "scale": "small", "seeds": [0, 1]})
        plan = runner.sync(load_settings(), instance)
        assert (plan.runs.total, plan.runs.add) == (2, ["best-small-0", "best-small-1"])
        assert registered(instance, TRAINING_RUNS) == ["best-small-0", "best-small-1"]

        write_runs(data, {"subsets": ["all", "best"], "scale": "debug"}, {"subsets": ["best"], "scale": "small"})
        context = dg.build_sensor_context(instance)
        tick = shard_sensor(load_settings())(context)
        assert isinstance(tick, dg.SensorResult)
        asked = {type(one).__name__: one.partition_keys for one in tick.dynamic_partitions_requests or ()}
        assert asked == {
            "AddDynamicPartitionsRequest": ["all-debug-0", "best-debug-0"],
            "DeleteDynamicPartitionsRequest": ["best-small-1"],
        }
        runner.sync(load_settings(), instance)
        assert registered(instance, TRAINING_RUNS) == ["all-debug-0", "best-debug-0", "best-small-0"]
        skipped = shard_sensor(load_settings())(dg.build_sensor_context(instance))
        assert isinstance(skipped, dg.SkipReason)
        assert skipped.skip_message == "All 4 shards and 3 training runs are registered."
