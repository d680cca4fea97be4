"""Image towers: networks that describe an image by a vector for each of its parts (tokens)."""

from __future__ import annotations

import os
from abc import abstractmethod
from functools import lru_cache
from itertools import islice
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

import numpy as np
from pydantic import Field

from dqe_resources.cache import cached_file, in_data_directory
from dqe_resources.configurable import Configurable, ExistingPath, SerializeAsAny, one_of
from dqe_resources.errors import WholeRunError, one_line
from dqe_resources.fingerprint import file_digest
from dqe_resources.images import ImageError, decode, guarded, middle
from dqe_resources.models.image_model import central_square, efficientnet_lite0, weights_version
from dqe_resources.models.onnx_models import convert, session
from dqe_resources.parallel import ordered_map

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

_STRIDE = 32
_CHANNELS = 1280
_CONVERSION = 1


class ImageTowerError(WholeRunError):
    """An image tower cannot be loaded; says which and what to do."""


class ImageTower(Configurable):
    """A network that gives a vector for each part of an image."""

    @property
    @abstractmethod
    def tokens(self) -> int:
        """Tokens of an image."""

    @property
    @abstractmethod
    def dimension(self) -> int:
        """Length of a token's vector."""

    @abstractmethod
    def token_batches(self, files: Iterable[bytes]) -> Iterator[np.ndarray]:
        """The tokens of image files, in order: float32 [m, tokens, dimension], some images at a time.

        The view is the network's own for evaluation: no crop, flip or colour is drawn, so that an image has one
        description. An image that cannot be read has NaN.

        Raises:
            ImageTowerError: the network cannot be loaded.
        """


