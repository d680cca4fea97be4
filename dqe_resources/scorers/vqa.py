"""The scorer that asks a vision-language model whether an image shows what a caption says."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Field, model_validator
from pydantic_core import PydanticCustomError

from dqe_resources.captioners.budget import Budget, Tokens
from dqe_resources.captioners.capped_client import CappedClient
from dqe_resources.captioners.chat import ChatModel
from dqe_resources.captioners.chat_answer import NoAnswerError, parse_answer
from dqe_resources.captioners.limits import Limits
from dqe_resources.captioners.protocol import Caption, CaptionerError
from dqe_resources.scorers.named import SampleScorer

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from typing import Self

    import aiohttp

    from dqe_resources.captioners.protocol import Sample

Reading = Literal["yes", "grade"]
"""What the first token of an answer is read as: yes or no, or a digit."""

PLACEHOLDER = "{caption}"
QUESTIONS: Mapping[Reading, str] = {
    "yes": 'Does this figure show "{caption}"? Please answer yes or no.',
    "grade": 'How well does the description "{caption}" fit this figure? Grade it from 0 (not at all) to 9 (fully and '
    "truly). Answer with one digit.",
}
"""The question of each reading: the first is VQAScore's."""

LEAST_ANSWERED = 0.1
"""Probability that the first token must have, in all, of being an answer: below it the model says something else."""

_AROUND = " \t\r\n\"'.,:;!*()_ĠĊ▁"
"""Signs that tokenizers and models put around a word."""
_HIGHEST_GRADE = 9
_SHOWN = 5
_MANY = 20
"""Answers in a row that no few captions are the cause of."""


@dataclass(frozen=True, slots=True)
class Verdict(Caption):
    """An answer whose first token was read.

    Attributes:
        score: how surely the image shows what the caption says, 0 to 1; None if the first token is no answer.
        answered: the probability that the first token is an answer at all, 0 to 1.
    """

    score: float | None = None
    answered: float | None = None


