"""Models of open_clip: what names one, how it is loaded, and images and texts embedded by it."""

from __future__ import annotations

import hashlib
import os
import warnings
from dataclasses import dataclass
from functools import lru_cache
from io import BytesIO
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar

import numpy as np
from PIL import Image, ImageOps
from pydantic import Field, model_validator
from pydantic_core import PydanticCustomError

from dqe_resources.cache import in_data_directory
from dqe_resources.configurable import Strict
from dqe_resources.errors import DataQualityError, one_line
from dqe_resources.models.packages import PackageError, package_version
from dqe_resources.models.text_encoders.protocol import TextEmbeddings
from dqe_resources.parallel import ordered_map

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from typing import Self

T = TypeVar("T")
R = TypeVar("R")

Precision = Literal["fp32", "bf16", "fp16"]

_DISTRIBUTION = "open-clip-torch"
_HUB, _LOCAL, _CONFIGURATION = "hf-hub:", "local-dir:", ".json"
_CHECKPOINTS = (".pt", ".pth", ".bin", ".safetensors", ".npz", ".npy")
_READ = 1 << 20


class OpenClipError(DataQualityError):
    """A model of open_clip cannot be loaded; says which and what to do."""


class OpenClipSettings(Strict):
    """Which model, with which weights, and how it is run.

    Attributes:
        architecture: Name of a model of open_clip, the path of a configuration (.json) in its form,
            ``local-dir:FOLDER`` or ``hf-hub:ORGANISATION/NAME``.
        weights: A tag of pretrained weights (``laion2b_s34b_b79k``) or the path of a checkpoint; hf-hub: and local-dir:
            have their own.
        precision: Number format. With bf16 and fp16 results agree to about three digits, and models are several times
            as fast where the hardware has them.
        batch_size: Images, or texts, in a batch.
        device: ``cpu``, ``cuda``, ``mps`` ...; ``auto`` takes a CUDA device if there is one.
    """

    architecture: Annotated[str, Field(min_length=1)] = "ViT-B-32"
    weights: str | None = None
    precision: Precision = "fp32"
    batch_size: Annotated[int, Field(ge=1)] = 32
    device: Annotated[str, Field(min_length=1)] = "auto"

    @model_validator(mode="after")
    def _has_weights(self) -> Self:
        own = self.architecture.startswith((_HUB, _LOCAL))
        if own == (self.weights is not None):
            raise PydanticCustomError(
                "weights",
                "'{architecture}' comes with its weights: leave the key 'weights' out"
                if own
                else "'{architecture}' needs the key 'weights': a tag of open_clip or a file",
                {"architecture": self.architecture},
            )
        for path in (self._folder, self._configuration, self._checkpoint):
            if path is not None and not path.exists():
                raise PydanticCustomError(
                    "missing", "there is nothing at {path}: give the path of what is there", {"path": str(path)}
                )
        return self

    @property
    def model_name(self) -> str:
        """The architecture and its weights, of a local one the name of the file or folder."""
        local = self._folder or self._configuration
        weights = self._checkpoint.name if self._checkpoint else self.weights
        return f"open_clip {local.name if local else self.architecture}{f' ({weights})' if weights else ''}"

    def model_signature(self) -> dict[str, Any]:
        """What decides its vectors: local files by their content, so that they may be moved.

        How many at a time, and where, changes nothing but the rounding.
        """
        local = self._folder or self._configuration
        return {
            "architecture": None if local else self.architecture,
            "weights": None if self._checkpoint else self.weights,
            "precision": self.precision,
            "open_clip": package_version(_DISTRIBUTION),
            "files": list(self._digests()),
        }

    def load(self) -> OpenClipNetwork:
        """The network with its weights; kept, so that the next call gives the same one.

        Raises:
            OpenClipError: it cannot be loaded.
            PackageError: open_clip is not installed.
        """
        return _load(
            self._open_clip_name, self._open_clip_weights, self.precision, self._found_device(), self._digests()
        )

    @property
    def embedding_dimension(self) -> int:
        """Length of a vector, from the model's configuration alone.

        Raises:
            OpenClipError: there is no such model.
            PackageError: open_clip is not installed.
        """
        return _dimension(self._open_clip_name)

    @property
    def _folder(self) -> Path | None:
        local = self.architecture.startswith(_LOCAL)
        return in_data_directory(self.architecture.removeprefix(_LOCAL)) if local else None

    @property
    def _configuration(self) -> Path | None:
        return in_data_directory(self.architecture) if self.architecture.endswith(_CONFIGURATION) else None

    @property
    def _checkpoint(self) -> Path | None:
        """The weights, if they are a file: an existing one, or what can be nothing else."""
        if self.weights is None:
            return None
        path = in_data_directory(self.weights)
        return path if path.is_file() or "/" in self.weights or path.suffix in _CHECKPOINTS else None

    @property
    def _open_clip_name(self) -> str:
        if self._folder:
            return f"{_LOCAL}{self._folder}"
        return str(self._configuration or self.architecture)

    @property
    def _open_clip_weights(self) -> str | None:
        return str(self._checkpoint) if self._checkpoint else self.weights

    def _digests(self) -> tuple[str, ...]:
        inside = sorted(path for path in self._folder.iterdir() if path.is_file()) if self._folder else []
        files = [*inside, *filter(None, (self._configuration, self._checkpoint))]
        return tuple(_digest(file, file.stat().st_mtime_ns) for file in files)

    def _found_device(self) -> str:
        if self.device != "auto":
            return self.device
        import torch

        return "cuda" if torch.cuda.is_available() else "cpu"


