"""Text in images: where it is and what it reads, by PaddlePaddle's models as the package rapidocr carries them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

import numpy as np
from PIL import Image
from pydantic import Field

from dqe_resources.configurable import Configurable
from dqe_resources.models.packages import package_file, package_version

if TYPE_CHECKING:
    from pathlib import Path

MAX_CANDIDATES = 300
"""Regions of an image that are looked at: a page has about a hundred lines."""

MAX_READ = 50
"""Regions of an image that are read, the largest first; the others keep their place alone."""

MAX_TEXT = 200
"""Characters that are kept of what a region reads."""

_DISTRIBUTION = "rapidocr"


@dataclass(frozen=True, slots=True)
class Region:
    """A line of text in an image.

    Attributes:
        corners: float32 [4, 2], clockwise from the upper left: x and y as shares of the image's width and height.
        score: how sure the detector is, 0 to 1.
        text: what it reads; None if it was not read.
        confidence: how sure the reading is, 0 to 1; None if it was not read.
    """

    corners: np.ndarray
    score: float
    text: str | None = None
    confidence: float | None = None


class TextDetector(Configurable):
    """PP-OCRv6's small models: differentiable binarisation (Liao et al. 2020, arXiv 1911.08947) finds lines of text.

    If lines are read too, what cannot be read as at least two letters or digits does not count as text: the detector
    alone takes a wheel or a button for a letter.

    Attributes:
        longest_side: Longest side in pixels: a larger image is made smaller before text is looked for. At 512, it finds
            letters that are too small for a scorer, which sees 224 or 336 pixels.
        min_score: The detector's score from which a region counts.
        recognise: Whether regions are read.
        min_confidence: How sure the reading must be for a region to count as text.
        fill: What masked_similarity paints over text: the mean colour around each region, or the mean colour of the
            image.
    """

    kind: ClassVar[str] = "rapidocr"

    longest_side: Annotated[int, Field(ge=64, le=4096)] = 512
    min_score: Annotated[float, Field(ge=0, le=1)] = 0.5
    recognise: bool = True
    min_confidence: Annotated[float, Field(ge=0, le=1)] = 0.5
    fill: Literal["surrounding_mean", "image_mean"] = "surrounding_mean"

    def signature(self) -> dict[str, Any]:
        """The models and what decides about regions; what is painted over them is another asset's matter."""
        return {"kind": self.kind, "models": package_version(_DISTRIBUTION), **self.model_dump(exclude={"fill"})}

    def load(self) -> Any:
        """The models, loaded once in a process.

        Raises:
            PackageError: the package with the models is not installed.
        """
        model = package_file(_DISTRIBUTION, "rapidocr", "models/PP-OCRv6_det_small.onnx")
        return _engine(model, self.longest_side, self.min_score)

    def detect(self, image: Image.Image) -> list[Region]:
        """The lines of text in an image, from the top and from the left.

        Args:
            image: RGB, of any size.

        Raises:
            PackageError: the package with the models is not installed.
        """
        scale = min(self.longest_side / max(image.size), 1)
        size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
        small = image.resize(size, Image.Resampling.BILINEAR, reducing_gap=2.0) if scale < 1 else image
        pixels = np.ascontiguousarray(np.asarray(small)[:, :, ::-1])
        engine = self.load()
        found = engine(pixels)
        if found.boxes is None or not len(found.boxes):
            return []
        corners = (np.asarray(found.boxes, np.float32) / np.array(size, np.float32)).clip(0, 1)
        read = self._read(engine, pixels, found.boxes) if self.recognise else {}
        regions = [
            Region(corners[place], float(score), *read.get(place, (None, None)))
            for place, score in enumerate(found.scores)
        ]
        return [one for one in regions if self._is_text(one)]

    def _is_text(self, region: Region) -> bool:
        if region.text is None or region.confidence is None:
            return True
        return region.confidence >= self.min_confidence and sum(map(str.isalnum, region.text)) >= 2

    @staticmethod
    def _read(engine: Any, pixels: np.ndarray, boxes: np.ndarray) -> dict[int, tuple[str, float]]:
        sides = np.asarray(boxes, np.float64)
        areas = np.linalg.norm(sides[:, 1] - sides[:, 0], axis=1) * np.linalg.norm(sides[:, 3] - sides[:, 0], axis=1)
        largest = np.sort(np.argsort(-areas, kind="stable")[:MAX_READ])
        lines = engine.recognize_txt(engine.crop_text_regions(pixels, np.asarray(boxes, np.float32)[largest]))
        texts = (" ".join(text.split())[:MAX_TEXT] for text in lines.txts)
        return dict(zip(largest.tolist(), zip(texts, map(float, lines.scores), strict=True), strict=True))


@cache
def _engine(detection: Path, longest_side: int, min_score: float) -> Any:
    from rapidocr import RapidOCR

    return RapidOCR(
        params={
            "Global.log_level": "error",
            "Global.use_cls": False,
            "Global.use_rec": False,
            "Global.use_preprocess_img": False,
            "Det.model_path": str(detection),
            "Det.limit_type": "max",
            "Det.limit_side_len": longest_side,
            "Det.box_thresh": min_score,
            "Det.max_candidates": MAX_CANDIDATES,
            "Rec.model_path": str(detection.with_name("PP-OCRv6_rec_small.onnx")),
            # Images side by side, each on one core, take less than one image on all cores.
            "EngineConfig.onnxruntime.intra_op_num_threads": 1,
        }
    )
