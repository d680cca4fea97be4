"""Training in this process: its steps are those of open_clip_train, and a kill changes nothing."""

from __future__ import annotations

import argparse
import json
import math
from contextlib import contextmanager
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from dqe_assets.training.checkpoints import (
    CheckpointError,
    checkpoint_path,
    checkpoints,
    read_checkpoint,
    weights_digest,
)
from dqe_assets.training.loop import RESUME, Examples, Trainer, TrainingError, train
from dqe_assets.training.loss_log import LogLine, read_log
from dqe_assets.training.scales import Scale
from dqe_assets.training.schedule import batch_order, drawn, learning_rates
from dqe_resources.models.open_clip_loading import import_open_clip, registered_name
from tests.training.toy import MODEL, SCALE, picture

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import torch

TOY = Scale.model_validate(SCALE)


@pytest.fixture(scope="module")
def architecture(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("model") / "walls.json"
    path.write_text(json.dumps(MODEL))
    return str(path)


@pytest.fixture(scope="module")
def examples(architecture: str) -> Examples:
    open_clip = import_open_clip()
    drawings = [picture(number) for number in range(40)]
    tokenize = open_clip.get_tokenizer(registered_name(architecture))
    tokens = [tokenize([one[kind] for one in drawings]).numpy().astype(np.int32) for kind in (1, 2)]
    return Examples(
        np.stack([np.asarray(image) for image, _, _ in drawings]),
        np.stack(tokens, axis=1),
        np.tile([0.25, 0.75], (40, 1)),
        open_clip.OPENAI_DATASET_MEAN,
        open_clip.OPENAI_DATASET_STD,
    )


def batches(examples: Examples, scale: Scale, seed: int) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """What each step sees, put together as in the documentation of open_clip's transforms."""
    import torch

    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (examples.mean, examples.std))
    found = []
    for step in range(scale.steps):
        rows = batch_order(len(examples.images), scale, seed, step)
        kinds = drawn(examples.chances[rows], seed, step)
        images = torch.from_numpy(examples.images[rows]).permute(0, 3, 1, 2).contiguous() / 255
        found.append(((images - mean) / std, torch.from_numpy(examples.tokens[rows, kinds]).long()))
    return found


@contextmanager
def one_thread() -> Iterator[None]:
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def trained_by_open_clip_train(
    examples: Examples, architecture: str, scale: Scale, seed: int
) -> tuple[list[float], dict[str, torch.Tensor]]:
    """The loss of each step and the weights in the end, by open_clip_train's own epoch, optimizer and scheduler."""
    import torch
    from open_clip_train.main import random_seed
    from open_clip_train.scheduler import const_lr_cooldown, cosine_lr
    from open_clip_train.train import train_one_epoch

    open_clip = import_open_clip()
    random_seed(seed, 0)
    model, _, _ = open_clip.create_model_and_transforms(
        registered_name(architecture), "", precision="fp32", device="cpu", output_dict=True
    )
    # As open_clip_train.main makes them, which has no function for it.
    named = list(model.named_parameters())

    def excluded(name: str, parameter: torch.Tensor) -> bool:
        return parameter.ndim < 2 or "bn" in name or "ln" in name or "bias" in name or "logit_scale" in name

    optimizer = torch.optim.AdamW(
        [
            {"params": [p for n, p in named if excluded(n, p)], "weight_decay": 0.0},
            {"params": [p for n, p in named if not excluded(n, p)], "weight_decay": scale.weight_decay},
        ],
        lr=scale.learning_rate,
        betas=(scale.beta1, scale.beta2),
        eps=scale.epsilon,
    )
    if scale.schedule == "cosine":
        scheduler = cosine_lr(optimizer, scale.learning_rate, scale.warmup, scale.steps)
    else:
        cooldown = scale.steps_per_checkpoint * scale.cooldown_checkpoints
        scheduler = const_lr_cooldown(optimizer, scale.learning_rate, scale.warmup, scale.steps, cooldown, 1.0, 0.0)
    losses: list[float] = []
    contrastive = open_clip.ClipLoss(local_loss=True, gather_with_grad=True)

    def loss(**output: Any) -> dict[str, torch.Tensor]:
        found = contrastive(**output)
        losses.append(sum(found.values()).item())
        return found

    arguments = argparse.Namespace(
        device="cpu", precision="fp32", distill=False, accum_freq=1, skip_scheduler=False, horovod=False,
        grad_clip_norm=scale.grad_clip_norm, rank=0, local_rank=0, world_size=1, log_every_n_steps=1000,
        batch_size=scale.batch_size, wandb=False, log_local=False,
    )  # fmt: skip
    every, size = batches(examples, scale, seed), scale.steps_per_checkpoint
    for epoch in range(scale.checkpoints):
        loader = _Loader(every[epoch * size : (epoch + 1) * size], scale.batch_size)
        data = {"train": SimpleNamespace(dataloader=loader, set_epoch=lambda _: None)}
        train_one_epoch(model, data, loss, epoch, optimizer, None, scheduler, None, arguments)
    return losses, model.state_dict()


