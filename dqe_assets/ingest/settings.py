"""The settings of ingest."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from dqe_resources.configurable import Strict


class ImageLimits(Strict):
    """What is refused before it is decoded, and what is made smaller.

    Attributes:
        max_bytes: A file of more bytes is not read.
        max_pixels: An image of more pixels is not decoded.
        longest_side: Longest side in pixels: a larger image is resized to it. By default all are kept as found.
    """

    max_bytes: Annotated[int, Field(ge=1)] = 50_000_000
    max_pixels: Annotated[int, Field(ge=1, le=178_000_000)] = 100_000_000
    longest_side: Annotated[int, Field(ge=16)] | None = None
