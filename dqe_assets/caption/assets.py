"""The third stage: what models say of the images, an asset for each captioner."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dqe_assets import describe
from dqe_assets.caption.synthetic import synthetic_captions
from dqe_assets.checks import complete, covered, unique
from dqe_assets.schemas import SYNTHETIC_CAPTIONS_PREFIX, schema_of
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
        raw = work.read("raw_samples", None if "raw_samples" in captioner.requires else ["uid", "status"])
        samples = raw
        for asset in captioner.requires:
            if asset != "raw_samples":
                for name in schema_of(asset).names[1:]:
                    samples = samples.append_column(name, work.read(asset, [name])[name])
        return synthetic_captions(samples, (raw["status"].to_numpy() == "ok"), captioner, work.track)

    return synthetic
