"""Training by open_clip_train as a process: every flag, its log, kills, and shards that are gone."""

from __future__ import annotations

import argparse
import json
import math
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from dqe_assets.training.checkpoints import checkpoint_path, checkpoints, read_checkpoint, weights_digest
from dqe_assets.training.cost import flops_per_sample, gpu_hours, is_toy
from dqe_assets.training.data import TrainingData, open_data
from dqe_assets.training.device import Device, chosen_device
from dqe_assets.training.loop import TrainingError
from dqe_assets.training.loss_log import LogLine, read_log
from dqe_assets.training.open_clip_run import flags, log_reader, train_with_open_clip
from dqe_assets.training.run_folder import architecture_of, run_folder
from dqe_assets.training.scales import SCALES
from dqe_assets.training.settings import Training
from tests.conftest import environment, killed_run
from tests.training.toy import CAPTIONER, MODEL, SCALE, make, make_folder

if TYPE_CHECKING:
    from collections.abc import Iterator

CPU = Device("open_clip_train", 0, 1)
DATA = "all_with_original_table"
RUN = "all_with_original_table-toy-3"
TRAINING: dict[str, Any] = {
    "runs": [{"subsets": ["all"], "scale": "toy", "seeds": [3], "captions": {"original": 1, CAPTIONER: 1}}],
    "samples_per_shard": 20,
    "scales": {"toy": {**SCALE, "samples_seen": 192, "checkpoints": 3}},
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A data folder with shards to train on; in its path are braces, as open_clip reads them for many shards."""
    data = tmp_path_factory.mktemp("data") / "a {0..3} b"
    with pytest.MonkeyPatch.context() as patch:
        for name in ("DQE_DATA", "DAGSTER_HOME"):
            patch.setenv(name, environment(data)[name])
        outcome = make(
            make_folder(data, 50, TRAINING),
            "raw_samples",
            "reviews",
            f"synthetic_captions/{CAPTIONER}",
            f"training_data/{DATA}",
        )
        assert not outcome.failures
        yield data


def train(data: TrainingData | None = None, report: Any = lambda _: None) -> None:
    run = Training.model_validate(TRAINING).run(RUN)
    run_folder(RUN).mkdir(parents=True, exist_ok=True)
    train_with_open_clip(
        run, data or open_data(run.data), architecture_of(run), run_folder(RUN), CPU, log_every=2, report=report
    )


def digests() -> dict[int, str]:
    return {number: weights_digest(path) for number, path in checkpoints(run_folder(RUN)).items()}


def trainers(data: Path) -> list[int]:
    """Processes that were started with the path of this data folder."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if str(data).encode() in path.read_bytes() and int(path.parent.name) != os.getpid():
                found.append(int(path.parent.name))
        except OSError:
            continue
    return found


@pytest.mark.slow
def test_killed_it_leaves_no_process_and_goes_on_and_a_lost_shard_ends_it(folder: Path) -> None:
    first, data = checkpoint_path(run_folder(RUN), 1), open_data(DATA)
    killed_run("tests.training.test_open_clip_run", "train()", folder, first.exists)
    end = time.monotonic() + 30
    while trainers(folder) and time.monotonic() < end:
        time.sleep(0.05)
    assert not trainers(folder), "what the killed process had started goes on"
    there = digests()
    assert 1 in there
    assert len(there) < 3

    for shard in data.shards[1:]:
        shard.rename(shard.with_suffix(".away"))
    with pytest.raises(TrainingError, match=r"a shard cannot be read \(FileNotFoundError.*run: dqe materialize train"):
        train(data)
    assert not trainers(folder)
    for shard in data.shards[1:]:
        shard.with_suffix(".away").rename(shard)

    lines: list[LogLine] = []
    train(report=lines.append)
    assert digests() | there == digests(), "what was there is gone on from, and not trained again"
    assert list(digests()) == [1, 2, 3]
    log = read_log(run_folder(RUN))
    assert [line.step for line in log] == [1, 3, 4, 5, 7, 8, 9, 11, 12]
    assert [line.samples_seen for line in log] == [16 * line.step for line in log]
    assert log[-len(lines) :] == lines
    state = read_checkpoint(checkpoint_path(run_folder(RUN), 3))
    assert (state["epoch"], state["name"]) == (3, RUN)
    assert not list((run_folder(RUN) / "checkpoints").glob("*.tmp"))


OF_NO_TRAINING = frozenset(
    {
        "csv_separator", "csv_img_key", "csv_caption_key", "wandb_project_name", "zeroshot_frequency", "val_frequency",
        "remote_sync_frequency", "remote_sync_protocol", "coca_caption_loss_weight", "coca_contrastive_loss_weight",
        "lock_image_unlocked_groups", "lock_text_unlocked_layers",
    }
)  # fmt: skip
"""What has a default in open_clip_train and bears on nothing here."""


def parsed(scale: str, device: Device, monkeypatch: pytest.MonkeyPatch) -> tuple[argparse.Namespace, set[str]]:
    """What open_clip_train reads of our arguments, and which of its options have a default that was not given."""
    from open_clip_train.params import parse_args

    actions: list[argparse.Action] = []
    add = argparse.ArgumentParser.add_argument

    def recorded(parser: argparse.ArgumentParser, *names: Any, **options: Any) -> argparse.Action:
        actions.append(add(parser, *names, **options))
        return actions[-1]

    run = Training.model_validate({"runs": [{"subsets": ["all"], "scale": scale, "seeds": [7]}]}).run(f"all-{scale}-7")
    data = TrainingData(Path("/data"), 30_000, "", tuple(Path(f"/data/{n:08d}.tar") for n in range(3)))
    given = flags(run, data, str(run.scale.model), Path("/runs") / run.key, device, 100)
    monkeypatch.setattr(argparse.ArgumentParser, "add_argument", recorded)
    arguments = parse_args(given)
    names = {word.removeprefix("--").replace("-", "_") for word in given if word.startswith("--")}
    with_default = {one.dest for one in actions if one.default not in (None, False, "", {}, argparse.SUPPRESS)}
    return arguments, with_default - names


@pytest.mark.parametrize("scale", SCALES)
def test_no_flag_of_open_clip_train_is_left_to_its_default(scale: str, monkeypatch: pytest.MonkeyPatch) -> None:
    arguments, left = parsed(scale, Device("open_clip_train", 8, 4), monkeypatch)
    assert left <= OF_NO_TRAINING
    wanted = SCALES[scale]
    assert arguments.batch_size * 8 == wanted.batch_size
    assert arguments.train_num_samples * arguments.epochs == wanted.samples_seen
    assert (arguments.epochs, arguments.warmup, arguments.model) == (5, wanted.warmup, wanted.model)
    assert (arguments.lr, arguments.beta1, arguments.beta2, arguments.eps, arguments.wd) == (
        *(wanted.learning_rate, wanted.beta1, wanted.beta2),
        *(1e-6, 0.2),
    )
    assert (arguments.precision, arguments.device, arguments.seed, arguments.workers) == ("amp", "cuda", 7, 4)
    assert arguments.train_data == "{00000000..00000002}.tar"
    assert (arguments.resume, arguments.save_frequency, arguments.lr_scheduler) == ("latest", 1, "cosine")
    assert arguments.aug_cfg == {"scale": (0.9, 1.0)}
    for switch in ("dataset_resampled", "local_loss", "gather_with_grad", "grad_checkpointing", "ddp_static_graph"):
        assert getattr(arguments, switch) is True


LOG = (
    "2026-11-29,22:57:06 | INFO | Train Epoch: 3 [   1228800/2560000 (48%)] Data (t): 0.235 Batch (t): 1.580, "
    "2592.41/s, 324.051/s/gpu LR: 0.000276 Logit Scale: 14.235 Contrastive_loss: 3.2062 (3.2062) Loss: 3.2062 (3.2062)"
)


def test_a_line_of_its_log_becomes_one_of_ours() -> None:
    read = log_reader(SCALES["small"], Device("open_clip_train", 8, 5))
    assert read("2026-11-29,22:57:06 | INFO | Start epoch 3") is None
    line = read(LOG)
    assert line is not None
    assert (line.step, line.samples_seen, line.loss, line.logit_scale) == (3 * 625 + 300, 2175 * 4096, 3.2062, 14.235)
    assert line.learning_rate == pytest.approx(0.0005 / 2 * (1 + math.cos(math.pi * 1674 / 2625)))
    assert (line.seconds, line.waited) == (pytest.approx(300 * 1.58), pytest.approx(300 * 0.235))
    following = read(LOG.replace("1228800", "1638400"))
    assert following is not None
    assert (following.step, following.seconds) == (3 * 625 + 400, pytest.approx(100 * 1.58))
    unstable = read(LOG.replace("3.2062", "nan"))
    assert unstable is not None
    assert math.isnan(unstable.loss)


@pytest.fixture(scope="module")
def architecture(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("model") / "walls.json"
    path.write_text(json.dumps(MODEL))
    return str(path)


def chosen(scale: str, there: int, **settings: Any) -> Device:
    values = {"runs": [{"subsets": ["all"], "scale": scale}], "scales": {"toy": SCALE}, **settings}
    training = Training.model_validate(values)
    run = training.run(f"all-{scale}-0")
    return chosen_device(run, ARCHITECTURE or str(run.scale.model), training, there)


ARCHITECTURE = ""


@pytest.mark.slow
def test_what_a_run_is_trained_on(architecture: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert chosen("small", 8) == Device("open_clip_train", 8, 4)
    assert chosen("small", 8, gpus=2, workers=6) == Device("open_clip_train", 2, 6)
    assert chosen("debug", 1) == Device("open_clip_train", 1, 4)
    with pytest.raises(
        TrainingError, match=r"no GPU\. The scale small takes about 3\.\d* hours of an A100 \(5\.7e\+17"
    ):
        chosen("small", 0)
    with pytest.raises(TrainingError, match=r"has 1 of the 2 GPUs of training\.gpus"):
        chosen("small", 1, gpus=2)
    with pytest.raises(TrainingError, match="a batch of 4,096 cannot be divided among 3 GPUs"):
        chosen("small", 3)
    monkeypatch.setitem(globals(), "ARCHITECTURE", architecture)
    assert chosen("toy", 8) == Device("this_process", 0, 1)
    assert chosen("toy", 0) == Device("this_process", 0, 1)
    assert chosen("toy", 1, trainer="open_clip_train", workers=2) == Device("open_clip_train", 1, 2)
    assert chosen("toy", 0, trainer="open_clip_train", workers=2) == Device("open_clip_train", 0, 2)


@pytest.mark.slow
def test_arithmetic_is_counted_from_the_model(architecture: str) -> None:
    # A ViT-B/32 at 224 pixels with a text tower of 12 layers: 14.8 GFLOPs forward, as open_clip's table says.
    assert flops_per_sample("ViT-B-32") == pytest.approx(3 * 14.78e9, rel=0.01)
    hours = {name: gpu_hours(str(scale.model), scale) for name, scale in SCALES.items()}
    paper = {"small": 4, "medium": 40, "large": 960, "xlarge": 81_920}
    assert all(0.5 < hours[name] / paper[name] < 1.2 for name in paper)
    assert is_toy(architecture, Training.model_validate(TRAINING).scales["toy"])
    assert not is_toy("ViT-B-32", SCALES["debug"])
