"""Images measured: each is decoded once, and everything that is ever asked of its pixels is taken from that."""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from dqe_assets.core.arrow import from_matrix, scatter
from dqe_assets.features.measure import measure
from dqe_assets.features.tables import IMAGE_FEATURES
from dqe_resources import images
from dqe_resources.parallel import ordered_map

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from dqe_assets.features.measure import ImageMeasures
    from dqe_resources.models.image_model import ImageModel
    from dqe_resources.scorers.protocol import Scorer

TOP_LABELS = 20
AHEAD = 8


def image_features(
    raw: pa.Table,
    model: ImageModel,
    track: Callable[[Iterable[Any], int], Iterator[Any]] = lambda items, _: iter(items),
) -> pa.Table:
    """One row of ``IMAGE_FEATURES`` for each row of ``raw_samples``; null if there is no image.

    Args:
        raw: columns uid and image of ``raw_samples``.
        model: the backbone.
        track: reports progress over the images.
    """
    uids = raw["uid"]
    rows = np.flatnonzero(raw["image"].is_valid().to_numpy())
    files = raw["image"]

    def extract(batch: list[int]) -> tuple[list[ImageMeasures], np.ndarray, np.ndarray, np.ndarray]:
        decoded = [images.decode(files[row]["bytes"].as_py()) for row in batch]
        embedded = model.embed(np.stack([model.preprocess(image) for image in decoded]))
        top = np.argsort(-embedded.probabilities, axis=1, kind="stable")[:, :TOP_LABELS]
        likeliest = np.take_along_axis(embedded.probabilities, top, axis=1)
        return [measure(image) for image in decoded], embedded.features, top.astype(np.int16), likeliest

    # Whole batches side by side, each on one core: decoding and the model then do not fight for the cores.
    tracked = track(rows.tolist(), len(rows))
    batches = iter(lambda: list(islice(tracked, model.batch_size)), [])
    measures, features, ids, probabilities = [], [], [], []
    for measured, feature, top, likeliest in ordered_map(extract, batches, ahead=AHEAD):
        measures += measured
        features.append(feature)
        ids.append(top)
        probabilities.append(likeliest)
    return _table(uids, rows, measures, features, ids, probabilities, model.class_names)


def read_by(scorer: Scorer, raw: pa.Table, model: ImageModel) -> pa.Table:
    """What a scorer reads of samples that are in no store: the images themselves, or their features.

    Args:
        scorer: the scorer.
        raw: columns uid and image of ``raw_samples``.
        model: the backbone of ``image_features``.
    """
    return (raw if scorer.asset == "raw_samples" else image_features(raw, model)).select(scorer.columns)


def _table(  # noqa: PLR0917
    uids: pa.ChunkedArray,
    rows: np.ndarray,
    measures: list[ImageMeasures],
    features: list[np.ndarray],
    ids: list[np.ndarray],
    probabilities: list[np.ndarray],
    class_names: tuple[str, ...],
) -> pa.Table:
    total = len(uids)
    top = np.concatenate(ids) if ids else np.empty((0, TOP_LABELS), np.int16)
    columns: dict[str, Any] = {
        "uid": uids,
        "embedding": from_matrix(_joined(features), rows, total, pa.float16()),
        "label_ids": from_matrix(top, rows, total, pa.int16()),
        "label_probabilities": from_matrix(_joined(probabilities), rows, total, pa.float32()),
    }
    columns["top_label"] = scatter([class_names[best] for best in top[:, 0]], rows, total, pa.string())
    for name in IMAGE_FEATURES.names[len(columns) :]:
        values = [getattr(measured, name) for measured in measures]
        columns[name] = scatter(values, rows, total, IMAGE_FEATURES.field(name).type)
    return pa.table(columns, schema=IMAGE_FEATURES)


def _joined(arrays: list[np.ndarray]) -> np.ndarray:
    return np.concatenate(arrays) if arrays else np.empty((0, 0), np.float32)