class VqaScorer(Limits, ChatModel, SampleScorer):
    """Asks a vision-language model whether the image shows what a caption says, for the captions of all sources.

    The score of a caption is the probability that the first token of the answer is "Yes", as VQAScore has it (Lin et
    al. 2024, arXiv 2404.01291); or the grade that is expected by the probabilities of the digits, as in FLEUR (Lee et
    al. 2024, arXiv 2406.06004). One token is written for each caption, and the caption is read whole.

    Attributes:
        answer: What the first token is read as: ``yes``, the probability of Yes; or ``grade``, the expected digit
            divided by 9.
        question: The question, with {caption} in the caption's place; by default VQAScore's, or one for a grade.
        top_logprobs: How many of the most probable first tokens the server is asked for. Those that it leaves out
            count as impossible.
        max_tokens: Tokens after which an answer is cut. Only the first is read.
        temperature: Temperature of the sampling. At 1 also servers that give probabilities after the temperature give
            the model's own.
        max_prompt_tokens: The most tokens that question and image can have: so many are reserved under the cap for
            each request.
        min_scored: Share of the captions asked about that must get a score. Below it, the asset's check fails.
    """

    kind: ClassVar[str] = "vqa"
    without_effect: ClassVar[frozenset[str]] = (
        ChatModel.without_effect
        | SampleScorer.without_effect
        | frozenset(Limits.model_fields)
        | {"max_prompt_tokens", "min_scored"}
    )

    answer: Reading = "yes"
    question: str | None = None
    top_logprobs: Annotated[int, Field(ge=1)] = 20
    max_tokens: Annotated[int, Field(ge=1)] = 1
    temperature: Annotated[float, Field(ge=0, le=2)] = 1.0
    max_prompt_tokens: Annotated[int, Field(ge=1)] = 8192
    min_scored: Annotated[float, Field(ge=0, le=1)] = 0.9

    @model_validator(mode="after")
    def _one_caption_can_be_asked_about(self) -> Self:
        if self.question is not None and self.question.count(PLACEHOLDER) != 1:
            raise PydanticCustomError("question", "question: it must have {place} once", {"place": PLACEHOLDER})
        self.check_room_for(self.worst)
        return self

    @property
    def label(self) -> str:
        """By its name."""
        return f"scorer {self.name}"

    @property
    def pool(self) -> str:
        """A pool of its own: its limit is the number of runs that ask this server at once."""
        return f"scorer_{self.name}"

    @property
    def worst(self) -> Tokens:
        """The most that one request takes."""
        return Tokens(self.max_prompt_tokens, self.max_tokens)

    def signature(self) -> dict[str, Any]:
        """The settings that change a score, and the question as it is asked."""
        return {**super().signature(), "question": self.question or QUESTIONS[self.answer]}

    def ask(self, caption: str) -> str:
        """The question about a caption, which is quoted as it stands."""
        return (self.question or QUESTIONS[self.answer]).replace(PLACEHOLDER, caption)

    def request(self, sample: Sample) -> dict[str, Any]:
        """The request for one sample: with the probabilities of the first token."""
        return {"logprobs": True, "top_logprobs": self.top_logprobs, **super().request(sample)}

    def score(self, samples: Iterator[Sample], spent: Tokens) -> Iterator[tuple[int, Caption]]:
        """Answers as they come, in any order, each with its sample's place among those given, from 0.

        An answer is a ``Verdict``, or the ``Caption`` of one that failed. Its ``finish_reason`` is ``unparsable`` if
        its first token is no answer. A sample that the cap left no room to ask about gets no answer.

        Args:
            samples: an image, and the question in full.
            spent: what was spent before.

        Raises:
            CaptionerError: as ``Captioner.caption``; or the model answers otherwise than it is asked to, again and
                again.
        """
        unread = 0
        for index, answer in _VqaClient(self, samples, Budget(self.cap, self.worst, spent)).capped_answers():
            if unread >= 0 and isinstance(answer, Verdict):
                unread = unread + 1 if answer.score is None else -1
            if unread >= _MANY:
                raise CaptionerError(
                    f"{self.where}: none of the first {unread} answers begins as it was asked to: {answer.error}. Set "
                    f"thinking: false for a model that thinks, or another question of {self.label}, in data/dqe.yaml"
                )
            yield index, answer

    def read(self, data: bytes) -> Verdict:
        """The score in a server's answer.

        Raises:
            NoAnswerError: there is none: as ``parse_answer``, or ``fatal`` without log-probabilities.
        """
        first = self._first_token(data)
        try:
            taken = parse_answer(data)
        except NoAnswerError as error:
            if error.text or not (error.removed or error.text == ""):
                raise
            # The token that was drawn may be none of a text: a space, or the end. The others say as much.
            taken = Caption(None)
        probabilities = {token: math.exp(min(logprob, 0.0)) for token, logprob in first.items()}
        shares: dict[str, float] = {}
        for token, probability in probabilities.items():
            word = token.strip(_AROUND).casefold()
            shares[word] = shares.get(word, 0.0) + probability
        score, answered = _yes(shares) if self.answer == "yes" else _grade(shares)
        if answered < LEAST_ANSWERED:
            most = sorted(probabilities.items(), key=lambda pair: -pair[1])[:_SHOWN]
            seen = ", ".join(f"{token!r} {probability:.2f}" for token, probability in most)
            wanted = "yes or no" if self.answer == "yes" else "a digit"
            return Verdict(
                None,
                "unparsable",
                f"the first token is not {wanted}, but {seen}",
                taken.prompt_tokens,
                taken.completion_tokens,
                answered=answered,
            )
        return Verdict(
            taken.text,
            prompt_tokens=taken.prompt_tokens,
            completion_tokens=taken.completion_tokens,
            score=score,
            answered=min(answered, 1.0),
        )

    def _first_token(self, data: bytes) -> dict[str, float]:
        """The most probable first tokens, each with its log-probability."""
        try:
            answer = json.loads(data)
            choice = answer["choices"][0] if isinstance(answer, dict) and "choices" in answer else None
        except (ValueError, KeyError, TypeError, IndexError, RecursionError):
            choice = None
        if not isinstance(choice, dict):
            parse_answer(data)  # Which says what is wrong.
            raise NoAnswerError("an answer that is none")
        try:
            first = choice["logprobs"]["content"][0]
            found = {str(one["token"]): float(one["logprob"]) for one in first["top_logprobs"]}
            found.setdefault(str(first["token"]), float(first["logprob"]))
        except (KeyError, TypeError, IndexError, ValueError) as error:
            raise NoAnswerError(
                f"the answer has no log-probabilities of its first token{self.what_to_set}", "fatal"
            ) from error
        if len(found) < 2 <= self.top_logprobs:
            raise NoAnswerError(
                f"the answer has the log-probability of one first token, not of {self.top_logprobs}{self.what_to_set}",
                "fatal",
            )
        return found

    @property
    def what_to_set(self) -> str:
        """What helps where a server gives no log-probabilities."""
        return (
            f", and {self.label} needs logprobs and top_logprobs ({self.top_logprobs}): use a server that gives them "
            "(vLLM, SGLang, llama.cpp, Ollama; lmdeploy with --logprobs-mode raw_logprobs on its PyTorch engine), or "
            "lower top_logprobs in data/dqe.yaml to what it allows"
        )


class _VqaClient(CappedClient):
    """A client whose answers are read by the log-probabilities of their first token."""

    def __init__(self, scorer: VqaScorer, samples: Iterator[Sample], budget: Budget) -> None:
        super().__init__(scorer, samples, budget)
        self._scorer = scorer

    def read(self, data: bytes) -> Caption:
        """The score in it."""
        return self._scorer.read(data)

    async def attempt(self, session: aiohttp.ClientSession, index: int, body: bytes) -> Caption:
        """Ask once; a server that refuses to give log-probabilities refuses them for every caption."""
        try:
            return await super().attempt(session, index, body)
        except NoAnswerError as failure:
            if failure.kind in {"fatal", "rejected"} and "logprobs" in failure.message:
                told = self._scorer.what_to_set
                message = failure.message if told in failure.message else f"{failure.message}{told}"
                raise replace(failure, kind="fatal", message=message) from failure
            raise


def _yes(shares: Mapping[str, float]) -> tuple[float, float]:
    """The probability of yes, and of any answer."""
    yes = shares.get("yes", 0.0)
    return min(yes, 1.0), yes + shares.get("no", 0.0)


def _grade(shares: Mapping[str, float]) -> tuple[float, float]:
    """The expected grade, 0 to 1, and the probability that there is one."""
    digits = {
        int(word): share for word, share in shares.items() if word.isascii() and len(word) == 1 and word.isdigit()
    }
    answered = sum(digits.values())
    expected = sum(grade * share for grade, share in digits.items()) / answered if answered else 0.0
    return expected / _HIGHEST_GRADE, answered