class EfficientNetTower(ImageTower):
    """The last feature map of EfficientNet-Lite0, the backbone that comes with the platform, run by ONNX Runtime.

    Attributes:
        side: Pixels of the square that it sees. It has a token for each 32 x 32 of them: 49 at 224.
        batch_size: Images in a batch. The results do not depend on it.
    """

    kind: ClassVar[str] = "efficientnet_lite0"
    without_effect: ClassVar[frozenset[str]] = frozenset({"batch_size"})

    side: Annotated[int, Field(ge=_STRIDE, le=1024, multiple_of=_STRIDE)] = 224
    batch_size: Annotated[int, Field(ge=1)] = 8

    def signature(self) -> dict[str, Any]:
        """The weights too."""
        return {**super().signature(), "weights": weights_version(), "conversion": _CONVERSION}

    @property
    def tokens(self) -> int:
        """One for each place of the map."""
        return (self.side // _STRIDE) ** 2

    @property
    def dimension(self) -> int:
        """Channels of the map."""
        return _CHANNELS

    def token_batches(self, files: Iterable[bytes]) -> Iterator[np.ndarray]:
        """As ``ImageTower.token_batches``."""
        name = f"efficientnet-lite0-map-{self.side}-{weights_version()}-{_CONVERSION}.onnx"
        model = session(cached_file(name, self._write_model), 1)

        @guarded
        def seen(file: bytes) -> np.ndarray:
            return central_square(decode(file), self.side)

        nothing = np.zeros((3, self.side, self.side), np.float32)

        def embed(batch: list[bytes]) -> np.ndarray:
            pixels, is_fault = _without_faults([seen(file) for file in batch], nothing)
            (found,) = model.run(["map"], {"pixels": np.stack(pixels)})
            tokens = np.ascontiguousarray(found.reshape(len(batch), _CHANNELS, -1).transpose(0, 2, 1))
            tokens[is_fault] = np.nan
            return tokens

        rest = iter(files)
        batches = iter(lambda: list(islice(rest, self.batch_size)), [])
        yield from ordered_map(embed, batches, ahead=2 * (os.cpu_count() or 1))

    def _write_model(self, path: Path) -> None:
        import torch

        network = efficientnet_lite0()

        class FeatureMap(torch.nn.Module):  # type: ignore[misc]
            def __init__(self) -> None:
                super().__init__()
                self.network = network

            def forward(self, pixels: Any) -> Any:
                return self.network.forward_features(pixels)

        random = np.random.default_rng(0)
        example, probe = (random.standard_normal((n, 3, self.side, self.side), np.float32) for n in (1, 3))
        names = {name: {0: "n"} for name in ("pixels", "map")}
        convert(FeatureMap().eval(), {"pixels": example}, ("map",), names, path, {"pixels": probe})


class TimmTower(ImageTower):
    """Any image network of timm: the tokens of a transformer, or the places of a convolutional network's last map.

    TL;DR's own tower is ``vit_base_patch16_224`` (DeiT-base's weights in its code, ImageNet's in the paper).

    Attributes:
        model: Name of the network in timm, with a tag if its weights are to be fetched, such as
            vit_base_patch16_224.augreg_in1k.
        weights: Path of a checkpoint, from the data folder; by default those of the tag, from the hub.
        prefix_tokens: Whether the tokens before those of the places count too, as [CLS]; TL;DR's code takes them, its
            paper does not.
        batch_size: Images in a batch.
        device: ``cpu``, ``cuda`` ...; ``auto`` takes a CUDA device if there is one.
    """

    kind: ClassVar[str] = "timm"
    without_effect: ClassVar[frozenset[str]] = frozenset({"batch_size", "device"})

    model: Annotated[str, Field(min_length=1)] = "vit_base_patch16_224"
    weights: ExistingPath | None = None
    prefix_tokens: bool = False
    batch_size: Annotated[int, Field(ge=1)] = 32
    device: Annotated[str, Field(min_length=1)] = "auto"

    def signature(self) -> dict[str, Any]:
        """The weights by their content, so that the file may be moved."""
        digest = None if self.weights is None else file_digest(in_data_directory(self.weights))
        return {**super().signature(), "weights": digest}

    @property
    def tokens(self) -> int:
        """As the network gives them for one image."""
        return self._shape[0]

    @property
    def dimension(self) -> int:
        """As the network gives it."""
        return self._shape[1]

    @property
    def _shape(self) -> tuple[int, int]:
        import torch

        network, transform, device = self.load()
        size = transform.transforms[0].size
        height, width = np.broadcast_to(size, 2).tolist()
        with torch.inference_mode():
            found = self._tokens_of(network, torch.zeros(1, 3, height, width, device=device))
        return int(found.shape[1]), int(found.shape[2])

    def token_batches(self, files: Iterable[bytes]) -> Iterator[np.ndarray]:
        """As ``ImageTower.token_batches``."""
        import torch

        network, transform, device = self.load()
        nothing = torch.zeros(3, *np.broadcast_to(transform.transforms[0].size, 2).tolist())
        seen = ordered_map(guarded(lambda file: transform(middle(decode(file)))), files, ahead=2 * self.batch_size)
        for batch in iter(lambda: list(islice(seen, self.batch_size)), []):
            pixels, is_fault = _without_faults(batch, nothing)
            with torch.inference_mode():
                tokens = self._tokens_of(network, torch.stack(pixels).to(device)).float().cpu().numpy()
            tokens[is_fault] = np.nan
            yield tokens

    def load(self) -> tuple[Any, Any, str]:
        """The network, how an image becomes what it sees, and its device; kept, so that the next call gives the same.

        Raises:
            ImageTowerError: it cannot be loaded.
        """
        return _load_timm(self.model, None if self.weights is None else str(self.weights), self.device)

    def _tokens_of(self, network: Any, pixels: Any) -> Any:
        found = network.forward_features(pixels)
        if found.ndim == 4:
            return found.flatten(2).transpose(1, 2)
        return found if self.prefix_tokens else found[:, getattr(network, "num_prefix_tokens", 0) :]


def _without_faults(seen: list[Any], nothing: Any) -> tuple[list[Any], list[bool]]:
    """What a network sees of images, ``nothing`` in place of those that cannot be read; and which these are."""
    is_fault = [isinstance(one, ImageError) for one in seen]
    return [nothing if fault else one for one, fault in zip(seen, is_fault, strict=True)], is_fault


@lru_cache(maxsize=1)
def _load_timm(model: str, weights: str | None, device: str) -> tuple[Any, Any, str]:
    from dqe_resources.models.torchvision_cpu import ensure_torchvision

    ensure_torchvision()
    import timm
    import torch

    chosen = device if device != "auto" else "cuda" if torch.cuda.is_available() else "cpu"
    try:
        network = timm.create_model(model, pretrained=weights is None, num_classes=0, checkpoint_path=weights or "")
    except (OSError, RuntimeError, ValueError) as error:
        raise ImageTowerError(
            f"timm cannot load {model}: {one_line(error)[:300]}; give a name that `timm.list_models()` has, and "
            "weights as a file where the hub cannot be reached"
        ) from error
    settings = timm.data.resolve_model_data_config(network)
    transform = timm.data.create_transform(**settings, is_training=False)
    return network.eval().to(chosen), transform, chosen


AnyImageTower = Annotated[SerializeAsAny[ImageTower], one_of(EfficientNetTower, TimmTower)]
"""The type of a setting that holds an image tower of any kind."""
