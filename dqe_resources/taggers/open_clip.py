"""Zero-shot tags by any open_clip model."""

from __future__ import annotations

import hashlib
from functools import lru_cache
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

import numpy as np
from PIL import Image, ImageOps
from pydantic import Field, model_validator
from pydantic_core import PydanticCustomError

from dqe_resources.errors import DataQualityError, one_line
from dqe_resources.packages import PackageError, package_version
from dqe_resources.parallel import ordered_map
from dqe_resources.taggers.protocol import Tagger

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Self

    import pyarrow as pa

_DISTRIBUTION = "open-clip-torch"
_FROM_ELSEWHERE = ("hf-hub:", "local-dir:")
_LOCAL = "local-dir:"
_READ = 1 << 20
_TEXTS = 256


class TaggerError(DataQualityError):
    """A tagger's model cannot be loaded; says which and what to do."""


class OpenClipTagger(Tagger):
    """Zero-shot classification by a contrastive model (Radford et al. 2021, arXiv 2103.00020), among all concepts.

    The probability of a concept is the softmax over the concepts of scale x cosine / temperature. It names the one
    concept that an image fits best: two concepts in one image share the probability, and above 0.5 there is at most
    one. A model that was trained with a sigmoid for each pair (SigLIP, arXiv 2303.15343) judges each concept for
    itself, as RAM++ does, and is used so.
    """

    kind: ClassVar[str] = "open_clip"
    requires: ClassVar[tuple[str, ...]] = ("raw_samples",)

    architecture: Annotated[str, Field(min_length=1)] = "ViT-B-32"
    """Name of a model of open_clip, or ``hf-hub:ORGANISATION/NAME``, or ``local-dir:FOLDER``."""
    weights: str | None = None
    """A tag of pretrained weights (``laion2b_s34b_b79k``) or a file; hf-hub: and local-dir: have their own."""
    prompts: Annotated[tuple[str, ...], Field(min_length=1)] = ("a photo of a {}.",)
    """What is said of a concept, which stands for {}; of several the mean direction counts."""
    temperature: Annotated[float, Field(gt=0)] = 1.0
    """Above 1 the probabilities are more alike, below 1 the best concept takes more."""
    batch_size: Annotated[int, Field(ge=1)] = 32
    """Images a pass."""
    device: Annotated[str, Field(min_length=1)] = "auto"
    """``cpu``, ``cuda``, ``mps`` ...; ``auto`` takes a CUDA device if there is one."""

    @model_validator(mode="after")
    def _has_weights(self) -> Self:
        own = self.architecture.startswith(_FROM_ELSEWHERE)
        if own == (self.weights is not None):
            raise PydanticCustomError(
                "weights",
                "'{architecture}' comes with its weights: leave the key 'weights' out"
                if own
                else "'{architecture}' needs the key 'weights': a tag of open_clip or a file",
                {"architecture": self.architecture},
            )
        for prompt in self.prompts:
            if prompt.count("{}") != 1:
                raise PydanticCustomError(
                    "prompt", "prompts: '{prompt}' must have {} once, for the concept", {"prompt": prompt}
                )
        return self

    def signature(self) -> dict[str, Any]:
        """The model, its weights and what is asked; how many at a time and where changes nothing but the rounding."""
        return {
            **self.model_dump(mode="json", exclude={"batch_size", "device"}),
            "kind": self.kind,
            "open_clip": package_version(_DISTRIBUTION),
            "files": [_digest(file, file.stat().st_mtime_ns) for file in self._files()],
        }

    @property
    def model(self) -> str:
        """The architecture and its weights."""
        return f"open_clip {self.architecture}{f' ({self.weights})' if self.weights else ''}"

    @property
    def backbones(self) -> frozenset[str]:
        """The image tower."""
        return frozenset({self.model})

    def probabilities(self, samples: pa.Table, concepts: Sequence[str]) -> np.ndarray:
        """The probability of each concept in each image: float32 [n, C].

        Args:
            samples: the column image of ``raw_samples``, without nulls.
            concepts: names; underscores are read as spaces.

        Raises:
            TaggerError: the model cannot be loaded.
            PackageError: open_clip is not installed.
        """
        import torch

        key = (self.architecture, self.weights, self._device())
        network, preprocess, _ = _load(*key)
        texts = torch.from_numpy(_embed_concepts(*key, self.prompts, tuple(concepts)))
        shown = np.empty((samples.num_rows, len(concepts)), np.float32)
        pixels = ordered_map(lambda image: preprocess(_upright(image["bytes"])), samples["image"].to_pylist())
        for start in range(0, samples.num_rows, self.batch_size):
            stop = min(start + self.batch_size, samples.num_rows)
            batch = torch.stack([next(pixels) for _ in range(start, stop)])
            with torch.inference_mode():
                images = network.encode_image(batch.to(key[-1]), normalize=True).float().cpu()
                logits = images @ texts.T * float(network.logit_scale.exp()) / self.temperature
                bias = getattr(network, "logit_bias", None)
                shown[start:stop] = logits.softmax(1) if bias is None else (logits + float(bias)).sigmoid()
        return shown

    def _device(self) -> str:
        if self.device != "auto":
            return self.device
        import torch

        return "cuda" if torch.cuda.is_available() else "cpu"

    def _files(self) -> list[Path]:
        if self.architecture.startswith(_LOCAL):
            return sorted(path for path in Path(self.architecture.removeprefix(_LOCAL)).iterdir() if path.is_file())
        return [path] if self.weights and (path := Path(self.weights)).is_file() else []


