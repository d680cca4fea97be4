"""The scorer that asks a model in this process whether an image shows what a caption says."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import model_validator
from pydantic_core import PydanticCustomError

from dqe_resources.captioners.budget import Cap
from dqe_resources.captioners.protocol import Caption, NoCaptionerError
from dqe_resources.captioners.transformers_batches import BatchedModel
from dqe_resources.captioners.transformers_model import SeeingLocalModel, loaded_model
from dqe_resources.scorers.vqa import ANSWERS, SHOWN, VqaScorer, word_of
from dqe_resources.scorers.vqa_server import ServedVqa

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from dqe_resources.captioners.budget import Tokens
    from dqe_resources.captioners.protocol import Sample
    from dqe_resources.captioners.transformers_model import LoadedModel


class LocalVqa(SeeingLocalModel, VqaScorer):
    """Asks a vision-language model of Transformers in this process, on a CPU or a GPU, without a server.

    The probabilities are those of the model over all its tokens, in all spellings of an answer, before any sampling.
    The model must have a chat template.
    """

    kind: ClassVar[str] = "vqa_transformers"
    runs: ClassVar[str] = "transformers"
    without_effect: ClassVar[frozenset[str]] = SeeingLocalModel.without_effect | VqaScorer.without_effect

    @model_validator(mode="before")
    @classmethod
    def _has_nothing_of_a_server(cls, value: Any) -> Any:
        of_server = ServedVqa.model_fields.keys() - cls.model_fields.keys()
        if isinstance(value, dict) and (found := sorted(of_server & set(map(str, value)))):
            raise PydanticCustomError(
                "of_server",
                "{found}: a model in the process of the run has no address, no cap and no sampling; remove it, or set "
                "kind: vqa to ask a server",
                {"found": ", ".join(found)},
            )
        return value

    @property
    def pool(self) -> str:
        """That of all models in this process."""
        return "model"

    @property
    def cap(self) -> Cap:
        """No cap: nobody is paid."""
        return Cap()

    def answers(self, samples: Iterator[Sample], spent: Tokens) -> Iterator[tuple[int, Caption]]:  # noqa: ARG002
        """A batch after the other.

        Raises:
            NoCaptionerError: the model cannot be loaded, or cannot be asked a question.
            CaptionerError: 20 samples in a row failed.
        """
        loaded = loaded_model(self, self.label, sees=True)
        if loaded.processor is None:
            raise NoCaptionerError(
                f"{self.label}: {self.model} answers by code of its own, which gives no probabilities: {_OTHERS}"
            )
        if not loaded.has_chat_template:
            raise NoCaptionerError(
                f"{self.label}: {self.model} has no chat template, so that it cannot be asked a question: {_OTHERS}"
            )
        yield from _FirstToken(loaded, self).answers(samples)


_OTHERS = "set model to one that has a chat template, such as SmolVLM, Qwen-VL or LLaVA (-hf)"


class _FirstToken(BatchedModel):
    """A loaded model of whose answers the first token's probabilities are read."""

    def __init__(self, loaded: LoadedModel, scorer: LocalVqa) -> None:
        super().__init__(loaded, scorer, scorer.label, image_options=scorer.image_options)
        self._scorer = scorer

    def asked(self, batch: list[Sample]) -> list[Caption]:
        """The verdict on each sample."""
        import torch

        given, _ = self.inputs(batch)
        with torch.inference_mode():
            # As the model's code prepares it: positions, caches and the first token of a decoder are its own.
            written = self.loaded.model.generate(
                **given,
                max_new_tokens=1,
                do_sample=False,
                num_beams=1,
                output_logits=True,
                return_dict_in_generate=True,
            )
            probabilities = written.logits[0].float().softmax(dim=-1).cpu()
        if not probabilities.isfinite().all():
            raise ArithmeticError("the model's logits are no numbers: set dtype: bfloat16 or float32")
        most, tokens = probabilities.topk(min(SHOWN, probabilities.shape[-1]))
        counts = given["attention_mask"].sum(dim=1).tolist()
        verdicts: list[Caption] = []
        for row, count in enumerate(counts):
            shares = {word: float(probabilities[row, ids].sum()) for word, ids in self._spellings.items()}
            texts = [self.loaded.tokenizer.decode([token]) for token in tokens[row].tolist()]
            shown = dict(zip(texts, most[row].tolist(), strict=True))
            verdicts.append(self._scorer.verdict(shares, shown, Caption(texts[0].strip(), "stop", None, count, 1)))
        return verdicts

    @cached_property
    def _spellings(self) -> Mapping[str, list[int]]:
        """The tokens of each word that is an answer."""
        found: dict[str, list[int]] = {}
        size = self.loaded.model.get_output_embeddings().weight.shape[0]
        tokenizer = self.loaded.tokenizer
        for token, text in enumerate(tokenizer.batch_decode([[token] for token in range(min(size, len(tokenizer)))])):
            if (word := word_of(text)) in ANSWERS:
                found.setdefault(word, []).append(token)
        return found
