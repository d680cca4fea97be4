"""What writes a caption from an image's codes: words, and a network that predicts the next one."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections import Counter
from typing import TYPE_CHECKING, Any

import numpy as np

from dqe_assets.compression.settings import BertDecoder, SmallDecoder
from dqe_resources.errors import DataQualityError, one_line

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from dqe_resources.configurable import Configurable

PADDING, BEGIN, END, OTHER = range(4)

_WORD = re.compile(r"[^\W_]+(?:['’-][^\W_]+)*|[^\w\s]")


class DecoderError(DataQualityError):
    """A text decoder cannot be loaded; says which and what to do."""


class Decoder(ABC):
    """Captions as numbers, and the network that is trained to write them."""

    padding: int

    @abstractmethod
    def numbered(self, captions: Sequence[str]) -> NDArray[np.int64]:
        """The captions as tokens, int64 [n, tokens], filled with ``padding``; cut where they are longer."""

    @abstractmethod
    def network(self, memory_width: int) -> Any:
        """A torch module ``(tokens [n, t], memory [n, m, memory_width]) -> logits [n, t - 1, words]`` of the next."""

    def unigram_loss(self, seen: NDArray[np.int64], held_out: NDArray[np.int64]) -> float:
        """Mean loss, in nats a token, of writing held-out captions by the frequency of their tokens alone.

        Args:
            seen: tokens that the frequencies are of, each counted once more than it occurs.
            held_out: tokens that are written.
        """
        size = int(max(seen.max(initial=0), held_out.max(initial=0))) + 1
        written = seen[:, 1:][seen[:, 1:] != self.padding]
        counts = np.bincount(written, minlength=size) + 1
        wanted = held_out[:, 1:][held_out[:, 1:] != self.padding]
        return float(-np.log(counts[wanted] / counts.sum()).mean())


class WordDecoder(Decoder):
    """Words of the captions and a small transformer: see ``SmallDecoder``."""

    padding = PADDING

    def __init__(self, settings: SmallDecoder, captions: Sequence[str]) -> None:
        counted = Counter(word for caption in captions for word in words(caption))
        frequent = sorted(counted, key=lambda word: (-counted[word], word))[: settings.words]
        self._settings = settings
        self._place = {word: place for place, word in enumerate(frequent, OTHER + 1)}

    def numbered(self, captions: Sequence[str]) -> NDArray[np.int64]:
        """As ``Decoder.numbered``."""
        most = self._settings.tokens
        found = np.full((len(captions), most), PADDING, np.int64)
        for row, caption in enumerate(captions):
            tokens = [self._place.get(word, OTHER) for word in words(caption)]
            line = [BEGIN, *tokens[: most - 2], END]
            found[row, : len(line)] = line
        return found

    def network(self, memory_width: int) -> Any:
        """As ``Decoder.network``."""
        import torch

        settings, size = self._settings, len(self._place) + OTHER + 1

        class WordTransformer(torch.nn.Module):  # type: ignore[misc]
            def __init__(self) -> None:
                super().__init__()
                self.words = torch.nn.Embedding(size, settings.width)
                # They also write the words: at the beginning all are about as likely.
                torch.nn.init.normal_(self.words.weight, std=settings.width**-0.5)
                self.places = torch.nn.Parameter(torch.randn(settings.tokens, settings.width) * 0.02)
                self.memory = torch.nn.Linear(memory_width, settings.width)
                layer = torch.nn.TransformerDecoderLayer(
                    settings.width, settings.heads, 4 * settings.width, 0.0, "gelu", batch_first=True, norm_first=True
                )
                self.decoder = torch.nn.TransformerDecoder(layer, settings.layers, torch.nn.LayerNorm(settings.width))

            def forward(self, tokens: Any, memory: Any) -> Any:
                read = tokens[:, :-1]
                mask = torch.nn.Transformer.generate_square_subsequent_mask(read.shape[1], device=tokens.device)
                found = self.decoder(
                    self.words(read) + self.places[: read.shape[1]],
                    self.memory(memory),
                    tgt_mask=mask,
                    tgt_is_causal=True,
                )
                return found @ self.words.weight.T

        return WordTransformer()


class TransformersDecoder(Decoder):
    """A BERT with cross-attention: see ``BertDecoder``."""

    def __init__(self, settings: BertDecoder) -> None:
        from transformers import AutoTokenizer

        self._settings = settings
        try:
            self._tokenizer = AutoTokenizer.from_pretrained(settings.model)
        except (OSError, ValueError) as error:
            raise _missing(settings.model, error) from error
        self.padding = int(self._tokenizer.pad_token_id)

    def numbered(self, captions: Sequence[str]) -> NDArray[np.int64]:
        """As ``Decoder.numbered``."""
        most = self._settings.tokens
        made = self._tokenizer(list(captions), padding="max_length", truncation=True, max_length=most)
        return np.asarray(made["input_ids"], np.int64)

    def network(self, memory_width: int) -> Any:
        """As ``Decoder.network``."""
        import torch
        from transformers import BertLMHeadModel

        try:
            bert = BertLMHeadModel.from_pretrained(self._settings.model, is_decoder=True, add_cross_attention=True)
        except (OSError, ValueError) as error:
            raise _missing(self._settings.model, error) from error
        padding = self.padding

        class Bert(torch.nn.Module):  # type: ignore[misc]
            def __init__(self) -> None:
                super().__init__()
                self.memory = torch.nn.Linear(memory_width, bert.config.hidden_size)
                self.bert = bert

            def forward(self, tokens: Any, memory: Any) -> Any:
                read = tokens[:, :-1]
                return self.bert(
                    read, attention_mask=(read != padding).long(), encoder_hidden_states=self.memory(memory)
                ).logits

        return Bert()


def decoder_of(settings: Configurable, captions: Sequence[str]) -> Decoder:
    """The decoder of these settings, for captions like these; raises DecoderError if it cannot be loaded."""
    if isinstance(settings, SmallDecoder):
        return WordDecoder(settings, captions)
    if isinstance(settings, BertDecoder):
        return TransformersDecoder(settings)
    raise TypeError(f"no decoder of kind {settings.kind}")


def words(caption: str) -> list[str]:
    """The words and signs of a caption, in lower case."""
    return _WORD.findall(caption.lower())


def _missing(model: str, error: Exception) -> DecoderError:
    return DecoderError(
        f"Transformers cannot load the decoder {model}: {one_line(error)[:300]}; where the hub cannot be reached, give "
        "a folder with the model"
    )
