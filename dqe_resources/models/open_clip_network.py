"""A network of open_clip: images and texts become vectors, on all cores of a CPU or on another device."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from dqe_resources.images import ImageError, decode, guarded, middle
from dqe_resources.models.text_encoders.protocol import TextEmbeddings
from dqe_resources.parallel import cores, ordered_map

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from PIL import Image

T = TypeVar("T")
R = TypeVar("R")


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
        """Unit vectors, float32 [m, d], of image files in order, so many at a time; NaN for one that cannot be read.

        Files are taken as they are needed; those of a few batches for each core are in memory at once.
        """
        for vectors, errors in self.embed_readable_images(files, batch_size):
            whole = np.full((len(errors), self.dimension), np.nan, np.float32)
            whole[[error is None for error in errors]] = vectors
            yield whole

    def embed_readable_images(
        self, files: Iterable[bytes], batch_size: int
    ) -> Iterator[tuple[np.ndarray, list[ImageError | None]]]:
        """As ``embed_images``, for each batch the vectors of the files that can be read, and of each file its error."""
        if self.device == "cpu":
            yield from _each_on_a_core(
                lambda batch: self._encode_readable([self._pixels(file) for file in batch]), _batches(files, batch_size)
            )
        else:
            ahead = 2 * batch_size + cores()
            for batch in _batches(ordered_map(self._pixels, files, ahead=ahead), batch_size):
                yield self._encode_readable(batch)

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
        """What the network sees of an image; an ImageError if there is nothing to see."""
        return guarded(self._seen)(file)

    def _seen(self, file: bytes) -> Any:
        return self.preprocess(middle(decode(file)))

    def _encode_readable(self, pixels: list[Any]) -> tuple[np.ndarray, list[ImageError | None]]:
        import torch

        errors = [one if isinstance(one, ImageError) else None for one in pixels]
        readable = [one for one, error in zip(pixels, errors, strict=True) if error is None]
        if not readable:
            return np.empty((0, self.dimension), np.float32), errors
        return self._encode(self.module.encode_image, torch.stack(readable).to(self.device, self.dtype)), errors

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
        yield from ordered_map(alone, every(), ahead=2 * cores())
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