class _Loader(list[Any]):
    def __init__(self, batches: list[Any], size: int) -> None:
        super().__init__(batches)
        self.num_batches, self.num_samples = len(batches), len(batches) * size


@pytest.mark.parametrize(
    "changes", [{}, {"schedule": "constant_cooldown", "beta2": 0.95}, {"grad_clip_norm": 0.5, "warmup": 0}]
)
def test_each_step_is_that_of_open_clip_train(
    examples: Examples, architecture: str, tmp_path: Path, changes: dict[str, Any]
) -> None:
    scale = Scale.model_validate({**SCALE, **changes})
    with one_thread():
        expected, weights = trained_by_open_clip_train(examples, architecture, scale, 3)
    train(examples, architecture, tmp_path, scale=scale, seed=3, log_every=1)
    log = read_log(tmp_path)
    assert [line.step for line in log] == list(range(1, 41))
    # On some processors a sum is taken in another order, and training makes the last bits' difference grow.
    assert [line.loss for line in log[:10]] == pytest.approx(expected[:10], abs=1e-5)
    assert [line.loss for line in log] == pytest.approx(expected, abs=5e-3)
    assert expected[-1] < 0.7 * expected[0], "it learns, so that a wrong step would show"
    found = read_checkpoint(checkpoint_path(tmp_path, 2))["state_dict"]
    assert found.keys() == weights.keys()
    assert log[-1].logit_scale == pytest.approx(math.exp(weights["logit_scale"].item()), abs=1e-3)


def stopped(at: int) -> Any:
    def report(line: LogLine) -> None:
        if line.step == at:
            raise KeyboardInterrupt

    return report


def digests(folder: Path) -> list[str]:
    return [weights_digest(path) for path in checkpoints(folder).values()]


def curve(folder: Path) -> list[tuple[int, float, float]]:
    return [(line.step, line.loss, line.logit_scale) for line in read_log(folder)]


