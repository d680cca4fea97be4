"""The scorer that asks a server whether an image shows what a caption says."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from pydantic import Field, model_validator
from pydantic_core import PydanticCustomError

from dqe_resources.captioners.budget import Budget, Tokens
from dqe_resources.captioners.capped_client import CappedClient
from dqe_resources.captioners.chat import ChatModel
from dqe_resources.captioners.chat_answer import NoAnswerError, parse_answer
from dqe_resources.captioners.limits import Limits
from dqe_resources.captioners.protocol import Caption
from dqe_resources.scorers.vqa import SHOWN, Verdict, VqaScorer, word_of

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Self

    import aiohttp

    from dqe_resources.captioners.protocol import Sample


class ServedVqa(Limits, VqaScorer, ChatModel):
    """Asks a vision-language model behind a server, by the log-probabilities that it gives.

    Attributes:
        top_logprobs: How many of the most probable first tokens the server is asked for. Those that it leaves out
            count as impossible.
        max_tokens: Tokens after which an answer is cut. Only the first is read.
        temperature: Temperature of the sampling. At 1 also servers that give probabilities after the temperature give
            the model's own.
        max_prompt_tokens: The most tokens that question and image can have: so many are reserved under the cap for
            each request.
    """

    kind: ClassVar[str] = "vqa"
    runs: ClassVar[str] = "openai"
    without_effect: ClassVar[frozenset[str]] = (
        VqaScorer.without_effect | ChatModel.without_effect | frozenset(Limits.model_fields) | {"max_prompt_tokens"}
    )

    top_logprobs: Annotated[int, Field(ge=1)] = 20
    max_tokens: Annotated[int, Field(ge=1)] = 1
    temperature: Annotated[float, Field(ge=0, le=2)] = 1.0
    max_prompt_tokens: Annotated[int, Field(ge=1)] = 8192

    @model_validator(mode="before")
    @classmethod
    def _is_served(cls, value: Any) -> Any:
        if isinstance(value, dict) and not value.get("url") and not value.get("urls"):
            raise PydanticCustomError(
                "url",
                "expected url, or urls for several servers of the same model; a model of Transformers in the "
                "process of the run, without a server, is of kind vqa_transformers",
            )
        return value

    @model_validator(mode="after")
    def _has_room(self) -> Self:
        self.check_room_for(self.worst)
        return self

    @property
    def pool(self) -> str:
        """A pool of its own: its limit is the number of runs that ask this server at once."""
        return f"scorer_{self.name}"

    @property
    def worst(self) -> Tokens:
        """The most that one request takes."""
        return Tokens(self.max_prompt_tokens, self.max_tokens)

    def request(self, sample: Sample) -> dict[str, Any]:
        """The request for one sample: with the probabilities of the first token."""
        return {"logprobs": True, "top_logprobs": self.top_logprobs, **super().request(sample)}

    def answers(self, samples: Iterator[Sample], spent: Tokens) -> Iterator[tuple[int, Caption]]:
        """As the server gives them."""
        return _VqaClient(self, samples, Budget(self.cap, self.worst, spent)).capped_answers()

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
            shares[word_of(token)] = shares.get(word_of(token), 0.0) + probability
        most = sorted(probabilities.items(), key=lambda pair: -pair[1])[:SHOWN]
        return self.verdict(shares, dict(most), taken)

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

    def __init__(self, scorer: ServedVqa, samples: Iterator[Sample], budget: Budget) -> None:
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