def import_open_clip() -> Any:
    """The package open_clip.

    Raises:
        PackageError: it is not installed.
    """
    from dqe_resources.torchvision_cpu import ensure_torchvision

    try:
        ensure_torchvision()
        import open_clip
    except ImportError as error:
        raise PackageError("open_clip is not installed: pip install 'data-quality-engine[clip]'") from error
    return open_clip


@lru_cache(maxsize=1)
def _load(
    architecture: str, weights: str | None, device: str
) -> tuple[Any, Callable[[Image.Image], Any], Callable[[list[str]], Any]]:
    open_clip = import_open_clip()
    from pickle import UnpicklingError

    try:
        network, preprocess = open_clip.create_model_from_pretrained(architecture, pretrained=weights, device=device)
        tokenizer = open_clip.get_tokenizer(architecture)
    except (OSError, RuntimeError, UnpicklingError, ValueError) as error:
        raise TaggerError(
            f"open_clip cannot load {architecture} {weights or ''}: {one_line(error)[:300]}; give a model "
            "and weights that `open_clip.list_pretrained()` has and this machine can fetch, or a file or folder"
        ) from error
    return network.eval(), preprocess, tokenizer


@lru_cache(maxsize=2)
def _embed_concepts(
    architecture: str, weights: str | None, device: str, prompts: tuple[str, ...], concepts: tuple[str, ...]
) -> np.ndarray:
    """Unit vectors, float32 [C, d]: the mean direction over the prompts."""
    import torch

    network, _, tokenizer = _load(architecture, weights, device)
    total: Any = 0
    for prompt in prompts:
        texts = [prompt.format(" ".join(concept.replace("_", " ").split())) for concept in concepts]
        parts = []
        for start in range(0, len(texts), _TEXTS):
            tokens = tokenizer(texts[start : start + _TEXTS]).to(device)
            with torch.inference_mode():
                parts.append(network.encode_text(tokens, normalize=True).float().cpu())
        total = total + torch.cat(parts)
    return np.ascontiguousarray(torch.nn.functional.normalize(total, dim=1).numpy())


@lru_cache(maxsize=64)
def _digest(path: Path, _changed: int) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_READ):
            digest.update(block)
    return f"{path.name} {digest.hexdigest()}"


def _upright(data: bytes) -> Image.Image:
    with Image.open(BytesIO(data)) as image:
        upright: Image.Image = ImageOps.exif_transpose(image).convert("RGB")
        return upright