@dataclass(frozen=True, eq=False)
class OpenClipNetwork:
    """A loaded model.

    On a CPU whole batches run side by side, each on one core and with its own images decoded by it: nothing waits for
    decoding, and a pass on one core costs less than one that all cores share. On another device images are decoded on
    all cores while it works.

    Attributes:
        module: the network, in evaluation mode.
        preprocess: an image, in RGB, to what the network sees: open_clip's own.
        tokenizer: open_clip's.
        device: where the network is.
        dtype: torch type of its input.
        dimension: length of a vector.
    """

    module: Any
    preprocess: Callable[[Image.Image], Any]
    tokenizer: Any
    device: str
    dtype: Any
    dimension: int

    @property
    def logit_scale(self) -> float:
        """What a cosine is multiplied by, as trained."""
        return float(self.module.logit_scale.exp().item())

    @property
    def logit_bias(self) -> float | None:
        """What is added to that, in a model trained with a sigmoid for each pair (SigLIP, arXiv 2303.15343)."""
        bias = getattr(self.module, "logit_bias", None)
        return None if bias is None else float(bias.item())

    @property
    def context_length(self) -> int:
        """The most tokens that a text may have, special ones included."""
        return int(self.tokenizer.context_length)

    def embed_images(self, files: Iterable[bytes], batch_size: int) -> Iterator[np.ndarray]:
        """Unit vectors, float32 [m, d], of image files in order, so many at a time.

        Files are taken as they are needed; those of a few batches for each core are in memory at once.
        """
        if self.device == "cpu":
            yield from _each_on_a_core(
                lambda batch: self._encode_images([self._pixels(file) for file in batch]), _batches(files, batch_size)
            )
        else:
            ahead = 2 * batch_size + (os.cpu_count() or 1)
            for batch in _batches(ordered_map(self._pixels, files, ahead=ahead), batch_size):
                yield self._encode_images(batch)

    def embed_texts(self, texts: Sequence[str], batch_size: int) -> TextEmbeddings:
        """Embed texts, in order; of one longer than ``context_length`` the beginning is read, as open_clip cuts it."""
        whole = self._token_ids(texts)
        tokens = _lengths(whole)
        vectors = np.empty((len(texts), self.dimension), np.float32)
        # Texts of like length together: padding is work for nothing.
        order = np.argsort(tokens, kind="stable")

        def embed(rows: np.ndarray) -> None:
            vectors[rows] = self._encode_texts([texts[row] for row in rows], [whole[row] for row in rows])

        batches = [order[start : start + batch_size] for start in range(0, len(order), batch_size)]
        for _ in _each_on_a_core(embed, batches) if self.device == "cpu" else map(embed, batches):
            pass
        return TextEmbeddings(vectors, tokens, tokens > self.context_length)

    def count_tokens(self, texts: Sequence[str]) -> np.ndarray:
        """Tokens of each whole text, special ones included: int32 [n]."""
        return _lengths(self._token_ids(texts))

    def _pixels(self, file: bytes) -> Any:
        return self.preprocess(_upright(file))

    def _encode_images(self, pixels: list[Any]) -> np.ndarray:
        import torch

        return self._encode(self.module.encode_image, torch.stack(pixels).to(self.device, self.dtype))

    def _encode_texts(self, texts: list[str], whole: list[list[int]]) -> np.ndarray:
        import torch

        if self._cuts_plainly:
            length = self.context_length
            kept = [ids if len(ids) <= length else [*ids[: length - 1], ids[-1]] for ids in whole]
            width = max(map(len, kept)) if self._reads_no_padding else length
            tokens = torch.tensor([ids + [0] * (width - len(ids)) for ids in kept])
        else:
            tokens = self.tokenizer(texts)
        return self._encode(self.module.encode_text, tokens.to(self.device))

    def _encode(self, encode: Callable[[Any], Any], batch: Any) -> np.ndarray:
        import torch

        with torch.inference_mode():
            # Normalised in float32: in bf16 a vector's length would be off by up to 0.4 %.
            return torch.nn.functional.normalize(encode(batch).float(), dim=1).cpu().numpy()

    def _token_ids(self, texts: Sequence[str]) -> list[list[int]]:
        """The tokens of each whole text, special ones included."""
        tokenizer = self.tokenizer
        inner = getattr(tokenizer, "tokenizer", None)
        if inner is None:
            return [[tokenizer.sot_token_id, *tokenizer.encode(text), tokenizer.eot_token_id] for text in texts]
        if not len(texts):
            return []
        clean = getattr(tokenizer, "clean_fn", None) or _siglip_clean
        if getattr(tokenizer, "tokenizer_mode", "") == "clips":
            ids = inner([clean(text) for text in texts], add_special_tokens=False)["input_ids"]
            return [[inner.bos_token_id, *one, inner.eos_token_id, inner.cls_token_id] for one in ids]
        return inner([clean(text) for text in texts])["input_ids"]

    @property
    def _cuts_plainly(self) -> bool:
        return hasattr(self.tokenizer, "encode") and self.tokenizer.reduction_fn is None

    @property
    def _reads_no_padding(self) -> bool:
        """Whether nothing behind a text's end token can change its vector: each token sees only those before it."""
        from open_clip.transformer import TextTransformer

        tower = self.module.text
        return (
            isinstance(tower, TextTransformer)
            and tower.attn_mask is not None
            and tower.cls_emb is None
            and tower.pool_type in {"argmax", "eos"}
        )


