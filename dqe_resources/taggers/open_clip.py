"""Zero-shot tags by any open_clip model."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

import numpy as np
from pydantic import Field, model_validator
from pydantic_core import PydanticCustomError

from dqe_resources.models.open_clip_models import OpenClipSettings
from dqe_resources.taggers.protocol import Tagger

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Self

    import pyarrow as pa

    from dqe_resources.models.open_clip_network import OpenClipNetwork

_TEXTS = 256


class OpenClipTagger(OpenClipSettings, Tagger):
    """Zero-shot classification by a contrastive model (Radford et al. 2021, arXiv 2103.00020), among all concepts.

    The probability of a concept is the softmax over the concepts of scale x cosine / temperature. It names the one
    concept that an image fits best: two concepts in one image share the probability, and above 0.5 there is at most
    one. A model that was trained with a sigmoid for each pair (SigLIP, arXiv 2303.15343) judges each concept for
    itself, as RAM++ does, and is used so.

    Attributes:
        prompts: Sentences about a concept, with {} in its place. Of several, the mean direction counts.
        temperature: Above 1 the probabilities are more alike, below 1 the best concept takes more.
    """

    kind: ClassVar[str] = "open_clip"
    asset: ClassVar[str] = "raw_samples"

    prompts: Annotated[tuple[str, ...], Field(min_length=1)] = ("a photo of a {}.",)
    temperature: Annotated[float, Field(gt=0)] = 1.0

    @model_validator(mode="after")
    def _prompts_have_a_place(self) -> Self:
        for prompt in self.prompts:
            if prompt.count("{}") != 1:
                raise PydanticCustomError(
                    "prompt", "prompts: '{prompt}' must have {} once, for the concept", {"prompt": prompt}
                )
        return self

    def signature(self) -> dict[str, Any]:
        """The model, its weights and what is asked."""
        return {
            "kind": self.kind,
            "model": self.model_signature(),
            "prompts": list(self.prompts),
            "temperature": self.temperature,
        }

    @property
    def model(self) -> str:
        """The architecture and its weights."""
        return self.model_name

    @property
    def backbones(self) -> frozenset[str]:
        """The image tower."""
        return frozenset({self.model})

    def probabilities(self, samples: pa.Table, concepts: Sequence[str]) -> np.ndarray:
        """The probability of each concept in each image: float32 [n, C]; 0 in one that cannot be read.

        Args:
            samples: the column image of ``raw_samples``, without nulls.
            concepts: names; underscores are read as spaces.

        Raises:
            OpenClipError: the model cannot be loaded.
            PackageError: open_clip is not installed.
        """
        import torch

        network = self.load()
        texts = torch.from_numpy(_embed_concepts(network, self.prompts, tuple(concepts)))
        shown = np.empty((samples.num_rows, len(concepts)), np.float32)
        files = (image["bytes"] for image in samples["image"].to_pylist())
        start = 0
        for vectors in network.embed_images(files, self.batch_size):
            logits = torch.from_numpy(vectors) @ texts.T * network.logit_scale / self.temperature
            bias = network.logit_bias
            shown[start : start + len(vectors)] = logits.softmax(1) if bias is None else (logits + bias).sigmoid()
            shown[start : start + len(vectors)][np.isnan(vectors).any(axis=1)] = 0
            start += len(vectors)
        return shown


@lru_cache(maxsize=2)
def _embed_concepts(network: OpenClipNetwork, prompts: tuple[str, ...], concepts: tuple[str, ...]) -> np.ndarray:
    """Unit vectors, float32 [C, d]: the mean direction over the prompts."""
    names = [" ".join(concept.replace("_", " ").split()) for concept in concepts]
    total = sum(network.embed_texts([prompt.format(name) for name in names], _TEXTS).vectors for prompt in prompts)
    vectors = np.asarray(total)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
