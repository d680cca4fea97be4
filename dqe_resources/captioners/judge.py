"""The judge: a vision-language model behind a server that marks the captions of an image side by side."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, WithJsonSchema, create_model

from dqe_resources.captioners.budget import Budget, Cap, Tokens
from dqe_resources.captioners.capped_client import CappedClient
from dqe_resources.captioners.chat import ChatModel
from dqe_resources.captioners.json_client import JsonClient, UnparsableError, json_in

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from dqe_resources.captioners.protocol import Caption, Sample

_SHOWN = 200


class _Answer(BaseModel):
    """What a server that constrains its answers may not add is ignored where one did."""

    model_config = ConfigDict(strict=True, json_schema_extra={"additionalProperties": False})


class Mark(_Answer):
    """One mark of one caption; the reason comes first, so that the mark can follow from it."""

    reason: str
    # As an enumeration, which every server that takes a schema understands: not all know bounds.
    score: Annotated[int, Field(ge=1, le=5), WithJsonSchema({"type": "integer", "enum": [1, 2, 3, 4, 5]})]


class Judgement(_Answer):
    """The marks of one caption: its fields are the criteria."""

    faithful: Mark
    complete: Mark
    fluent: Mark
    invents_nothing: Mark


CRITERIA = tuple(Judgement.model_fields)


class Judge(ChatModel):
    """Marks captions. It is asked over the same interface as a captioner, and with the same patience.

    If an answer does not have the required form, the judge is asked again and told what was wrong.

    Attributes:
        max_tokens: Tokens after which an answer is cut. An answer has four marks with reasons for each caption of a
            sample.
        retries: How often a sample is asked about again after an answer that cannot be used.
        max_prompt_tokens: The most tokens that rubric, captions and image can have: so many are reserved under the cap
            for each request.
        json_schema: Whether the request asks for JSON by a schema; false for a server that refuses ``response_format``.
    """

    kind: ClassVar[str] = "judge"
    without_effect: ClassVar[frozenset[str]] = ChatModel.without_effect | {"max_prompt_tokens"}

    max_tokens: Annotated[int, Field(ge=1)] = 2048
    retries: Annotated[int, Field(ge=0)] = 2
    max_prompt_tokens: Annotated[int, Field(ge=1)] = 8192
    json_schema: bool = True

    @property
    def label(self) -> str:
        """There is one."""
        return "judging.judge"

    @property
    def worst(self) -> Tokens:
        """The most that one request takes."""
        return Tokens(self.max_prompt_tokens, self.max_tokens)

    def judge(self, samples: Iterator[Sample], cap: Cap, spent: Tokens) -> Iterator[tuple[int, Caption]]:
        """Answers as they come, in any order, each with its sample's place among those given, from 0.

        The text of an answer can be read by ``parse``, unless its ``finish_reason`` is ``unparsable`` or ``error``.
        Its tokens are those of all attempts: as the server counts them, or where it does not say (no usage, no answer
        in time), the most that they can be. A sample that the cap left no room to ask about gets no answer.

        Args:
            samples: an image, the prompt in full, and as value ``labels`` those of the captions in the prompt.
            cap: what may be spent.
            spent: what was spent before.

        Raises:
            CaptionerError: as ``Captioner.caption``.
        """
        return _JudgeClient(self, samples, Budget(cap, self.worst, spent)).capped_answers()

    def request(self, sample: Sample) -> dict[str, Any]:
        """The request for one sample, with the schema of the answer."""
        if not self.json_schema:
            return super().request(sample)
        schema = {"name": "judgements", "strict": True, "schema": _form(sample.values["labels"]).model_json_schema()}
        # Before what the settings say, which may say another.
        return {"response_format": {"type": "json_schema", "json_schema": schema}} | super().request(sample)


def parse(text: str, labels: Sequence[str]) -> Mapping[str, Judgement]:
    """The judgement of each caption in an answer: JSON, alone, in a code fence, or with words around it.

    Raises:
        UnparsableError: it holds no JSON, or a mark is missing or none of 1 to 5.
    """
    found = json_in(text)
    try:
        answer = _form(tuple(labels)).model_validate_json(found)
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        where = ".".join(map(str, first["loc"]))
        raise UnparsableError(f"{where + ': ' if where else ''}{first['msg']}"[:_SHOWN]) from error
    return {label: getattr(answer, label) for label in labels}


@cache
def _form(labels: tuple[str, ...]) -> type[_Answer]:
    """What an answer about captions of these labels is."""
    fields: dict[str, Any] = dict.fromkeys(labels, Judgement)
    return create_model("Judgements", __base__=_Answer, **fields)


class _JudgeClient(JsonClient, CappedClient):
    """A client whose answers must be judgements, and whose requests a budget must allow."""

    setting: ClassVar[str] = "judging.judge.json_schema"

    def __init__(self, judge: Judge, samples: Iterator[Sample], budget: Budget) -> None:
        super().__init__(judge, self._noted(samples), budget)
        self._labels: list[Sequence[str]] = []

    def _noted(self, samples: Iterator[Sample]) -> Iterator[Sample]:
        for sample in samples:
            self._labels.append(sample.values["labels"])
            yield sample

    def check(self, index: int, text: str) -> None:
        """As ``JsonClient.check``."""
        parse(text, self._labels[index])
