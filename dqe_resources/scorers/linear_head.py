"""The scorer that is a linear function of an image's embedding."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from pydantic import model_validator
from pydantic_core import PydanticCustomError

from dqe_resources.configurable import ExistingPath  # noqa: TC001 - pydantic reads it
from dqe_resources.errors import WholeRunError, one_line
from dqe_resources.fingerprint import file_digest
from dqe_resources.scorers.named import OfEmbedding

if TYPE_CHECKING:
    from typing import Self

    from dqe_resources.scorers.protocol import Scorer

_SUFFIX = ".safetensors"


class HeadError(WholeRunError):
    """A file of weights is none, or belongs to another model; says the file, what it has and what is expected."""


class LinearHead(OfEmbedding):
    """w . f + b, where f is the unit vector of an image: LAION's aesthetic predictor and its like.

    The weights must have been trained on the embeddings of that very model.

    Attributes:
        path: A .safetensors file with the weights.
        weight: Name of the tensor w, [d] or [1, d].
        bias: Name of the tensor b, of one number; without such a tensor b is 0.
        sigmoid: Whether the sum is made a probability by the logistic function.
    """

    kind: ClassVar[str] = "linear_head"

    path: ExistingPath
    weight: str = "weight"
    bias: str = "bias"
    sigmoid: bool = False

    @model_validator(mode="after")
    def _is_safetensors(self) -> Self:
        if self.path.suffix != _SUFFIX:
            raise PydanticCustomError(
                "head", "{path}: expected a file ending in {suffix}", {"path": str(self.path), "suffix": _SUFFIX}
            )
        return self

    def signature(self) -> dict[str, Any]:
        """The content of the file, and how it is read; the model is that of the embeddings."""
        how = {"weight": self.weight, "bias": self.bias, "sigmoid": self.sigmoid}
        return {"kind": self.kind, "file": file_digest(self.path), **how}

    def scores(self, images: np.ndarray, scorer: Scorer) -> np.ndarray:
        """The score of each image: float32 [n].

        Args:
            images: unit vectors [n, d].
            scorer: the model of these vectors.

        Raises:
            HeadError: the file cannot be read, or its weights are not as many as a vector has numbers.
        """
        weight, bias = self._weights()
        if len(weight) != scorer.dimension:
            raise HeadError(
                f"{self.path}: {self.weight} has {len(weight):,} numbers, and a vector of {scorer.model} "
                f"{scorer.dimension:,}: name the model that it was trained on with the key 'model'"
            )
        summed = images.astype(np.float64) @ weight + bias
        return (1 / (1 + np.exp(-summed)) if self.sigmoid else summed).astype(np.float32)

    def _weights(self) -> tuple[np.ndarray, float]:
        from safetensors.torch import load_file

        try:
            # NumPy has no bfloat16.
            found = {name: tensor.double().numpy() for name, tensor in load_file(self.path).items()}
        except Exception as error:  # a torn or hostile file raises anything
            raise HeadError(f"{self.path}: cannot be read as {_SUFFIX} ({one_line(error)})") from error
        said = ", ".join(f"{name} {list(values.shape)}" for name, values in sorted(found.items())) or "nothing"
        weight, bias = found.get(self.weight), found.get(self.bias, np.zeros(1))
        if weight is None or weight.shape not in {(weight.size,), (1, weight.size)} or bias.size != 1:
            raise HeadError(
                f"{self.path}: has {said}; expected the tensors {self.weight} [d] or [1, d], and {self.bias} of one "
                "number"
            )
        if not np.isfinite(weight).all() or not np.isfinite(bias).all():
            raise HeadError(f"{self.path}: has numbers that are not finite")
        return weight.ravel(), float(bias.ravel()[0])
