"""Text in images: where it is, what it reads, and the image without it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from PIL import Image, ImageDraw

from dqe_assets.score.tables import IMAGE_TEXT
from dqe_resources import images
from dqe_resources.parallel import ordered_map

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from numpy.typing import NDArray

    from dqe_resources.models.text_detector import Region, TextDetector

MAX_TEXT = 2_000
"""Characters that are kept of what an image reads."""

AREA_SIDE = 512
"""Side of the grid on which areas are measured."""

RING = 0.3
"""Width of what counts as around a region, in heights of the region."""

AHEAD = 8


def image_text(
    features: pa.Table,
    raw: Iterable[pa.RecordBatch],
    detector: TextDetector,
    track: Callable[[Iterable[Any], int], Iterator[Any]] = lambda items, _: iter(items),
) -> pa.Table:
    """One row of ``IMAGE_TEXT`` for each sample; null if there is no image, or one with a fault.

    Each distinct picture is looked at once.

    Args:
        features: columns uid, pixel_digest and fault of ``image_features``, n rows.
        raw: column image of ``raw_samples``, n rows in batches.
        detector: finds the text.
        track: reports progress over the pictures.
    """
    digests = features["pixel_digest"].combine_chunks().dictionary_encode()
    numbers = digests.indices.fill_null(-1).to_numpy(zero_copy_only=False)
    first = np.unique(numbers, return_index=True)[1]
    first = np.sort(first[numbers[first] >= 0])

    @images.guarded
    def detected(file: bytes) -> list[Region]:
        return detector.detect(images.decode(file, detector.longest_side))

    if len(first):
        detector.load()
    found: dict[int, list[Region] | images.ImageError] = {}
    regions = ordered_map(detected, _files(raw, first), ahead=AHEAD)
    for row, seen in zip(track(first.tolist(), len(first)), regions, strict=True):
        found[int(numbers[row])] = seen
    return pa.Table.from_pylist(
        [
            no_picture if number < 0 else _row(no_picture["uid"], found[number])
            for no_picture, number in zip(features.select(["uid", "fault"]).to_pylist(), numbers.tolist(), strict=True)
        ],
        IMAGE_TEXT,
    )


def _files(raw: Iterable[pa.RecordBatch], rows: NDArray[np.int64]) -> Iterator[bytes]:
    """The image files at some ascending rows."""
    start = 0
    for batch in raw:
        inside = rows[(rows >= start) & (rows < start + batch.num_rows)] - start
        yield from (image["bytes"] for image in batch["image"].take(pa.array(inside)).to_pylist())
        start += batch.num_rows


def _row(uid: str, regions: Sequence[Region] | images.ImageError) -> dict[str, Any]:
    if isinstance(regions, images.ImageError):
        return {"uid": uid, "fault": str(regions)}
    text = " ".join(one.text for one in regions if one.text)[:MAX_TEXT]
    return {
        "uid": uid,
        "regions": [
            {
                "corners": one.corners.ravel().tolist(),
                "score": one.score,
                "text": one.text,
                "confidence": one.confidence,
            }
            for one in regions
        ],
        "text": text or None,
        "text_area": float(covered([one.corners for one in regions], (AREA_SIDE, AREA_SIDE)).mean()),
    }


def corners_of(regions: Sequence[dict[str, Any]]) -> list[NDArray[np.float32]]:
    """The corners of the regions of one row of ``IMAGE_TEXT``, float32 [4, 2] each."""
    return [np.asarray(one["corners"], np.float32).reshape(4, 2) for one in regions]


def covered(corners: Sequence[NDArray[np.float32]], size: tuple[int, int]) -> NDArray[np.bool_]:
    """Which pixels of an image regions cover: bool [height, width].

    Args:
        corners: of each region, float32 [4, 2], shares of width and height.
        size: width and height.
    """
    mask = np.zeros((size[1], size[0]), bool)
    for one in corners:
        box, inside = _drawn(one, size, 0)
        mask[box] |= inside
    return mask


def without_text(
    image: Image.Image, corners: Sequence[NDArray[np.float32]], fill: str = "surrounding_mean"
) -> Image.Image:
    """The image with its text painted over, as T-MARS does (Maini et al. 2023, arXiv 2307.03132).

    Args:
        image: RGB.
        corners: of each region of text, float32 [4, 2], shares of width and height.
        fill: ``surrounding_mean``, the mean colour of a ring around each region that holds no text itself, or
            ``image_mean``, that of everything that is not text. Where there is nothing else, the mean of the image.

    Returns:
        Another image; outside the regions no pixel differs.
    """
    pixels = np.array(image, np.uint8)
    text = covered(corners, image.size)
    mean = _mean(pixels[~text] if not text.all() else pixels.reshape(-1, 3))
    if fill == "image_mean":
        pixels[text] = mean
        return Image.fromarray(pixels)
    colours = [_around(pixels, text, one) for one in corners]
    for one, colour in zip(corners, colours, strict=True):
        box, mask = _drawn(one, image.size, 0)
        pixels[box][mask] = mean if colour is None else colour
    return Image.fromarray(pixels)


def _around(
    pixels: NDArray[np.uint8], text: NDArray[np.bool_], corners: NDArray[np.float32]
) -> NDArray[np.uint8] | None:
    """The mean colour around a region; None if everything there is text."""
    size = (pixels.shape[1], pixels.shape[0])
    sides = np.linalg.norm((np.roll(corners, -1, axis=0) - corners) * size, axis=1)
    width = max(2, round(RING * float(sides.min())))
    box, ring = _drawn(corners, size, width)
    ring &= ~text[box]
    return _mean(pixels[box][ring]) if ring.any() else None


def _drawn(
    corners: NDArray[np.float32], size: tuple[int, int], width: int
) -> tuple[tuple[slice, slice], NDArray[np.bool_]]:
    """A region with a margin: the part of the image that contains it, and which pixels of that part belong to it."""
    points = corners * np.array(size, np.float32) - 0.5
    left, top = np.maximum(np.floor(points.min(axis=0)).astype(int) - width, 0)
    right, bottom = np.minimum(np.ceil(points.max(axis=0)).astype(int) + width + 1, size)
    mask = Image.new("1", (int(right - left), int(bottom - top)))
    canvas = ImageDraw.Draw(mask)
    outline = list(map(tuple, (points - (left, top)).tolist()))
    canvas.polygon(outline, fill=1)
    if width:
        canvas.line([*outline, *outline[:2]], fill=1, width=2 * width, joint="curve")
    return (slice(top, bottom), slice(left, right)), np.array(mask, bool)


def _mean(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return np.round(pixels.mean(axis=0)).astype(np.uint8)
