"""Questions to a model of Transformers, in batches; what it says to each."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from contextlib import nullcontext
from dataclasses import replace
from itertools import islice
from typing import TYPE_CHECKING, Any

from dqe_resources.captioners.answer_text import answer_text
from dqe_resources.captioners.chat_answer import no_answer
from dqe_resources.captioners.protocol import Caption, CaptionerError, Sample
from dqe_resources.errors import one_line
from dqe_resources.images import decode

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from dqe_resources.captioners.transformers_model import LoadedModel, LocalModel, TransformersModel

_MANY = 20
"""Failures in a row that no few samples are the cause of."""


class BatchedModel(ABC):
    """A loaded model that is asked in batches.

    Args:
        loaded: the model.
        settings: how it is asked.
        label: what messages call it.
        task: what a model without a chat template is asked about an image; None for what suits its type.
        image_options: further arguments of its image processor.
    """

    def __init__(
        self,
        loaded: LoadedModel,
        settings: LocalModel,
        label: str,
        *,
        task: str | None = None,
        image_options: Mapping[str, Any] | None = None,
    ) -> None:
        self.loaded = loaded
        self._settings = settings
        self._label = label
        self._task = loaded.task if task is None else task
        self._image_options = dict(image_options or {})
        self._failures = 0

    def answers(self, samples: Iterator[Sample]) -> Iterator[tuple[int, Caption]]:
        """The answer to each sample with its place among those given, a batch after the other.

        A sample that the model fails at is a caption with an error. Where a batch fails, its halves are tried.

        Raises:
            CaptionerError: 20 samples in a row failed.
        """
        numbered = enumerate(samples)
        while batch := list(islice(numbered, self._settings.concurrency)):
            places = [place for place, _ in batch]
            yield from zip(places, self._batch([sample for _, sample in batch]), strict=True)

    def _batch(self, batch: list[Sample]) -> Iterator[Caption]:
        started = time.monotonic()
        try:
            captions = self.asked(batch)
        except Exception as error:
            if len(batch) > 1:
                middle = len(batch) // 2
                yield from self._batch(batch[:middle])
                yield from self._batch(batch[middle:])
                return
            self._failures += 1
            said = f"{type(error).__name__}: {one_line(error)}"
            if self._failures >= _MANY:
                raise CaptionerError(f"{self._label}: {_MANY} samples in a row failed: {said}") from error
            captions = [Caption(None, "error", said)]
        else:
            self._failures = 0
        seconds = time.monotonic() - started
        yield from (replace(one, seconds=seconds, attempts=1) for one in captions)

    @abstractmethod
    def asked(self, batch: list[Sample]) -> list[Caption]:
        """What the model says to each sample of a batch."""

    def inputs(self, batch: list[Sample]) -> tuple[dict[str, Any], str | None]:
        """What the model is given, on its device, and what it is asked in place of the prompt."""
        prepared, asked = self._prepared(batch)
        given = {name: value.to(self.loaded.device) for name, value in prepared.items()}
        given |= {name: value.to(self.loaded.dtype) for name, value in given.items() if value.is_floating_point()}
        return given, asked

    def _prepared(self, batch: list[Sample]) -> tuple[Any, str | None]:
        processor, tensors = self.loaded.processor, {"return_tensors": "pt", "padding": True}
        sees = bool(batch[0].image)
        if self.loaded.has_chat_template:
            told = {} if self._settings.thinking is None else {"enable_thinking": self._settings.thinking}
            # A tokenizer takes as its own what a processor hands on.
            how = {"processor_kwargs": {**tensors, **self._image_options}} if sees else tensors
            inputs = (processor if sees else self.loaded.tokenizer).apply_chat_template(
                [_conversation(one) for one in batch],
                add_generation_prompt=True,
                tokenize=True,
                return_dict=True,
                **how,
                **told,
            )
            return inputs, None
        if not sees:
            return self.loaded.tokenizer([one.prompt for one in batch], **tensors), None
        texts = {"text": [self._task] * len(batch)} if self._task else {}
        images = [decode(one.image) for one in batch]
        return processor(images=images, **texts, **tensors, **self._image_options), self._task


class WritingModel(BatchedModel):
    """A loaded model that writes its answers."""

    def __init__(self, loaded: LoadedModel, settings: TransformersModel, label: str, **how: Any) -> None:
        super().__init__(loaded, settings, label, **how)
        self._writing = settings

    def asked(self, batch: list[Sample]) -> list[Caption]:
        """As ``BatchedModel.asked``."""
        import torch

        seed = self._writing.seed if batch[0].seed is None else batch[0].seed
        with torch.inference_mode(), nullcontext() if seed is None else torch.random.fork_rng():
            if seed is not None:
                torch.manual_seed(seed)
            if self.loaded.processor is None:
                return [_without_thoughts(self._by_its_own_code(one)) for one in batch]
            given, asked = self.inputs(batch)
            return [replace(_without_thoughts(one), asked=asked) for one in self._generated(given)]

    def _by_its_own_code(self, sample: Sample) -> Caption:
        """The answer of a model whose code has ``query``, as Moondream's."""
        return Caption(str(self.loaded.model.query(decode(sample.image), sample.prompt)["answer"]).strip())

    def _generated(self, given: Mapping[str, Any]) -> list[Caption]:
        import torch

        written = self.loaded.model.generate(**given, **self._writing.generation_values())
        prompts, mask = given.get("input_ids"), given.get("attention_mask")
        width = 0 if prompts is None else prompts.shape[1]
        # Some models give the prompt back before the answer.
        if width and torch.equal(written[:, :width], prompts):
            written = written[:, width:]
        counts = [None] * len(written) if mask is None else mask.sum(dim=1).tolist()
        texts = self.loaded.tokenizer.batch_decode(written, skip_special_tokens=True)
        return [
            self._caption(text, tokens, count)
            for text, tokens, count in zip(texts, written.tolist(), counts, strict=True)
        ]

    def _caption(self, text: str, tokens: list[int], prompt_tokens: int | None) -> Caption:
        ends = self.loaded.special_ids
        is_cut = len(tokens) >= self._writing.max_tokens and tokens[-1] not in ends
        said = sum(token not in ends for token in tokens)
        return Caption(text.strip(), "length" if is_cut else "stop", None, prompt_tokens, said)


def _conversation(sample: Sample) -> list[dict[str, Any]]:
    if not sample.image:
        return [{"role": "user", "content": sample.prompt}]
    content = [{"type": "image", "image": decode(sample.image)}, {"type": "text", "text": sample.prompt}]
    return [{"role": "user", "content": content}]


def _without_thoughts(caption: Caption) -> Caption:
    """A caption as it is kept: without thoughts and special tokens, and an error if nothing is left."""
    if caption.text is None:
        return caption
    written = answer_text(caption.text)
    if written.removed and not written.text:
        error = no_answer(written.removed, is_cut=caption.finish_reason == "length")
        return replace(caption, text=None, finish_reason="error", error=error, removed=written.removed)
    return replace(caption, text=written.text, removed=written.removed)