def import_open_clip() -> Any:
    """The package open_clip.

    Raises:
        PackageError: it is not installed.
    """
    from dqe_resources.models.torchvision_cpu import ensure_torchvision

    try:
        ensure_torchvision()
        import open_clip
    except ImportError as error:
        raise PackageError("open_clip is not installed: .venv/bin/pip install '.[clip]'") from error
    return open_clip


# Two: a scorer's and a tagger's.
@lru_cache(maxsize=2)
def _load(
    architecture: str, weights: str | None, precision: Precision, device: str, _files: tuple[str, ...]
) -> OpenClipNetwork:
    open_clip = import_open_clip()
    from pickle import UnpicklingError

    name = _registered(architecture)
    try:
        # The text tower as a module of its own takes texts that are not padded to the full length.
        with warnings.catch_warnings():
            # Weights run with another activation than they were trained with give poor scores, and no error.
            warnings.filterwarnings("error", message="QuickGELU mismatch")
            module, preprocess = open_clip.create_model_from_pretrained(
                name, pretrained=weights, precision=precision, device=device, force_custom_text=True
            )
        tokenizer = open_clip.get_tokenizer(name)
    except UserWarning as error:
        raise OpenClipError(
            f"{name} has another activation than {weights} was trained with ({one_line(error)}): "
            f"use the architecture {name}-quickgelu"
        ) from error
    except (OSError, RuntimeError, UnpicklingError, ValueError, KeyError) as error:
        raise OpenClipError(
            f"open_clip cannot load {architecture} {weights or ''}: {one_line(error)[:300]}; give a model and weights "
            "that `open_clip.list_pretrained()` has. What is not on this machine comes from the Hugging Face hub: run "
            "where that can be reached, or fetch a checkpoint there and give its path as weights, or a folder as "
            "architecture: local-dir:FOLDER"
        ) from error
    if isinstance(module.text, open_clip.transformer.TextTransformer) and module.text.attn_mask is not None:
        module.text.transformer.register_forward_pre_hook(_cut_mask, with_kwargs=True)
    dtype = open_clip.get_input_dtype(precision) or next(module.parameters()).dtype
    return OpenClipNetwork(module.eval(), preprocess, tokenizer, device, dtype, _dimension(architecture))


