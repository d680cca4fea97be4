"""Reading measured accuracies: the table that ``concepts.measurements`` in data/dqe.yaml names.

A table has a row for each concept and the columns ``concept``, ``count`` (samples of the training data that show it)
and ``accuracy`` (of a zero-shot classifier on it, 0 to 1); with a column ``model``, each model is fitted by itself.
Other columns are left alone. Every fault is said by file and row.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow.compute as pc

from dqe_assets.core.measurements import MeasurementsError, file_bytes, finite_number, table_rows
from dqe_assets.core.schema import IMAGE

if TYPE_CHECKING:
    from collections.abc import Mapping

    import pyarrow as pa

EXAMPLE_FILE = Path(__file__).with_name("example.csv")

TRAINED_ASSET = "concept_accuracies"

LEAST_CONCEPTS = 10
"""Concepts that a fit needs at least."""

_MODEL = "model"
_MOST_FAULTS = 10


@dataclass(frozen=True, slots=True)
class MeasuredConcepts:
    """What one model was measured on.

    Attributes:
        model: its name.
        concepts: the concepts, [n].
        counts: samples of its training data that show each, int64 [n].
        accuracy: its zero-shot accuracy on each, float64 [n], 0 to 1.
    """

    model: str
    concepts: tuple[str, ...]
    counts: np.ndarray
    accuracy: np.ndarray


def read_accuracies(path: Path) -> list[MeasuredConcepts]:
    """The models of a table, in its order.

    Raises:
        MeasurementsError: something cannot be read, an accuracy lies outside 0 to 1, a count is no whole number of
            samples, a concept stands twice, a model has too few concepts. Says the file and the row of each fault.
    """
    faults: list[str] = []
    models: dict[str, dict[str, tuple[int, float]]] = {}
    for place, row in table_rows(path):
        try:
            model, concept, count, accuracy = _measured(row)
        except MeasurementsError as error:
            faults.append(f"{path}, {place}: {error}")
            continue
        concepts = models.setdefault(model, {})
        if concept in concepts:
            faults.append(f"{path}, {place}: '{concept}' of {model} stands twice")
        concepts[concept] = (count, accuracy)
    if not faults:
        faults += [
            f"{path}: {model} has {len(concepts)} concepts; a fit needs at least {LEAST_CONCEPTS}"
            for model, concepts in models.items()
            if len(concepts) < LEAST_CONCEPTS
        ]
    if not models and not faults:
        faults.append(f"{path}: no measurements")
    if faults:
        more = [f"... and {len(faults) - _MOST_FAULTS} more"] if len(faults) > _MOST_FAULTS else []
        raise MeasurementsError("\n".join(faults[:_MOST_FAULTS] + more))
    return [
        MeasuredConcepts(
            model,
            tuple(concepts),
            np.array([count for count, _ in concepts.values()], np.int64),
            np.array([accuracy for _, accuracy in concepts.values()], np.float64),
        )
        for model, concepts in models.items()
    ]


def trained_accuracies(table: pa.Table, count_by: str) -> list[MeasuredConcepts]:
    """What was trained here, by subset and scale, with the images of all seeds together.

    Args:
        table: data, scale, task, class_name, caption_samples, image_samples, images and correct of the asset
            ``concept_accuracies``.
        count_by: ``image`` counts images, and leaves out classes that no image was looked at for; all else counts the
            captions that were trained with.
    """
    counted = "image_samples" if count_by == IMAGE else "caption_samples"
    models: dict[str, dict[str, list[float]]] = {}
    several = len(pc.unique(table["task"])) > 1
    for row in table.to_pylist():
        if row[counted] is not None:
            concept = f"{row['task']}: {row['class_name']}" if several else row["class_name"]
            concepts = models.setdefault(f"{row['data']}, {row['scale']}", {})
            known = concepts.setdefault(concept, [row[counted], 0, 0])
            known[1] += row["correct"]
            known[2] += row["images"]
    return [
        MeasuredConcepts(
            model,
            tuple(concepts),
            np.array([round(count) for count, _, _ in concepts.values()], np.int64),
            np.array([correct / images for _, correct, images in concepts.values()], np.float64),
        )
        for model, concepts in models.items()
    ]


def content_digest(path: Path) -> str:
    """Digest of a table: a fit is current while it stays the same.

    Raises:
        MeasurementsError: it cannot be read.
    """
    return hashlib.blake2b(file_bytes(path), digest_size=16).hexdigest()


def _measured(row: Mapping[str, Any]) -> tuple[str, str, int, float]:
    missing = [name for name in ("concept", "count", "accuracy") if row.get(name) in (None, "")]
    if missing:
        raise MeasurementsError(f"no {', '.join(missing)}; needed: concept, count, accuracy")
    count, accuracy = finite_number("count", row["count"]), finite_number("accuracy", row["accuracy"])
    if count < 0 or count != round(count):
        raise MeasurementsError(f"count is {count:g}, it must be a whole number, 0 or more")
    if not 0 <= accuracy <= 1:
        raise MeasurementsError(f"accuracy is {accuracy:g}, it must be from 0 to 1; divide percentages by 100")
    return str(row.get("model") or _MODEL), str(row["concept"]), round(count), accuracy
