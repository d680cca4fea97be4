"""The second stage: each image measured once."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dqe_assets import describe
from dqe_assets.checks import complete, covered, finite, unique
from dqe_assets.features.extract import image_features as extract
from dqe_assets.stage import MODEL_POOL, Work, stage

if TYPE_CHECKING:
    import pyarrow as pa

    from dqe_resources.image_model import ImageModel


@stage(
    group="features",
    kinds={"parquet", "onnx"},
    code_version="1",
    inputs=["raw_samples"],
    checks=[unique("uid"), complete(), covered(["embedding", "perceptual_hash"], "features"), finite("embedding")],
    describe=describe.image_features,
    pool=MODEL_POOL,
)
def image_features(work: Work, image_model: ImageModel) -> pa.Table:
    """Backbone features, ImageNet labels, perceptual hash, sharpness, light and colours, from one decode an image."""
    return extract(work.read("raw_samples", ["uid", "image"]), image_model, work.track)