def _cut_mask(_: Any, arguments: tuple[Any, ...], named: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The causal mask as long as the text: open_clip cuts the positions so, but not the mask."""
    length, mask = arguments[0].shape[1], named["attn_mask"]
    return arguments, {**named, "attn_mask": mask[..., :length, :length]}


@lru_cache(maxsize=8)
def _dimension(architecture: str) -> int:
    open_clip = import_open_clip()
    try:
        configuration = open_clip.get_model_config(_registered(architecture))
    except (OSError, ValueError) as error:
        raise OpenClipError(f"open_clip has no configuration of {architecture}: {one_line(error)[:300]}") from error
    if not configuration:
        raise OpenClipError(f"open_clip has no model {architecture}; `open_clip.list_models()` has all")
    return int(configuration["embed_dim"])


def _registered(architecture: str) -> str:
    """What open_clip calls a model: a configuration by its name, once it was told of it."""
    if not architecture.endswith(_CONFIGURATION):
        return architecture
    open_clip = import_open_clip()
    name = Path(architecture).stem
    open_clip.add_model_config(architecture)
    if name not in open_clip.list_models():
        raise OpenClipError(f"{architecture}: no configuration of open_clip: needs embed_dim, vision_cfg and text_cfg")
    return name


@lru_cache(maxsize=64)
def _digest(path: Path, _changed: int) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_READ):
            digest.update(block)
    return f"{path.name} {digest.hexdigest()}"


def _each_on_a_core(function: Callable[[T], R], items: Iterable[T]) -> Iterator[R]:
    """``map`` in order, on all cores, each call on one of them; a single call has them all."""
    import torch

    rest = iter(items)
    first = list(islice(rest, 2))
    if len(first) < 2:
        yield from map(function, first)
        return

    def alone(item: T) -> R:
        torch.set_num_threads(1)
        return function(item)

    def every() -> Iterator[T]:
        yield from first
        yield from rest

    threads = torch.get_num_threads()
    try:
        yield from ordered_map(alone, every(), ahead=2 * (os.cpu_count() or 1))
    finally:
        # What a thread is told holds for it, and for those that have not begun yet.
        torch.set_num_threads(threads)


def _batches(items: Iterable[T], size: int) -> Iterator[list[T]]:
    rest = iter(items)
    return iter(lambda: list(islice(rest, size)), [])


def _lengths(ids: list[list[int]]) -> np.ndarray:
    return np.array([len(one) for one in ids], np.int32)


def _siglip_clean(text: str) -> str:
    from open_clip.tokenizer import basic_clean, canonicalize_text

    return canonicalize_text(basic_clean(text))


def _upright(data: bytes) -> Image.Image:
    with Image.open(BytesIO(data)) as image:
        upright: Image.Image = ImageOps.exif_transpose(image).convert("RGB")
        return upright
