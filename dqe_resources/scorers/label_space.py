"""The embedded scorer: an image's place in a text encoder's space, from an ImageNet classifier and no training data."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from pydantic import Field

from dqe_resources.cache import cached_file
from dqe_resources.models.image_model import ImageModel
from dqe_resources.models.text_encoders import AnyTextEncoder  # noqa: TC001 - pydantic reads it
from dqe_resources.models.text_encoders.minilm import MiniLM
from dqe_resources.scorers.protocol import Scorer

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path

    import pyarrow as pa

    from dqe_resources.models.text_encoders.protocol import TextEmbeddings

_RECIPE = 1
# The flattened probabilities and the weights did best, of a coarse grid, on 29 captioned photos and on nine others.
_SHARPNESS = 0.5
_LABEL_WEIGHT = 2.0
_RIDGE = 2.0


@dataclass(frozen=True, slots=True)
class _Space:
    """The map from images into the text space.

    Attributes:
        classes: float32 [1000, d], the classes' text embeddings less their mean.
        projection: float32 [1280, d], from the backbone's features.
    """

    classes: np.ndarray
    projection: np.ndarray


class LabelSpace(Scorer):
    """Places an image among the names of the classes that it resembles, twice, and takes the mean direction.

    With f the backbone's features, p its class probabilities, W its classifier weights and L the class embeddings
    (a name, a sentence with the name, and WordNet's definition) less their mean:

    1. ConSE (Norouzi et al. 2013, arXiv 1312.5650): the mean of L over the stored labels, weighted by the square root
       of p, which gives the less probable labels more say.
    2. DeViSE's linear map (Frome et al. 2013), but fitted without an image: the ridge regression from the rows of W to
       those of L, with a penalty of twice the mean eigenvalue of W'W, applied to f.

    Each is normalised; the first counts twice. Texts are the text encoder's own embeddings. Cosines are lower than
    CLIP's for the same fit: they rank captions and images, and are not comparable with another scorer's.

    Attributes:
        text_encoder: The model that embeds captions and class names.
    """

    kind: ClassVar[str] = "label_space"
    asset: ClassVar[str] = "image_features"
    columns: ClassVar[tuple[str, ...]] = ("embedding", "label_ids", "label_probabilities")

    text_encoder: AnyTextEncoder = Field(default_factory=MiniLM)

    def signature(self) -> dict[str, Any]:
        """The recipe, the backbone and the text encoder."""
        return {
            "kind": self.kind,
            "recipe": _RECIPE,
            "image_model": ImageModel().signature(),
            "text_encoder": self.text_encoder.signature(),
        }

    @property
    def model(self) -> str:
        """Version of the recipe, and the two models."""
        return f"label_space {_RECIPE} ({ImageModel.backbone}, {self.text_encoder.kind})"

    @property
    def backbones(self) -> frozenset[str]:
        """The classifier's backbone."""
        return frozenset({ImageModel.backbone})

    @property
    def dimension(self) -> int:
        """Length of a vector: the text encoder's."""
        return self.text_encoder.dimension

    @property
    def logit_scale(self) -> float:
        """As CLIP's."""
        return 100.0

    @property
    def max_tokens(self) -> int:
        """The text encoder's."""
        return self.text_encoder.max_tokens

    def embed_image_batches(self, batches: Iterable[pa.RecordBatch]) -> Iterator[np.ndarray]:
        """Unit vectors, float32 [m, d], of each batch.

        Raises:
            ValueError: a row has no features.
        """
        for batch in batches:
            if not batch.num_rows:
                continue
            space = self._space()
            features, labels, probabilities = (_matrix(batch, name) for name in self.columns)
            weights = probabilities.astype(np.float32) ** _SHARPNESS
            named = _normalised(np.einsum("nk,nkd->nd", weights, space.classes[labels]))
            mapped = _normalised(features.astype(np.float32) @ space.projection)
            yield _normalised(_LABEL_WEIGHT * named + mapped)

    def count_tokens(self, texts: Sequence[str]) -> np.ndarray:
        """Tokens of each whole text, by the text encoder: int32 [n]."""
        return self.text_encoder.count_tokens(texts)

    def embed_texts(self, texts: Sequence[str]) -> TextEmbeddings:
        """Embed texts, in order, by the text encoder."""
        return self.text_encoder.encode(texts)

    def _space(self) -> _Space:
        digest = hashlib.sha256(json.dumps(self.signature(), sort_keys=True).encode()).hexdigest()[:16]
        return _load_space(cached_file(f"label-space-{digest}.npz", self._write_space))

    def _write_space(self, path: Path) -> None:
        classifier = ImageModel().classifier
        names, sentences, definitions = (
            self.text_encoder.encode(texts).vectors
            for texts in (
                classifier.names,
                [f"a photo of a {name}" for name in classifier.names],
                classifier.definitions,
            )
        )
        classes = _normalised(names + sentences + 2 * definitions)
        classes -= classes.mean(axis=0)
        weights = classifier.weights.astype(np.float64)
        gram = weights.T @ weights
        penalty = _RIDGE * np.trace(gram) / len(gram)
        projection = np.linalg.solve(gram + penalty * np.eye(len(gram)), weights.T @ classes)
        np.savez(path, classes=classes.astype(np.float32), projection=projection.astype(np.float32))


@cache
def _load_space(path: Path) -> _Space:
    with np.load(path) as saved:
        return _Space(saved["classes"], saved["projection"])


def _matrix(samples: pa.RecordBatch, name: str) -> np.ndarray:
    column = samples[name]
    if column.null_count:
        raise ValueError(f"{column.null_count} of {len(column)} samples have no {name}: they have no image")
    values: np.ndarray = column.flatten().to_numpy(zero_copy_only=False)
    return values.reshape(len(column), -1)


def _normalised(vectors: np.ndarray) -> np.ndarray:
    unit: np.ndarray = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return unit
