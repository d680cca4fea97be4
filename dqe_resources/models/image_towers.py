"""Image towers: networks that describe an image by a vector for each of its parts (tokens)."""

from __future__ import annotations

from abc import abstractmethod
from copy import deepcopy
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
from dqe_resources.parallel import cores, ordered_map

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping
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

    @abstractmethod
    def pixel_batches(self, files: Iterable[bytes]) -> Iterator[np.ndarray]:
        """What the network sees of image files, in order: float32 [m, 3, height, width], some at a time.

        An image that cannot be read has NaN.
        """

    @abstractmethod
    def network(self) -> Any:
        """A new copy of the network, to train: a torch module, pixels [m, 3, h, w] -> tokens [m, tokens, dimension].

        It is in evaluation mode and meant to stay there: the statistics of its normalisation are no weights, and an
        image's tokens do not depend on the others in the batch.

        Raises:
            ImageTowerError: the network cannot be loaded.
        """

    def trained_batches(self, pixels: Iterable[np.ndarray], weights: Mapping[str, np.ndarray]) -> Iterator[np.ndarray]:
        """As ``token_batches``, of pixels and with other weights.

        Args:
            pixels: as ``pixel_batches`` gives them, of 16 or 32 bits.
            weights: of ``network``, by name, float32.
        """
        import torch

        network = self.network()
        with torch.no_grad():
            for name, weight in network.named_parameters():
                weight.copy_(torch.from_numpy(np.array(weights[name])))
        for batch in pixels:
            with torch.inference_mode():
                seen = torch.from_numpy(np.nan_to_num(batch).astype(np.float32))
                tokens = network(seen.to(next(network.parameters()).device)).float().cpu().numpy()
            tokens[np.isnan(batch[:, 0, 0, 0])] = np.nan
            yield tokens

    def described(self, files: Iterable[bytes], weights: Mapping[str, np.ndarray]) -> Iterator[np.ndarray]:
        """As ``token_batches``, with other weights if there are some."""
        return self.trained_batches(self.pixel_batches(files), weights) if weights else self.token_batches(files)


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

        def embed(batch: list[bytes]) -> np.ndarray:
            pixels = self._pixels(batch)
            is_fault = np.isnan(pixels[:, 0, 0, 0])
            (found,) = model.run(["map"], {"pixels": np.nan_to_num(pixels)})
            tokens = np.ascontiguousarray(found.reshape(len(batch), _CHANNELS, -1).transpose(0, 2, 1))
            tokens[is_fault] = np.nan
            return tokens

        yield from self._in_batches(embed, files)

    def pixel_batches(self, files: Iterable[bytes]) -> Iterator[np.ndarray]:
        """As ``ImageTower.pixel_batches``."""
        yield from self._in_batches(self._pixels, files)

    def network(self) -> Any:
        """As ``ImageTower.network``."""
        network = efficientnet_lite0()
        network.reset_classifier(0)
        return _as_tokens(network, 0)

    def _in_batches(self, work: Callable[[list[bytes]], np.ndarray], files: Iterable[bytes]) -> Iterator[np.ndarray]:
        rest = iter(files)
        batches = iter(lambda: list(islice(rest, self.batch_size)), [])
        return ordered_map(work, batches, ahead=2 * cores())

    def _pixels(self, files: list[bytes]) -> np.ndarray:
        @guarded
        def seen(file: bytes) -> np.ndarray:
            return central_square(decode(file), self.side)

        return _stacked([seen(file) for file in files], (3, self.side, self.side))

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

        network, _, device = self.load()
        with torch.inference_mode():
            found = self._module(network)(torch.zeros(1, *_input_size(network), device=device))
        return int(found.shape[1]), int(found.shape[2])

    def token_batches(self, files: Iterable[bytes]) -> Iterator[np.ndarray]:
        """As ``ImageTower.token_batches``."""
        import torch

        network, _, device = self.load()
        for pixels in self.pixel_batches(files):
            with torch.inference_mode():
                seen = torch.from_numpy(np.nan_to_num(pixels)).to(device)
                tokens = self._module(network)(seen).float().cpu().numpy()
            tokens[np.isnan(pixels[:, 0, 0, 0])] = np.nan
            yield tokens

    def pixel_batches(self, files: Iterable[bytes]) -> Iterator[np.ndarray]:
        """As ``ImageTower.pixel_batches``."""
        network, transform, _ = self.load()
        seen = ordered_map(
            guarded(lambda file: transform(middle(decode(file))).numpy()), files, ahead=2 * self.batch_size
        )
        for batch in iter(lambda: list(islice(seen, self.batch_size)), []):
            yield _stacked(batch, _input_size(network))

    def network(self) -> Any:
        """As ``ImageTower.network``."""
        network, _, _ = self.load()
        # The one that is kept stays as it is.
        return self._module(deepcopy(network))

    def load(self) -> tuple[Any, Any, str]:
        """The network, how an image becomes what it sees, and its device; kept, so that the next call gives the same.

        Raises:
            ImageTowerError: it cannot be loaded.
        """
        return _load_timm(self.model, None if self.weights is None else str(self.weights), self.device)

    def _module(self, network: Any) -> Any:
        return _as_tokens(network, 0 if self.prefix_tokens else getattr(network, "num_prefix_tokens", 0))


def _input_size(network: Any) -> tuple[int, ...]:
    """Shape of what a network of timm sees of an image, which is cut out of the resized one."""
    import timm

    found: tuple[int, ...] = timm.data.resolve_model_data_config(network)["input_size"]
    return found


def _stacked(seen: list[np.ndarray | ImageError], shape: tuple[int, ...]) -> np.ndarray:
    """What a network sees of images, float32 [m, *shape], NaN for those that cannot be read."""
    nothing = np.full(shape, np.nan, np.float32)
    return np.stack([nothing if isinstance(one, ImageError) else one for one in seen])


def _as_tokens(network: Any, left_out: int) -> Any:
    """A network of timm as a torch module that gives tokens, without so many at the beginning."""
    import torch

    class Tokens(torch.nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.network = network

        def forward(self, pixels: Any) -> Any:
            found = self.network.forward_features(pixels)
            return found.flatten(2).transpose(1, 2) if found.ndim == 4 else found[:, left_out:]

    return Tokens().eval()


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
