"""The settings of asking again for captions that fit badly."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Self

from pydantic import AfterValidator, Field, model_validator
from pydantic_core import PydanticCustomError

from dqe_assets.caption.flags import FAULTS, FLAGS, UNGROUNDED
from dqe_assets.caption.prompts import Prompt, PromptError, load_prompt
from dqe_assets.core.schema import ORIGINAL
from dqe_resources.captioners.openai import OpenAICaptioner
from dqe_resources.captioners.protocol import VisionCaptioner
from dqe_resources.configurable import Strict

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dqe_resources.captioners.protocol import Captioner


def _known_flag(flag: str) -> str:
    allowed = (*FLAGS, UNGROUNDED)
    if flag not in allowed:
        raise ValueError(f"unknown flag; allowed: {', '.join(allowed)}")
    return flag


_WITHOUT_EFFECT = {"captioner", "price_per_million_prompt_tokens", "price_per_million_completion_tokens"}


class Refining(Strict):
    """Which captions are asked for again, how, and when an answer takes the place of what was there.

    Attributes:
        captioner: Name of the captioner that is asked: one of ``captioners`` that sees the image.
        of: Whose captions are refined: ``original``, or a captioner; by default the one that is asked.
        prompt: Name of the prompt.
        temperature: Temperature of the sampling. At 0 all candidates would be the same.
        max_tokens: Tokens after which a candidate is cut; by default the captioner's.
        below: Ask again where the similarity is lower than this.
        below_original: Ask again where the similarity is lower than that of the caption that the image came with.
        flags: Ask again for captions with one of these flags, and for those that are ``ungrounded`` if it is among
            them; by default with any that is a fault.
        candidates: Answers for each caption in a round.
        rounds: Rounds at most.
        min_gain: How much higher the similarity of an answer must be to be accepted. It must be higher in any case.
        max_words_ratio: Words of an accepted answer for each word of the first caption; 50 words are always allowed.
        labels: Labels of ``image_features`` that the prompt names; 0 for none.
        price_per_million_prompt_tokens: What a million tokens of prompts and images cost, for the accounting. Without
            prices, the captioner's ``price_per_gpu_hour`` counts.
        price_per_million_completion_tokens: What a million tokens of answers cost, for the accounting.
    """

    captioner: str
    of: str | None = None
    prompt: str = "refine"
    temperature: Annotated[float, Field(ge=0, le=2)] = 0.7
    max_tokens: Annotated[int, Field(ge=1)] | None = None
    below: Annotated[float, Field(ge=-1, le=1)] | None = None
    below_original: bool = True
    flags: tuple[Annotated[str, AfterValidator(_known_flag)], ...] = tuple(FAULTS)
    candidates: Annotated[int, Field(ge=1, le=64)] = 3
    rounds: Annotated[int, Field(ge=1, le=20)] = 2
    min_gain: Annotated[float, Field(ge=0, le=2)] = 0.0
    max_words_ratio: Annotated[float, Field(gt=0)] = 2.0
    labels: Annotated[int, Field(ge=0, le=20)] = 5
    price_per_million_prompt_tokens: Annotated[float, Field(ge=0)] | None = None
    price_per_million_completion_tokens: Annotated[float, Field(ge=0)] | None = None

    @model_validator(mode="after")
    def _candidates_can_differ(self) -> Self:
        if self.candidates > 1 and self.temperature == 0:
            raise PydanticCustomError(
                "candidates",
                "{candidates} candidates at temperature 0 would all be the same: set temperature above 0, "
                "or candidates: 1",
                {"candidates": self.candidates},
            )
        return self

    @property
    def source(self) -> str:
        """The caption source that is refined."""
        return self.of or self.captioner

    def loaded_prompt(self) -> Prompt:
        """What is asked.

        Raises:
            PromptError: as ``load_prompt``.
        """
        return load_prompt(self.prompt)

    def signature(self) -> dict[str, Any]:
        """The settings that change what comes out, with the prompt's text by its hash."""
        values = self.model_dump(mode="json", exclude=_WITHOUT_EFFECT | {"prompt"})
        return {**values, "of": self.source, "prompt_hash": self.loaded_prompt().hash}

    def asked(self, captioner: VisionCaptioner) -> VisionCaptioner:
        """The captioner as it is asked: with the prompt, temperature and length of these settings."""
        changes: dict[str, Any] = {"prompt": self.prompt, "temperature": self.temperature}
        if self.max_tokens is not None:
            changes["max_tokens"] = self.max_tokens
        if isinstance(captioner, OpenAICaptioner):
            # It is asked for one caption.
            changes["fields"] = {}
        return captioner.model_copy(update=changes)


def check_refining(refining: Refining, captioners: Sequence[Captioner]) -> None:
    """See that there is the captioner that is asked, the captions that are refined, and the prompt.

    Raises:
        PydanticCustomError: there is not; says which there are.
    """
    names = {
        "captioner": (refining.captioner, [one.name for one in captioners if isinstance(one, VisionCaptioner)]),
        "of": (refining.source, [ORIGINAL, *(one.name for one in captioners)]),
    }
    for key, (name, allowed) in names.items():
        if name not in allowed:
            raise PydanticCustomError(
                "refining",
                "refining: {key}: there is no '{name}'{who}; allowed: {allowed}",
                {
                    "key": key,
                    "name": name,
                    "who": " that sees the image" if key == "captioner" else "",
                    "allowed": ", ".join(allowed) or "none",
                },
            )
    try:
        refining.loaded_prompt()
    except PromptError as error:
        raise PydanticCustomError("prompt", "refining: {error}", {"error": str(error)}) from error
