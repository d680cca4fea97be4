"""Images measured: each is decoded once, and everything that is ever asked of its pixels is taken from that."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from dqe_assets.core.arrow import from_matrix, scatter
from dqe_assets.features.measure import ImageMeasures, measure
from dqe_assets.features.tables import IMAGE_FEATURES
from dqe_resources import images
from dqe_resources.models.image_model import SIDE
from dqe_resources.parallel import ordered_map

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from dqe_resources.models.image_model import ImageModel
    from dqe_resources.scorers.protocol import Scorer

TOP_LABELS = 20
AHEAD = 8


def image_features(
    raw: pa.Table,
    model: ImageModel,
    track: Callable[[Iterable[Any], int], Iterator[Any]] = lambda items, _: iter(items),
) -> pa.Table:
    """One row of ``IMAGE_FEATURES`` for each row of ``raw_samples``; null if there is no image, or one with a fault.

    Args:
        raw: columns uid and image of ``raw_samples``.
        model: the backbone.
        track: reports progress over the images.
    """
    uids = raw["uid"]
    rows = np.flatnonzero(raw["image"].is_valid().to_numpy())
    files = raw["image"]

    @images.guarded
    def looked_at(row: int) -> tuple[ImageMeasures, np.ndarray]:
        image = images.decode(files[row]["bytes"].as_py())
        return measure(image), model.preprocess(image)

    def extract(batch: list[int]) -> _Extracted:
        seen = {row: looked_at(row) for row in batch}
        faults = {row: found for row, found in seen.items() if isinstance(found, images.ImageError)}
        looked = {row: found for row, found in seen.items() if not isinstance(found, images.ImageError)}
        pixels = [preprocessed for _, preprocessed in looked.values()]
        embedded = model.embed(np.stack(pixels) if pixels else np.empty((0, 3, SIDE, SIDE), np.float32))
        top = np.argsort(-embedded.probabilities, axis=1, kind="stable")[:, :TOP_LABELS]
        return _Extracted(
            list(looked),
            [measured for measured, _ in looked.values()],
            embedded.features,
            top.astype(np.int16),
            np.take_along_axis(embedded.probabilities, top, axis=1),
            faults,
        )

    # Whole batches side by side, each on one core: decoding and the model then do not fight for the cores.
    tracked = track(rows.tolist(), len(rows))
    batches = iter(lambda: list(islice(tracked, model.batch_size)), [])
    return _table(uids, list(ordered_map(extract, batches, ahead=AHEAD)), model.class_names)


@dataclass(frozen=True, slots=True)
class _Extracted:
    """What was found of a batch of images: of those at ``rows``, and why not of the others."""

    rows: list[int]
    measures: list[ImageMeasures]
    features: np.ndarray
    label_ids: np.ndarray
    label_probabilities: np.ndarray
    faults: dict[int, images.ImageError]


def read_by(scorer: Scorer, raw: pa.Table, model: ImageModel) -> pa.Table:
    """What a scorer reads of samples that are in no store: the images themselves, or their features.

    Args:
        scorer: the scorer.
        raw: columns uid and image of ``raw_samples``.
        model: the backbone of ``image_features``.
    """
    return (raw if scorer.asset == "raw_samples" else image_features(raw, model)).select(scorer.columns)


def _table(uids: pa.ChunkedArray, extracted: list[_Extracted], class_names: tuple[str, ...]) -> pa.Table:
    total = len(uids)
    rows = np.array([row for batch in extracted for row in batch.rows], np.int64)
    measures = [measured for batch in extracted for measured in batch.measures]
    faults = {row: str(fault) for batch in extracted for row, fault in batch.faults.items()}
    top = _joined([batch.label_ids for batch in extracted], TOP_LABELS)
    matrices = {
        "embedding": _joined([batch.features for batch in extracted]),
        "label_ids": top,
        "label_probabilities": _joined([batch.label_probabilities for batch in extracted]),
    }
    columns: dict[str, Any] = {
        "uid": uids,
        **{name: from_matrix(values, rows, total, _type(name).value_type) for name, values in matrices.items()},
        "top_label": scatter([class_names[best] for best in top[:, 0]], rows, total, pa.string()),
        **{
            name: scatter([getattr(measured, name) for measured in measures], rows, total, _type(name))
            for name in ImageMeasures._fields
        },
        "fault": scatter(list(faults.values()), np.array(list(faults), np.int64), total, pa.string()),
    }
    return pa.table(columns, schema=IMAGE_FEATURES)


def _type(name: str) -> pa.DataType:
    return IMAGE_FEATURES.field(name).type


def _joined(arrays: list[np.ndarray], width: int = 0) -> np.ndarray:
    return np.concatenate(arrays) if arrays else np.empty((0, width), np.float32)
