"""The settings of judging: the judge, how many samples, and the limits on tokens and cost."""

from __future__ import annotations

from typing import Annotated, Any, Self

from pydantic import Field, model_validator
from pydantic_core import PydanticCustomError

from dqe_resources.captioners.budget import Cap
from dqe_resources.captioners.judge import Judge
from dqe_resources.configurable import Strict

Price = Annotated[float, Field(ge=0)]


class Judging(Strict):
    """A vision-language model judges the captions of some samples of each shard.

    Attributes:
        judge: The model, and its server.
        per_shard: Samples of each shard that are judged.
        strata: Strata of similarity (quantiles) that the same number of samples is drawn from.
        seed: Seed of the draw, and of the order in which captions are shown.
        max_tokens_total: Tokens that judging a shard may take, prompts and answers together; null for no cap.
        max_cost: What judging a shard may cost, in the currency of the prices; null for no cap.
        price_per_million_prompt_tokens: What a million tokens of prompts and images cost.
        price_per_million_completion_tokens: What a million tokens of answers cost.
        min_parsed: Share of the samples asked about that must get a readable judgement. Below it, the asset's check
            fails.
    """

    judge: Judge
    per_shard: Annotated[int, Field(ge=1)] = 20
    strata: Annotated[int, Field(ge=1, le=100)] = 4
    seed: int = 0
    max_tokens_total: Annotated[int, Field(ge=1)] | None = 200_000
    max_cost: Annotated[float, Field(gt=0)] | None = None
    price_per_million_prompt_tokens: Price | None = None
    price_per_million_completion_tokens: Price | None = None
    min_parsed: Annotated[float, Field(ge=0, le=1)] = 0.9

    @property
    def cap(self) -> Cap:
        """What judging a shard may take."""
        return Cap(
            self.max_tokens_total,
            self.max_cost,
            self.price_per_million_prompt_tokens,
            self.price_per_million_completion_tokens,
        )

    @property
    def draw(self) -> dict[str, Any]:
        """What decides which samples are judged, and in which order their captions are shown."""
        return self.model_dump(include={"per_shard", "strata", "seed"})

    @model_validator(mode="after")
    def _one_sample_can_be_judged(self) -> Self:
        priced = [price is not None for price in (self.cap.prompt_price, self.cap.completion_price)]
        if any(priced) != all(priced) or (self.max_cost is not None and not all(priced)):
            raise PydanticCustomError(
                "prices",
                "needs both price_per_million_prompt_tokens and price_per_million_completion_tokens: max_cost, or "
                "one price alone, cannot limit the cost",
            )
        worst = self.judge.worst
        if not self.cap.allows(worst):
            cost = self.cap.cost_of(worst)
            raise PydanticCustomError(
                "cap",
                "the cap is too low for a single sample, which may take max_prompt_tokens + max_tokens = {worst} "
                "tokens{cost}: raise max_tokens_total or max_cost, or lower judge.max_prompt_tokens or "
                "judge.max_tokens",
                {"worst": f"{worst.total:,}", "cost": "" if cost is None else f" and cost {cost:.4g}"},
            )
        return self
