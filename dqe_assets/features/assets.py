"""The second stage: each image measured once."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dqe_assets.core.checks import complete, covered, finite, unique, without_faults
from dqe_assets.core.stage import MODEL_POOL, stage
from dqe_assets.features import metadata
from dqe_assets.features.extract import image_features as extract
from dqe_assets.features.tables import IMAGE_FEATURES
from dqe_assets.features.views import RELATIONS

if TYPE_CHECKING:
    import pyarrow as pa

    from dqe_assets.core.work import Work
    from dqe_resources.models.image_model import ImageModel


@stage(
    kinds={"parquet", "onnx"},
    relations=RELATIONS,
    code_version="2",
    schema=IMAGE_FEATURES,
    inputs=["raw_samples"],
    checks=[
        unique("uid"),
        complete(),
        covered(["embedding", "perceptual_hash"], "features"),
        finite("embedding"),
        without_faults(),
    ],
    metadata=metadata.image_features,
    pool=MODEL_POOL,
)
def image_features(work: Work, image_model: ImageModel) -> pa.Table:
    """Backbone features, ImageNet labels, perceptual hash, sharpness, light and colours, from one decode an image."""
    return extract(work.read("raw_samples", ["uid", "image"]), image_model, work.track)
