"""The settings of the best caption."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field, field_validator, model_validator
from pydantic_core import PydanticCustomError

from dqe_assets.caption.flags import FAULTS, FLAGS, UNGROUNDED
from dqe_assets.score.patterns import PATTERNS
from dqe_resources.configurable import Strict

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Self


AVOIDABLE = (*FLAGS, *PATTERNS, UNGROUNDED)
"""What a caption can be set aside for: flags of generated captions, patterns of any caption, and things not found."""

_NO_DESCRIPTION = (*FAULTS, "file_name", "placeholder", "only_hashtags", "no_letters")


class BestRule(Strict):
    """Which caption of a sample is the best.

    A caption that has a flag of ``avoid``, or is too short or too long, is set aside: it is taken only if no other is
    left. The others are ranked by the first of ``by``; if they are equal in it, by the next; if they are equal in all,
    by the order of the sources. A mark that not all of them have (not every caption is judged) does not count for that
    sample.

    Attributes:
        by: What captions are ranked by: their similarity to the image, their judgement (the judge's mean mark), or vqa
            (their truth, by the vqa scorer).
        avoid: Flags (docs/caption.md) and patterns (docs/score.md) of captions to set aside, and ``ungrounded``. By
            default all flags that are faults, and the patterns of what is no description.
        min_words: Captions of fewer words are set aside. Words are what ``split()`` gives.
        max_words: Captions of more words are set aside.
        min_gain: How much higher the similarity of another caption must be than the original's to be preferred to it.
        sources: Caption sources to choose from; of equal captions the first source's is taken. By default the original,
            then all others.
        trust_shared_backbone: Whether captions count whose captioner shares a backbone with the scorer. Their
            similarities prove nothing, so by default they are set aside.
    """

    by: Annotated[tuple[Literal["similarity", "judgement", "vqa"], ...], Field(min_length=1)] = ("similarity",)
    avoid: tuple[str, ...] = _NO_DESCRIPTION
    min_words: Annotated[int, Field(ge=0)] = 0
    max_words: Annotated[int, Field(ge=1)] | None = None
    min_gain: Annotated[float, Field(ge=0, le=2)] = 0.0
    sources: Annotated[tuple[str, ...], Field(min_length=1)] | None = None
    trust_shared_backbone: bool = False

    @field_validator("by", "avoid", "sources")
    @classmethod
    def _each_once(cls, names: tuple[str, ...] | None) -> tuple[str, ...] | None:
        repeated = sorted({name for name in names or () if (names or ()).count(name) > 1})
        if repeated:
            raise PydanticCustomError("repeated", "'{name}' is listed twice; remove one", {"name": repeated[0]})
        return names

    @field_validator("avoid")
    @classmethod
    def _known(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        unknown = sorted(set(names) - set(AVOIDABLE))
        if unknown:
            raise PydanticCustomError(
                "flag",
                "there is no flag '{name}'; there are: {allowed}",
                {"name": unknown[0], "allowed": ", ".join(AVOIDABLE)},
            )
        return names

    @model_validator(mode="after")
    def _some_length(self) -> Self:
        if self.max_words is not None and self.max_words < self.min_words:
            raise PydanticCustomError(
                "words",
                "max_words ({most}) is less than min_words ({least})",
                {"most": self.max_words, "least": self.min_words},
            )
        return self

    def chosen_from(self, sources: Sequence[str]) -> list[str]:
        """The caption sources to choose from, of those that there are, in the order in which equals are taken."""
        return [name for name in self.sources or sources if name in sources]
