"""The third stage: what models say of the images, an asset for each captioner."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dqe_assets import describe
from dqe_assets.caption.synthetic import synthetic_captions
from dqe_assets.checks import complete, covered, unique
from dqe_assets.schemas import SYNTHETIC_CAPTIONS_PREFIX
from dqe_assets.stage import CAPTIONER_PREFIX, MODEL_POOL, Stage, Work, stage

if TYPE_CHECKING:
    import pyarrow as pa

    from dqe_resources.captioners.protocol import Captioner


def captions_of(captioner: Captioner) -> Stage:
    """The asset ``synthetic_captions/<name>``."""
    inputs = dict.fromkeys(("raw_samples", *captioner.requires))

    @stage(
        name=f"{SYNTHETIC_CAPTIONS_PREFIX}{captioner.name}",
        group="captions",
        kinds={"parquet", captioner.kind},
        code_version="1",
        inputs=inputs,
        resources={"captioner": f"{CAPTIONER_PREFIX}{captioner.name}"},
        checks=[unique("uid"), complete(), covered(["caption"], "a caption", minimum=0.98)],
        describe=describe.synthetic_captions,
        pool=MODEL_POOL,
    )
    def synthetic(work: Work, captioner: Captioner) -> pa.Table:
        """What one captioner says of each image: the text as generated, and the straightforward caption made of it."""
        has_image = work.read("raw_samples", ["status"])["status"].to_numpy() == "ok"
        return synthetic_captions(work.read_side_by_side(captioner.requires), has_image, captioner, work.track)

    return synthetic
