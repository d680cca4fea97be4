"""Which samples have an image that can be worked on."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc

from dqe_assets.core.schema import FAULT, has_image

if TYPE_CHECKING:
    from dqe_assets.core.work import Work


def pictured(work: Work, asset: str = "raw_samples") -> pa.ChunkedArray:
    """Whether each sample of the shard has an image: bool [n], in the order of ``raw_samples``.

    Args:
        work: the work.
        asset: what is read of the images; one that it found a fault in counts as none.
    """
    with_image = has_image(work.read("raw_samples", ["status"]))
    if asset == "raw_samples":
        return with_image
    return pc.and_(with_image, pc.is_null(work.read(asset, [FAULT.name])[FAULT.name]))
