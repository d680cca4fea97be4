"""Images measured: each is decoded once, and everything that is ever asked of its pixels is taken from that."""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from dqe_assets import images
from dqe_assets.arrow import from_matrix, scatter
from dqe_assets.features.measure import measure
from dqe_assets.parallel import ordered_map
from dqe_assets.schemas import IMAGE_FEATURES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from dqe_assets.features.measure import ImageMeasures
    from dqe_resources.image_model import ImageModel

TOP_LABELS = 20


def image_features(
    raw: pa.Table,
    model: ImageModel,
    track: Callable[[Iterable[Any], int], Iterator[Any]] = lambda items, _: iter(items),
) -> pa.Table:
    """One row of ``IMAGE_FEATURES`` for each row of ``raw_samples``; null where there is no image.

    Args:
        raw: columns uid and image of ``raw_samples``.
        model: the backbone.
        track: reports progress over the images.
    """
    uids = raw["uid"]
    rows = np.flatnonzero(raw["image"].is_valid().to_numpy())
    files = raw["image"]

    def prepare(row: int) -> tuple[ImageMeasures, np.ndarray]:
        image = images.decode(files[row]["bytes"].as_py())
        return measure(image), model.preprocess(image)

    measures: list[ImageMeasures] = []
    features: list[np.ndarray] = []
    ids: list[np.ndarray] = []
    probabilities: list[np.ndarray] = []
    prepared = ordered_map(prepare, track(rows.tolist(), len(rows)), ahead=2 * model.batch_size)
    while batch := list(islice(prepared, model.batch_size)):
        measures += [measured for measured, _ in batch]
        embedded = model.embed(np.stack([pixels for _, pixels in batch]))
        features.append(embedded.features)
        top = np.argsort(-embedded.probabilities, axis=1, kind="stable")[:, :TOP_LABELS]
        ids.append(top.astype(np.int16))
        probabilities.append(np.take_along_axis(embedded.probabilities, top, axis=1))
    return _table(uids, rows, measures, features, ids, probabilities, model.class_names)


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
