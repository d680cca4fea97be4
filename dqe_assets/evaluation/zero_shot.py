"""A model on a task: embeddings are computed once, and every metric is made of them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from dqe_assets.evaluation import metrics
from dqe_assets.evaluation.tasks import PLACEHOLDER, Task, TaskError
from dqe_resources.images import ImageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from numpy.typing import NDArray

    from dqe_resources.models.open_clip_network import OpenClipNetwork

T = TypeVar("T")

LARGE_ASSOCIATIONS = 10
"""Candidates from which an association of WinoGAViL counts for its main metric."""


@dataclass(frozen=True)
class Grouping:
    """How the images of a task are grouped, for the accuracy of its worst group.

    Attributes:
        by: the column of what is known of an image (its ``.npy``).
        ignored: values of that column that do not count.
    """

    by: int
    ignored: tuple[int, ...] = ()


@dataclass(frozen=True)
class Result:
    """What a model does on a task.

    Attributes:
        metrics: by name; shares are 0 to 1.
        images: images that were evaluated.
        left_out: samples without an image that can be read, with the reason.
        classes: for classification, the names of the classes that have an image, with images and correct answers.
    """

    metrics: dict[str, float]
    images: int
    left_out: tuple[tuple[str, str], ...] = ()
    classes: tuple[tuple[str, int, int], ...] = ()


@dataclass
class _Read:
    """Takes samples one by one, keeps what is not an image, and remembers those that cannot be read."""

    left_out: list[tuple[str, str]] = field(default_factory=list)

    def embed(
        self,
        network: OpenClipNetwork,
        samples: Iterable[T],
        image: Callable[[T], tuple[str, bytes | None]],
        batch_size: int,
    ) -> Iterator[tuple[list[T], NDArray[np.float32]]]:
        """The samples that have a readable image, a batch at a time, and the unit vectors of these images."""
        waiting: list[T] = []

        def files() -> Iterator[bytes]:
            for sample in samples:
                key, content = image(sample)
                if content is None:
                    self.left_out.append((key, "has no image"))
                else:
                    waiting.append(sample)
                    yield content

        for vectors, errors in network.embed_readable_images(files(), batch_size):
            taken, waiting[: len(errors)] = waiting[: len(errors)], []
            kept = []
            for sample, error in zip(taken, errors, strict=True):
                if isinstance(error, ImageError):
                    self.left_out.append((image(sample)[0], str(error)))
                else:
                    kept.append(sample)
            yield kept, vectors


def evaluate(
    network: OpenClipNetwork,
    task: Task,
    *,
    batch_size: int = 64,
    grouping: Grouping | None = None,
) -> Result:
    """Everything that is measured of a model on a task.

    - Classification: ``acc1``, ``acc5``, ``mean_per_class_recall``, ``F1-macro_all``; with a grouping ``acc_wg`` and
      ``acc_top5_wg``, of the worst group (``acc_worst_region`` is the first, as it is called for FMoW). A class is the
      mean of its name's unit vectors in all templates.
    - Retrieval: the recalls of ``metrics.retrieval``, and ``contrastive_loss`` of images and their first captions.
    - Association: ``jaccard_score_5-6``, ``jaccard_score_10-12`` (where there are any) and ``avg_jaccard_score``.

    Args:
        network: the model.
        task: the task.
        batch_size: images, or texts, at a time.
        grouping: of the images of a classification task.

    Raises:
        TaskError: the task cannot be read, or none of its images can.
    """
    made = {"classification": _classify, "retrieval": _retrieve, "association": _associate}[task.kind]
    result = made(network, task, batch_size, grouping)
    if not result.images:
        raise TaskError(f"{task.url}: none of its images can be read")
    return result


def class_vectors(
    network: OpenClipNetwork, names: Sequence[str], templates: Sequence[str], batch_size: int
) -> NDArray[np.float32]:
    """The unit vector of each class, float32 [classes, d] (Radford et al. 2021, arXiv 2103.00020, 3.1.4)."""
    texts = [template.replace(PLACEHOLDER, name) for name in names for template in templates]
    vectors = network.embed_texts(texts, batch_size).vectors.reshape(len(names), len(templates), -1)
    return _unit(vectors.mean(axis=1))


def _unit(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    return vectors / np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), np.finfo(np.float32).tiny)


def _classify(
    network: OpenClipNetwork,
    task: Task,
    batch_size: int,
    grouping: Grouping | None,
) -> Result:
    names = task.class_names
    classes = class_vectors(network, names, task.templates, batch_size)
    read = _Read()
    ranks, predicted, labels, groups = [], [], [], []
    for samples, vectors in read.embed(network, task.labelled(), lambda one: (one.key, one.image), batch_size):
        if not samples:
            continue
        logits, right = vectors @ classes.T, np.array([one.label for one in samples])
        ranks.append(metrics.label_ranks(logits, right))
        predicted.append(logits.argmax(axis=1))
        labels.append(right)
        if grouping is not None:
            groups += [_group(task, one.key, one.about, grouping.by) for one in samples]
    if not labels:
        return Result({}, 0, tuple(read.left_out))
    rank, right = np.concatenate(ranks), np.concatenate(labels)
    found = metrics.classification_of_ranks(rank, right)
    found["F1-macro_all"] = metrics.macro_f1(np.concatenate(predicted), right)
    if grouping is not None:
        of = np.array(groups)
        found["acc_wg"] = metrics.worst_group_accuracy(rank < 1, of, grouping.ignored)
        found["acc_worst_region"] = found["acc_wg"]
        found["acc_top5_wg"] = metrics.worst_group_accuracy(rank < 5, of, grouping.ignored)
    images, correct = (np.bincount(right[mask], minlength=len(names)) for mask in (rank >= 0, rank < 1))
    by_class = [(name, int(n), int(k)) for name, n, k in zip(names, images, correct, strict=True) if n]
    return Result(found, len(right), tuple(read.left_out), tuple(by_class))


def _group(task: Task, key: str, about: NDArray[np.integer] | None, by: int) -> int:
    if about is None or by >= len(about):
        raise TaskError(f"{task.url}, sample {key}: its .npy has no value {by}, by which images are grouped")
    return int(about[by])


def _retrieve(
    network: OpenClipNetwork,
    task: Task,
    batch_size: int,
    _: Grouping | None,
) -> Result:
    read = _Read()
    captions: list[tuple[str, ...]] = []
    images = [np.empty((0, network.dimension), np.float32)]
    for samples, vectors in read.embed(network, task.captioned(), lambda one: (one.key, one.image), batch_size):
        captions += [one.captions for one in samples]
        images.append(vectors)
    if not captions:
        return Result({}, 0, tuple(read.left_out))
    vectors = np.concatenate(images)
    counts = np.array([len(one) for one in captions])
    texts = network.embed_texts([text for one in captions for text in one], batch_size).vectors
    found = metrics.retrieval(vectors @ texts.T, np.repeat(np.arange(len(captions)), counts))
    if len(captions) > 1:
        first = np.concatenate([[0], np.cumsum(counts)[:-1]])
        found["contrastive_loss"] = metrics.contrastive_loss(vectors, texts[first])
    return Result(found, len(captions), tuple(read.left_out))


def _associate(network: OpenClipNetwork, task: Task, batch_size: int, _: Grouping | None) -> Result:
    scores, sizes, images = [], [], 0
    left_out: list[tuple[str, str]] = []
    for one in task.associations():
        cue = f"{'An' if one.cue[:1].lower() in set('aeiou') else 'A'} {one.cue.lower()}"
        embedded = list(network.embed_readable_images(one.images, batch_size))
        wrong = [str(error) for _, errors in embedded for error in errors if error is not None]
        if wrong:
            left_out.append((one.key, wrong[0]))
            continue
        candidates = np.concatenate([vectors for vectors, _ in embedded])
        similarity = candidates @ network.embed_texts([cue], 1).vectors[0]
        scores.append(metrics.association_jaccard(similarity, one.belongs))
        sizes.append(len(candidates))
        images += len(candidates)
    if not scores:
        return Result({}, 0, tuple(left_out))
    score, size = np.array(scores), np.array(sizes)
    found = {"avg_jaccard_score": float(score.mean())}
    for name, rows in (
        ("jaccard_score_5-6", size < LARGE_ASSOCIATIONS),
        ("jaccard_score_10-12", size >= LARGE_ASSOCIATIONS),
    ):
        if rows.any():
            found[name] = float(score[rows].mean())
    return Result(found, images, tuple(left_out))
