"""Evaluation of a real, small model against a plain loop over open_clip."""

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dqe_assets.evaluation.metrics import contrastive_loss, retrieval
from dqe_assets.evaluation.tasks import Task, TaskError
from dqe_assets.evaluation.zero_shot import Grouping, evaluate
from dqe_resources.models.open_clip_models import OpenClipSettings
from dqe_resources.models.open_clip_network import OpenClipNetwork
from tests.evaluation import made_tasks
from tests.evaluation.made_tasks import COLOURS, TEMPLATES, picture

NAMES = list(COLOURS)


@pytest.fixture(scope="module")
def network(tiny_clip: Path) -> OpenClipNetwork:
    return OpenClipSettings(architecture=f"local-dir:{tiny_clip}").load()


def embedded(network: OpenClipNetwork, files: list[bytes], texts: list[str]) -> tuple[np.ndarray, np.ndarray]:
    """Unit vectors of images and texts, one by one, by open_clip alone."""
    import torch

    with torch.inference_mode():
        pixels = [network.preprocess(Image.open(io.BytesIO(file)).convert("RGB"))[None] for file in files]
        images = [network.module.encode_image(one, normalize=True)[0].numpy() for one in pixels]
        words = [network.module.encode_text(network.tokenizer([text]), normalize=True)[0].numpy() for text in texts]
    return np.stack(images), np.stack(words)


def test_classification_is_that_of_a_plain_loop(network: OpenClipNetwork, tmp_path: Path) -> None:
    task = Task(str(made_tasks.classification(tmp_path, images=25, classes=4)))
    found = evaluate(network, task, batch_size=5, grouping=Grouping(0))
    samples = list(task.labelled())
    texts = [template.replace("{c}", name) for name in NAMES for template in TEMPLATES]
    images, words = embedded(network, [one.image for one in samples], texts)
    classes = words.reshape(len(NAMES), len(TEMPLATES), -1).mean(axis=1)
    predicted = (images @ (classes / np.linalg.norm(classes, axis=1, keepdims=True)).T).argmax(axis=1)
    labels, groups = (np.array(values) for values in zip(*((one.label, one.about[0]) for one in samples), strict=True))
    right = predicted == labels
    assert found.images == 25
    assert 0 < found.metrics["acc1"] == right.mean()
    assert found.metrics["acc5"] == 1
    assert found.metrics["mean_per_class_recall"] == pytest.approx(
        np.mean([right[labels == k].mean() for k in range(4)])
    )
    assert found.metrics["acc_wg"] == min(right[groups == group].mean() for group in (0, 1))
    assert found.classes == tuple((NAMES[k], 7 if k == 0 else 6, int(right[labels == k].sum())) for k in range(4))


def test_retrieval_is_that_of_a_plain_loop(network: OpenClipNetwork, tmp_path: Path) -> None:
    task = Task(str(made_tasks.retrieval(tmp_path)))
    found = evaluate(network, task, batch_size=5)
    samples = list(task.captioned())
    images, words = embedded(
        network, [one.image for one in samples], [text for one in samples for text in one.captions]
    )
    expected = retrieval(images @ words.T, np.repeat(np.arange(12), 2))
    assert {name: found.metrics[name] for name in expected} == pytest.approx(expected)
    assert found.metrics["contrastive_loss"] == pytest.approx(contrastive_loss(images, words[::2]), rel=1e-3)


def test_what_cannot_be_read_is_left_out_and_named(network: OpenClipNetwork, tmp_path: Path) -> None:
    more = {"broken.png": b"no image", "broken.cls": b"0", "empty.cls": b"1"}
    whole = evaluate(network, Task(str(made_tasks.classification(tmp_path / "whole"))), batch_size=4)
    found = evaluate(network, Task(str(made_tasks.classification(tmp_path / "torn", more=more))), batch_size=4)
    assert found.metrics == whole.metrics
    assert found.images == 24
    assert [key for key, _ in found.left_out] == ["empty", "broken"] or [key for key, _ in found.left_out] == [
        "broken",
        "empty",
    ]


def test_an_association_is_scored(network: OpenClipNetwork, tmp_path: Path) -> None:
    images = [{"bytes": picture(colour, seed), "path": None} for seed in range(3) for colour in COLOURS.values()]
    names = [f"{place}" for place in range(12)]
    rows = [
        {"candidate_images": images, "candidates": names, "cue": "red", "associations": names[:3]},
        {"candidate_images": images[:5], "candidates": names[:5], "cue": "orange", "associations": names[:2]},
        {"candidate_images": [{"bytes": b"?", "path": None}], "candidates": ["0"], "cue": "x", "associations": ["0"]},
    ]
    found = evaluate(network, Task(str(made_tasks.parquet(tmp_path, rows))))
    vectors, cues = embedded(network, [one["bytes"] for one in images], ["A red", "An orange"])
    scores = []
    for cue, count, belonging in ((cues[0], 12, 3), (cues[1], 5, 2)):
        chosen = set(np.argsort(-(vectors[:count] @ cue), kind="stable")[:belonging].tolist())
        scores.append(len(chosen & set(range(belonging))) / len(chosen | set(range(belonging))))
    assert found.metrics["jaccard_score_10-12"] == scores[0]
    assert found.metrics["jaccard_score_5-6"] == scores[1]
    assert found.metrics["avg_jaccard_score"] == np.mean(scores)
    assert [key for key, _ in found.left_out] == ["test.parquet, row 2"]


def test_a_task_without_a_readable_image_is_an_error(network: OpenClipNetwork, tmp_path: Path) -> None:
    made_tasks.classification(tmp_path, images=0, shards=1, more={"a.png": b"?", "a.cls": b"0"})
    with pytest.raises(TaskError, match="none of its images can be read"):
        evaluate(network, Task(str(tmp_path)))


def test_a_missing_group_is_named(network: OpenClipNetwork, tmp_path: Path) -> None:
    task = Task(str(made_tasks.classification(tmp_path)))
    with pytest.raises(TaskError, match=r"sample s0000: its \.npy has no value 2"):
        evaluate(network, task, grouping=Grouping(2))


def test_contrastive_loss_of_perfect_pairs_is_none_and_of_strangers_that_of_a_guess() -> None:
    vectors = np.eye(64, dtype=np.float32)
    strangers = np.random.default_rng(0).permutation(vectors)
    assert contrastive_loss(vectors, vectors, batch=16) < 1e-6
    assert contrastive_loss(vectors, strangers, batch=64) == pytest.approx(1, abs=0.02)
    with pytest.raises(ValueError, match="two pairs or more"):
        contrastive_loss(vectors[:1], vectors[:1])
