"""The scorer for any open_clip model: CLIP, SigLIP and their successors."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import model_validator
from pydantic_core import PydanticCustomError

from dqe_resources.models.open_clip_models import OpenClipSettings
from dqe_resources.scorers.presets import PRESETS, PresetName
from dqe_resources.scorers.protocol import Scorer

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    import numpy as np
    import pyarrow as pa

    from dqe_resources.models.text_encoders.protocol import TextEmbeddings


class OpenClipScorer(OpenClipSettings, Scorer):
    """Contrastive models (CLIP, Radford et al. 2021, arXiv 2103.00020) as open_clip has them.

    An image is prepared as the model's own configuration says. A text is cut where open_clip cuts it; the tokens of the
    whole text are counted before. It needs the extra ``clip``: without it, every method that needs the model raises
    PackageError, and OpenClipError if the model cannot be loaded.

    Attributes:
        preset: A well-known model by a short name, in place of architecture and weights; the path of its checkpoint may
            be given as weights all the same.
        image_backbones: Other names of the image tower, apart from the architecture's. A captioner that shares one
            is not judged by this scorer.
    """

    kind: ClassVar[str] = "open_clip"
    asset: ClassVar[str] = "raw_samples"
    columns: ClassVar[tuple[str, ...]] = ("image",)

    preset: PresetName | None = None
    image_backbones: tuple[str, ...] = ()

    @model_validator(mode="before")
    @classmethod
    def _preset_is_spelt_out(cls, values: Any) -> Any:
        preset = PRESETS.get(values.get("preset", "")) if isinstance(values, dict) else None
        if preset is None:
            return values
        if values.get("architecture", preset.architecture) != preset.architecture:
            raise PydanticCustomError(
                "preset",
                "preset '{preset}' has its architecture: leave out one of the keys",
                {"preset": values["preset"]},
            )
        return {"weights": preset.weights, **values, "architecture": preset.architecture}

    def signature(self) -> dict[str, Any]:
        """The model and its weights; how many at a time, and where, changes nothing but the rounding."""
        return {"kind": self.kind, **self.model_signature()}

    @property
    def model(self) -> str:
        """The architecture and its weights."""
        return self.model_name

    @property
    def licence(self) -> str | None:
        """Of the weights of a preset; None if it is not known here."""
        return PRESETS[self.preset].licence if self.preset else None

    @property
    def backbones(self) -> frozenset[str]:
        """The architecture, and what the settings name."""
        return frozenset({self.architecture, *self.image_backbones})

    @property
    def dimension(self) -> int:
        """Length of a vector."""
        return self.embedding_dimension

    @property
    def logit_scale(self) -> float:
        """As trained: it comes with the weights."""
        return self.load().logit_scale

    @property
    def max_tokens(self) -> int:
        """The model's context, 77 for CLIP."""
        return self.load().context_length

    def embed_image_batches(self, batches: Iterable[pa.RecordBatch]) -> Iterator[np.ndarray]:
        """Unit vectors of images, in order: float32 [m, d], ``batch_size`` at a time.

        Args:
            batches: the column image of ``raw_samples``, without nulls.
        """
        files = (image["bytes"].as_py() for batch in batches for image in batch["image"])
        return self.load().embed_images(files, self.batch_size)

    def embed_texts(self, texts: Sequence[str]) -> TextEmbeddings:
        """Embed texts, in order."""
        return self.load().embed_texts(texts, self.batch_size)

    def count_tokens(self, texts: Sequence[str]) -> np.ndarray:
        """Tokens of each whole text, special ones included: int32 [n]."""
        return self.load().count_tokens(texts)