def test_a_kill_anywhere_changes_nothing_and_the_seed_everything(
    examples: Examples, architecture: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dqe_assets.training.loop._SAVED_EVERY_SECONDS", 0.0)

    def run(name: str, seed: int = 0, **named: Any) -> Path:
        train(examples, architecture, tmp_path / name, scale=TOY, seed=seed, log_every=8, **named)
        return tmp_path / name

    whole = run("whole")
    assert [step for step, _, _ in curve(whole)] == [8, 16, 20, 24, 32, 40]
    for at in (8, 20, 24, 40):
        with pytest.raises(KeyboardInterrupt):
            run("killed", report=stopped(at))
    (tmp_path / "killed" / "log.jsonl").open("a").write('{"step": 99, "samp')
    assert (tmp_path / "killed" / RESUME).exists()
    killed = run("killed")
    assert digests(killed) == digests(whole)
    assert curve(killed) == curve(whole)
    assert not (killed / RESUME).exists()
    assert digests(run("again")) == digests(whole)
    assert len(set(digests(run("other", seed=1))) | set(digests(whole))) == 4


def test_training_leaves_threads_and_random_numbers_as_they_were(
    examples: Examples, architecture: str, tmp_path: Path
) -> None:
    import torch

    torch.set_num_threads(2)
    torch.manual_seed(5)
    np.random.seed(5)  # noqa: NPY002
    expected = torch.rand(1), np.random.rand()  # noqa: NPY002
    torch.manual_seed(5)
    np.random.seed(5)  # noqa: NPY002
    train(examples, architecture, tmp_path, scale=TOY.model_copy(update={"samples_seen": 32}), seed=0)
    assert torch.get_num_threads() == 2
    assert (torch.rand(1), np.random.rand()) == expected  # noqa: NPY002


def test_it_starts_from_a_checkpoint(examples: Examples, architecture: str, tmp_path: Path) -> None:
    train(examples, architecture, tmp_path / "warm", scale=TOY, seed=0, log_every=5)
    start = checkpoint_path(tmp_path / "warm", 2)
    warm, cold = (Trainer(architecture, TOY, 1, one) for one in (start, None))
    weights = read_checkpoint(start)["state_dict"]
    assert all((value == weights[name]).all() for name, value in warm.model.state_dict().items())
    images, tokens = batches(examples, TOY, 7)[0]
    assert warm.step(images, tokens, 0.0) < 0.7 * cold.step(images, tokens, 0.0)


def test_a_checkpoint_is_one_of_open_clips(examples: Examples, architecture: str, tmp_path: Path) -> None:
    train(examples, architecture, tmp_path, scale=TOY.model_copy(update={"samples_seen": 32}), seed=0)
    path = checkpoint_path(tmp_path, 2)
    model, _, _ = import_open_clip().create_model_and_transforms(registered_name(architecture), str(path))
    weights = read_checkpoint(path)["state_dict"]
    assert all((value == weights[name]).all() for name, value in model.state_dict().items())
    (tmp_path / "text.pt").write_text("text")
    with pytest.raises(CheckpointError, match=r"text\.pt: cannot be read as a checkpoint"):
        read_checkpoint(tmp_path / "text.pt")


def test_a_loss_that_is_no_number_ends_it_with_what_to_do(
    examples: Examples, architecture: str, tmp_path: Path
) -> None:
    wild = TOY.model_copy(update={"learning_rate": 1e30, "warmup": 0})
    with pytest.raises(
        TrainingError, match=r"the loss is no number after \d+ steps; lower the learning rate \(1e\+30\)"
    ):
        train(examples, architecture, tmp_path / "wild", scale=wild, seed=0, log_every=1)


def test_every_sample_is_seen_once_in_each_pass_in_another_order() -> None:
    seen = np.concatenate([batch_order(25, TOY, 4, step) for step in range(25)])
    passes = seen.reshape(16, 25)
    assert (np.sort(passes, axis=1) == np.arange(25)).all()
    assert len({tuple(one) for one in passes.tolist()}) == 16
    few = batch_order(3, TOY, 4, 0)
    assert sorted(np.bincount(few)) == [5, 5, 6], "a batch larger than the data repeats them evenly"


def test_captions_are_drawn_by_their_chances_and_never_one_without() -> None:
    chances = np.array([[0.25, 0.75, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0], [1 - 2**-53, 2**-53, 0.0]])
    draws = np.stack([drawn(chances, 0, step) for step in range(4000)])
    assert draws[:, 0].mean() == pytest.approx(0.75, abs=0.03)
    assert [set(draws[:, place].tolist()) for place in range(4)] == [{0, 1}, {1}, {2}, {0}]


def test_learning_rates_rise_then_fall_as_the_schedule_says() -> None:
    rates = learning_rates(TOY, 40)
    assert rates[:5] == pytest.approx([0.00075, 0.0015, 0.00225, 0.003, 0.003])
    assert rates[22] == pytest.approx(0.003 / 2)
    assert rates[-1] == pytest.approx(0.003 * (1 + math.cos(math.pi * 35 / 36)) / 2)
    constant = TOY.model_copy(update={"schedule": "constant_cooldown"})
    rates = learning_rates(constant, 40)
    assert set(rates[4:21]) == {0.003}
    assert rates[20:] == pytest.approx([0.003 * (1 - step / 20) for step in range(20)])
