"""What may be spent on a shard: settings of a cap on tokens and on cost."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from pydantic import Field
from pydantic_core import PydanticCustomError

from dqe_resources.captioners.budget import Cap
from dqe_resources.configurable import Strict

if TYPE_CHECKING:
    from dqe_resources.captioners.budget import Tokens

Price = Annotated[float, Field(ge=0)]


class Limits(Strict):
    """How much a model that is paid by the token may take.

    Attributes:
        max_tokens_total: Tokens that a shard may take, prompts and answers together; null for no cap.
        max_cost: What a shard may cost, in the currency of the prices; null for no cap.
        price_per_million_prompt_tokens: What a million tokens of prompts and images cost.
        price_per_million_completion_tokens: What a million tokens of answers cost.
    """

    max_tokens_total: Annotated[int, Field(ge=1)] | None = None
    max_cost: Annotated[float, Field(gt=0)] | None = None
    price_per_million_prompt_tokens: Price | None = None
    price_per_million_completion_tokens: Price | None = None

    @property
    def cap(self) -> Cap:
        """What a shard may take."""
        return Cap(
            self.max_tokens_total,
            self.max_cost,
            self.price_per_million_prompt_tokens,
            self.price_per_million_completion_tokens,
        )

    def check_room_for(self, worst: Tokens, key: str = "") -> None:
        """Refuse a cap that no request keeps to, or that cannot be reckoned.

        Args:
            worst: the most that one request takes.
            key: what stands before the names of the model's settings.

        Raises:
            PydanticCustomError: says what to set.
        """
        priced = [price is not None for price in (self.cap.prompt_price, self.cap.completion_price)]
        if any(priced) != all(priced) or (self.max_cost is not None and not all(priced)):
            raise PydanticCustomError(
                "prices",
                "needs both price_per_million_prompt_tokens and price_per_million_completion_tokens: max_cost, or "
                "one price alone, cannot limit the cost",
            )
        if not self.cap.allows(worst):
            cost = self.cap.cost_of(worst)
            raise PydanticCustomError(
                "cap",
                "the cap is too low for a single sample, which may take max_prompt_tokens + max_tokens = {worst} "
                "tokens{cost}: raise max_tokens_total or max_cost, or lower {key}max_prompt_tokens or {key}max_tokens",
                {"worst": f"{worst.total:,}", "cost": "" if cost is None else f" and cost {cost:.4g}", "key": key},
            )
