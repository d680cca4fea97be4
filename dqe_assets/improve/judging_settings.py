"""The settings of judging: the judge, how many samples, and the limits on tokens and cost."""

from __future__ import annotations

from typing import Annotated, Any, Self

from pydantic import Field, model_validator

from dqe_resources.captioners.judge import Judge
from dqe_resources.captioners.limits import Limits


class Judging(Limits):
    """A vision-language model judges the captions of some samples of each shard.

    Attributes:
        judge: The model, and its server.
        per_shard: Samples of each shard that are judged.
        strata: Strata of similarity (quantiles) that the same number of samples is drawn from.
        seed: Seed of the draw, and of the order in which captions are shown.
        min_parsed: Share of the samples asked about that must get a readable judgement. Below it, the asset's check
            fails.
    """

    judge: Judge
    per_shard: Annotated[int, Field(ge=1)] = 20
    strata: Annotated[int, Field(ge=1, le=100)] = 4
    seed: int = 0
    max_tokens_total: Annotated[int, Field(ge=1)] | None = 200_000
    min_parsed: Annotated[float, Field(ge=0, le=1)] = 0.9

    @property
    def draw(self) -> dict[str, Any]:
        """What decides which samples are judged, and in which order their captions are shown."""
        return self.model_dump(include={"per_shard", "strata", "seed"})

    @model_validator(mode="after")
    def _one_sample_can_be_judged(self) -> Self:
        self.check_room_for(self.judge.worst, "judge.")
        return self
