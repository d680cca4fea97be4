"""What scorers share that ask a vision-language model whether an image shows what a caption says."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Field, model_validator
from pydantic_core import PydanticCustomError

from dqe_resources.captioners.protocol import Caption, CaptionerError, SeeingModel
from dqe_resources.scorers.named import SampleScorer

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from typing import Self

    from dqe_resources.captioners.budget import Cap, Tokens
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
ANSWERS = frozenset({"yes", "no", *map(str, range(_HIGHEST_GRADE + 1))})
"""The words that are answers."""
SHOWN = 5
"""The most probable tokens that messages show."""
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


class VqaScorer(SeeingModel, SampleScorer):
    """Asks a vision-language model whether the image shows what a caption says, for the captions of all sources.

    The score of a caption is the probability that the first token of the answer is "Yes", as VQAScore has it (Lin et
    al. 2024, arXiv 2404.01291); or the grade that is expected by the probabilities of the digits, as in FLEUR (Lee et
    al. 2024, arXiv 2406.06004). One token is written for each caption, and the caption is read whole.

    Attributes:
        answer: What the first token is read as: ``yes``, the probability of Yes; or ``grade``, the expected digit
            divided by 9.
        question: The question, with {caption} in the caption's place; by default VQAScore's, or one for a grade.
        min_scored: Share of the captions asked about that must get a score. Below it, the asset's check fails.
    """

    without_effect: ClassVar[frozenset[str]] = (
        SeeingModel.without_effect | SampleScorer.without_effect | frozenset({"min_scored"})
    )
    runs: ClassVar[str]
    """What answers, as the UI shows it."""

    answer: Reading = "yes"
    question: str | None = None
    min_scored: Annotated[float, Field(ge=0, le=1)] = 0.9

    @model_validator(mode="after")
    def _one_caption_can_be_asked_about(self) -> Self:
        if self.question is not None and self.question.count(PLACEHOLDER) != 1:
            raise PydanticCustomError("question", "question: it must have {place} once", {"place": PLACEHOLDER})
        return self

    @property
    def label(self) -> str:
        """By its name."""
        return f"scorer {self.name}"

    @property
    @abstractmethod
    def pool(self) -> str:
        """Dagster pool of its steps, whose limit holds for all runs together."""

    @property
    @abstractmethod
    def cap(self) -> Cap:
        """What a shard may take."""

    @abstractmethod
    def answers(self, samples: Iterator[Sample], spent: Tokens) -> Iterator[tuple[int, Caption]]:
        """As ``score``, however many have no score."""

    def signature(self) -> dict[str, Any]:
        """The settings that change a score, and the question as it is asked."""
        return {**super().signature(), "question": self.question or QUESTIONS[self.answer]}

    def ask(self, caption: str) -> str:
        """The question about a caption, which is quoted as it stands."""
        return (self.question or QUESTIONS[self.answer]).replace(PLACEHOLDER, caption)

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
        for index, answer in self.answers(samples, spent):
            if unread >= 0 and isinstance(answer, Verdict):
                unread = unread + 1 if answer.score is None else -1
            if unread >= _MANY:
                raise CaptionerError(
                    f"{self.label}: none of the first {unread} answers of {self.model} begins as it was asked to: "
                    f"{answer.error}. Set thinking: false for a model that thinks, or another question, in "
                    "data/dqe.yaml"
                )
            yield index, answer

    def verdict(self, shares: Mapping[str, float], most: Mapping[str, float], taken: Caption) -> Verdict:
        """The score by the probabilities of the first token.

        Args:
            shares: the probability of each word, as ``word_of`` has it, in all spellings together.
            most: the most probable tokens with their probabilities, for people.
            taken: the answer, and the tokens that it took.
        """
        score, answered = _yes(shares) if self.answer == "yes" else _grade(shares)
        if answered < LEAST_ANSWERED:
            seen = ", ".join(f"{token!r} {probability:.2f}" for token, probability in most.items())
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


def word_of(token: str) -> str:
    """The word that a token is, without the signs around it and in small letters."""
    return token.strip(_AROUND).casefold()


def _yes(shares: Mapping[str, float]) -> tuple[float, float]:
    """The probability of yes, and of any answer."""
    yes = shares.get("yes", 0.0)
    return min(yes, 1.0), yes + shares.get("no", 0.0)


def _grade(shares: Mapping[str, float]) -> tuple[float, float]:
    """The expected grade, 0 to 1, and the probability that there is one."""
    digits = {grade: shares.get(str(grade), 0.0) for grade in range(_HIGHEST_GRADE + 1)}
    answered = sum(digits.values())
    expected = sum(grade * share for grade, share in digits.items()) / answered if answered else 0.0
    return expected / _HIGHEST_GRADE, answered
