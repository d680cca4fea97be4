"""Metrics against scikit-learn's, and against their definitions where it has none."""

import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, balanced_accuracy_score, f1_score, jaccard_score, top_k_accuracy_score

from dqe_assets.evaluation.metrics import (
    association_jaccard,
    classification,
    group_accuracies,
    label_ranks,
    macro_f1,
    retrieval,
    worst_group_accuracy,
)

SEEDS = st.integers(0, 10_000)


@given(st.integers(1, 40), st.integers(1, 12), SEEDS)
@settings(max_examples=80, deadline=None)
def test_classification_is_that_of_scikit_learn(images: int, classes: int, seed: int) -> None:
    random = np.random.default_rng(seed)
    logits, labels = random.normal(size=(images, classes)), random.integers(classes, size=images)
    found = classification(logits, labels)
    predicted = logits.argmax(axis=1)
    assert found["acc1"] == pytest.approx(accuracy_score(labels, predicted))
    if classes > 5:
        assert found["acc5"] == pytest.approx(top_k_accuracy_score(labels, logits, k=5, labels=np.arange(classes)))
    with warnings.catch_warnings(action="ignore"):  # of classes that are predicted and have no image
        assert found["mean_per_class_recall"] == pytest.approx(balanced_accuracy_score(labels, predicted))


@given(st.integers(1, 30), st.integers(1, 9), SEEDS)
@settings(max_examples=80, deadline=None)
def test_among_equal_logits_the_lower_class_is_first(images: int, classes: int, seed: int) -> None:
    random = np.random.default_rng(seed)
    logits, labels = random.integers(3, size=(images, classes)).astype(float), random.integers(classes, size=images)
    order = np.argsort(-logits, axis=1, kind="stable")
    ranks = (order == labels[:, None]).argmax(axis=1)
    assert label_ranks(logits, labels).tolist() == ranks.tolist()
    assert classification(logits, labels)["acc5"] == (ranks < 5).mean()


def test_a_constant_classifier_finds_the_first_class_only() -> None:
    found = classification(np.zeros((10, 10)), np.arange(10))
    assert found == {"acc1": 0.1, "acc5": 0.5, "mean_per_class_recall": 0.1}


@given(st.integers(1, 12), st.integers(1, 30), st.booleans(), SEEDS)
@settings(max_examples=80, deadline=None)
def test_retrieval_is_its_definition(images: int, texts: int, ties: bool, seed: int) -> None:
    random = np.random.default_rng(seed)
    similarity = random.integers(3, size=(images, texts)) if ties else random.normal(size=(images, texts))
    image_of_text = random.integers(images, size=texts)
    found = retrieval(similarity, image_of_text)
    for k in (1, 5, 10):
        nearest_images = np.argsort(-similarity, axis=0, kind="stable")[:k].T
        nearest_texts = np.argsort(-similarity, axis=1, kind="stable")[:, :k]
        by_text = [image in near for image, near in zip(image_of_text, nearest_images, strict=True)]
        by_image = [image in image_of_text[near] for image, near in enumerate(nearest_texts)]
        assert found[f"image_retrieval_recall@{k}"] == pytest.approx(np.mean(by_text))
        assert found[f"text_retrieval_recall@{k}"] == pytest.approx(np.mean(by_image))
    both = (found["image_retrieval_recall@1"] + found["text_retrieval_recall@1"]) / 2
    assert found["mean_recall@1"] == pytest.approx(both)


def test_retrieval_in_blocks_is_that_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    random = np.random.default_rng(0)
    similarity, image_of_text = random.normal(size=(20, 50)), random.integers(20, size=50)
    whole = retrieval(similarity, image_of_text)
    monkeypatch.setattr("dqe_assets.evaluation.metrics._BLOCK_CELLS", 70)
    assert retrieval(similarity, image_of_text) == whole


@given(st.integers(1, 40), st.integers(1, 8), SEEDS)
@settings(max_examples=80, deadline=None)
def test_macro_f1_is_that_of_scikit_learn_over_the_classes_there(images: int, classes: int, seed: int) -> None:
    random = np.random.default_rng(seed)
    labels, predicted = random.integers(classes, size=images), random.integers(classes + 2, size=images)
    expected = f1_score(labels, predicted, average="macro", labels=np.unique(labels), zero_division=0)
    assert macro_f1(predicted, labels) == pytest.approx(expected)


@given(st.integers(1, 12), st.booleans(), SEEDS)
@settings(max_examples=60, deadline=None)
def test_association_is_scored_by_the_jaccard_index(candidates: int, ties: bool, seed: int) -> None:
    random = np.random.default_rng(seed)
    similarity, associated = random.normal(size=candidates), random.random(candidates) < 0.5
    similarity = np.round(similarity) if ties else similarity
    associated[random.integers(candidates)] = True
    nearest = sorted(range(candidates), key=lambda place: (-similarity[place], place))[: associated.sum()]
    chosen = np.isin(np.arange(candidates), nearest)
    assert association_jaccard(similarity, associated) == pytest.approx(jaccard_score(associated, chosen))


@given(st.integers(1, 40), st.integers(1, 8), SEEDS)
@settings(max_examples=60, deadline=None)
def test_the_worst_group_is_that_of_scikit_learn_whichever_groups_are_missing(n: int, groups: int, seed: int) -> None:
    random = np.random.default_rng(seed)
    labels, predicted, of = (random.integers(high, size=n) for high in (3, 3, groups))
    ignored = [0, groups]
    expected = [accuracy_score(labels[of == one], predicted[of == one]) for one in set(of.tolist()) - {*ignored}]
    if expected:
        assert worst_group_accuracy(labels == predicted, of, ignored) == pytest.approx(min(expected))
    else:
        with pytest.raises(ValueError, match="no image is in a group"):
            worst_group_accuracy(labels == predicted, of, ignored)


def test_groups() -> None:
    correct, groups = np.array([True, False, True, True, False]), np.array([3, 3, 0, 0, 7])
    assert group_accuracies(correct, groups) == {0: 1.0, 3: 0.5, 7: 0.0}
    assert worst_group_accuracy(correct, groups) == 0
    assert worst_group_accuracy(correct, groups, ignored=[7]) == 0.5
    with pytest.raises(ValueError, match="no image is in a group"):
        worst_group_accuracy(correct, groups, ignored=[0, 3, 7])


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: classification(np.zeros((2, 3)), np.array([0, 3])), "row 1: label 3; there are 3 classes"),
        (lambda: classification(np.zeros((2, 3)), np.array([0, -1])), "row 1: label -1"),
        (lambda: classification(np.array([[0, np.nan]]), np.array([0])), "row 0: a logit is not a number"),
        (lambda: classification(np.zeros((0, 3)), np.zeros(0, int)), "one image or more"),
        (lambda: classification(np.zeros((2, 3)), np.zeros(2)), "labels float64"),
        (lambda: retrieval(np.zeros((2, 3)), np.array([0, 1])), r"\[images, texts\] and \[texts\]"),
        (lambda: retrieval(np.zeros((2, 2)), np.array([0, 2])), "text 1: image 2; there are 2 images"),
        (lambda: retrieval(np.array([[0, np.nan]]), np.array([0, 0])), "image 0, text 1"),
        (lambda: macro_f1(np.zeros(0, int), np.zeros(0, int)), "no image"),
        (lambda: association_jaccard(np.zeros(3), np.zeros(3, bool)), "no candidate"),
    ],
)
def test_wrong_arguments_are_named(call: object, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        call()
