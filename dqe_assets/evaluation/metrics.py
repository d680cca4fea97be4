"""What zero-shot evaluation measures, in NumPy, from the definitions.

Among equal scores the one with the lower index counts as higher, so that a model that says nothing does not win.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

RECALLS_AT = (1, 5, 10)

_BLOCK_CELLS = 1 << 24


def classification(logits: NDArray[np.floating], labels: NDArray[np.integer]) -> dict[str, float]:
    """Accuracy of a classifier: ``acc1``, ``acc5`` and ``mean_per_class_recall``, each 0 to 1.

    With fewer than five classes every image is right by ``acc5``. The mean of recalls is over the classes that have an
    image (scikit-learn's ``balanced_accuracy_score``).

    Args:
        logits: a score for each class [n, classes].
        labels: the right class of each image [n].

    Raises:
        ValueError: arrays of other shapes, without a row, or with a logit that is not a number or a label that is no
            class.
    """
    return classification_of_ranks(label_ranks(logits, labels), labels)


def classification_of_ranks(ranks: NDArray[np.integer], labels: NDArray[np.integer]) -> dict[str, float]:
    """As ``classification``, from ``label_ranks`` [n] and labels [n]."""
    recalls = group_accuracies(ranks < 1, labels)
    return {
        "acc1": float((ranks < 1).mean()),
        "acc5": float((ranks < 5).mean()),
        "mean_per_class_recall": float(np.mean(list(recalls.values()))),
    }


def label_ranks(logits: NDArray[np.floating], labels: NDArray[np.integer]) -> NDArray[np.int64]:
    """How many classes come before the right one, int64 [n]; 0 where the classifier is right.

    Arguments and errors are those of ``classification``.
    """
    logits, labels = np.asarray(logits), np.asarray(labels)
    if logits.ndim != 2 or labels.shape != (len(logits),) or not len(labels) or labels.dtype.kind not in "iu":
        raise ValueError(
            f"logits are {list(logits.shape)} and labels {labels.dtype} {list(labels.shape)}; "
            "expected [n, classes] and integers [n], of one image or more"
        )
    if np.isnan(logits).any():
        raise ValueError(f"row {np.flatnonzero(np.isnan(logits).any(axis=1))[0]}: a logit is not a number")
    wrong = np.flatnonzero((labels < 0) | (labels >= logits.shape[1]))
    if len(wrong):
        raise ValueError(f"row {wrong[0]}: label {labels[wrong[0]]}; there are {logits.shape[1]} classes")
    return _ranks(logits, labels)


def _ranks(scores: NDArray[np.floating], places: NDArray[np.integer]) -> NDArray[np.int64]:
    """How many scores of each row [n, m] come before the one at its place [n]."""
    found = np.empty(len(scores), np.int64)
    rows, columns = max(1, _BLOCK_CELLS // max(scores.shape[1], 1)), np.arange(scores.shape[1])
    for start in range(0, len(scores), rows):
        block, place = scores[start : start + rows], places[start : start + rows, None]
        own = np.take_along_axis(block, place.astype(np.int64), axis=1)
        found[start : start + rows] = ((block > own) | ((block == own) & (columns < place))).sum(axis=1)
    return found


def retrieval(similarity: NDArray[np.floating], image_of_text: NDArray[np.integer]) -> dict[str, float]:
    """Recall of images by their texts and of texts by their images, at 1, 5 and 10; and the mean of both at 1.

    ``image_retrieval_recall@k`` is the share of texts whose image is among the k most similar images;
    ``text_retrieval_recall@k`` the share of images that have one of their texts among the k most similar texts. An
    image without a text finds none. ``mean_recall@1`` is DataComp's main metric.

    Args:
        similarity: of each image and text [images, texts].
        image_of_text: the image that each text belongs to [texts].

    Raises:
        ValueError: arrays of other shapes, without a text, or with a similarity that is not a number or an image that
            is not there.
    """
    similarity, image_of_text = np.asarray(similarity), np.asarray(image_of_text)
    if similarity.ndim != 2 or image_of_text.shape != similarity.shape[1:] or not similarity.size:
        raise ValueError(
            f"similarity is {list(similarity.shape)} and image_of_text {list(image_of_text.shape)}; "
            "expected [images, texts] and [texts], of one text or more"
        )
    if np.isnan(similarity).any():
        image, text = np.argwhere(np.isnan(similarity))[0].tolist()
        raise ValueError(f"image {image}, text {text}: the similarity is not a number")
    wrong = np.flatnonzero((image_of_text < 0) | (image_of_text >= len(similarity)))
    if len(wrong):
        raise ValueError(f"text {wrong[0]}: image {image_of_text[wrong[0]]}; there are {len(similarity)} images")
    by_text = _ranks(similarity.T, image_of_text)
    by_image = np.full(len(similarity), np.iinfo(np.int64).max)
    step = max(1, _BLOCK_CELLS // similarity.shape[1])
    for start in range(0, len(image_of_text), step):
        texts = np.arange(start, min(start + step, len(image_of_text)))
        images = image_of_text[texts]
        np.minimum.at(by_image, images, _ranks(similarity[images], texts))
    found = {f"image_retrieval_recall@{k}": float((by_text < k).mean()) for k in RECALLS_AT}
    found |= {f"text_retrieval_recall@{k}": float((by_image < k).mean()) for k in RECALLS_AT}
    return found | {"mean_recall@1": (found["image_retrieval_recall@1"] + found["text_retrieval_recall@1"]) / 2}


def group_accuracies(correct: NDArray[np.bool_], groups: NDArray[np.integer]) -> dict[int, float]:
    """The share of correct predictions of each group that has an image, by the group's number.

    Args:
        correct: [n].
        groups: the group of each image [n].
    """
    numbers, inverse, counts = np.unique(groups, return_inverse=True, return_counts=True)
    right = np.bincount(inverse, correct, len(numbers))
    return dict(zip(numbers.tolist(), (right / counts).tolist(), strict=True))


def worst_group_accuracy(correct: NDArray[np.bool_], groups: NDArray[np.integer], ignored: Sequence[int] = ()) -> float:
    """The least accuracy of a group that has an image (WILDS, Koh et al. 2021, arXiv 2012.07421).

    Args:
        correct: [n].
        groups: the group of each image [n].
        ignored: groups that do not count, as the region "Other" of FMoW.

    Raises:
        ValueError: no image is in a group that counts.
    """
    found = [share for group, share in group_accuracies(correct, groups).items() if group not in ignored]
    if not found:
        raise ValueError("no image is in a group that counts")
    return min(found)


def macro_f1(predicted: NDArray[np.integer], labels: NDArray[np.integer]) -> float:
    """The mean over the classes that have an image of 2 tp / (2 tp + fp + fn): iWildCam's main metric.

    Args:
        predicted: classes [n].
        labels: the right ones [n].

    Raises:
        ValueError: there is no image.
    """
    if not len(labels):
        raise ValueError("there is no image")
    classes, inverse = np.unique(labels, return_inverse=True)
    right = np.bincount(inverse, predicted == labels, len(classes))
    there = np.bincount(inverse, minlength=len(classes))
    place = np.clip(np.searchsorted(classes, predicted), 0, len(classes) - 1)
    said = np.bincount(place[classes[place] == predicted], minlength=len(classes))
    return float(np.mean(2 * right / (there + said)))


def association_jaccard(similarity: NDArray[np.floating], associated: NDArray[np.bool_]) -> float:
    """Jaccard index of the images that belong to a cue and the same number of the most similar ones (WinoGAViL).

    Args:
        similarity: of each candidate image and the cue [m].
        associated: which candidates belong to it [m].

    Raises:
        ValueError: none belongs to it.
    """
    count = int(associated.sum())
    if not count:
        raise ValueError("no candidate belongs to the cue")
    chosen = np.argsort(-np.asarray(similarity), kind="stable")[:count]
    both = int(associated[chosen].sum())
    return both / (2 * count - both)


def contrastive_loss(images: NDArray[np.floating], texts: NDArray[np.floating], batch: int = 256) -> float:
    """The contrastive loss of held-out pairs at its best temperature, over ln(batch): 1 is a guess, 0 is perfect.

    It falls smoothly in training, long before accuracy leaves chance. The pairs are taken in order, in batches of equal
    size; those that do not fill a batch are left out.

    Args:
        images: unit vectors [n, d].
        texts: unit vectors of their texts [n, d].
        batch: pairs in a batch; all of them if there are fewer.

    Raises:
        ValueError: fewer than two pairs, or arrays of different shapes.
    """
    from scipy.optimize import minimize_scalar
    from scipy.special import logsumexp

    if images.shape != texts.shape or len(images) < 2:
        raise ValueError(f"images {list(images.shape)} and texts {list(texts.shape)}: expected two pairs or more")
    size = min(batch, len(images))
    count = len(images) // size
    pairs = (np.asarray(one[: count * size], np.float64).reshape(count, size, -1) for one in (images, texts))
    similar = np.matmul(*(one if place == 0 else one.transpose(0, 2, 1) for place, one in enumerate(pairs)))
    own = np.einsum("bii->bi", similar)

    def loss(log_scale: float) -> float:
        logits = np.exp(log_scale) * similar
        both = logsumexp(logits, axis=1) + logsumexp(logits, axis=2)
        return float((both / 2 - np.exp(log_scale) * own).mean() / np.log(size))

    # At an endless temperature all pairs are alike, and the loss is that of a guess.
    return min(1.0, float(minimize_scalar(loss, bounds=(0, np.log(1000)), method="bounded").fun))
