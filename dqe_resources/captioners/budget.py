"""A cap on tokens and on cost that requests under way at once cannot overshoot."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Tokens:
    """Tokens that were read (prompt and image), and tokens that were written."""

    prompt: int = 0
    completion: int = 0

    @property
    def total(self) -> int:
        """Both together."""
        return self.prompt + self.completion

    def __add__(self, other: Tokens) -> Tokens:
        return Tokens(self.prompt + other.prompt, self.completion + other.completion)

    def __sub__(self, other: Tokens) -> Tokens:
        return Tokens(self.prompt - other.prompt, self.completion - other.completion)

    def at_least(self, other: Tokens) -> Tokens:
        """The larger of each."""
        return Tokens(max(self.prompt, other.prompt), max(self.completion, other.completion))


@dataclass(frozen=True, slots=True)
class Cap:
    """What may be spent, and at what prices.

    Attributes:
        tokens: tokens in all; None for no cap on tokens.
        cost: cost in all, in the currency of the prices; None for no cap on cost.
        prompt_price: of a million tokens of prompts; None if nobody said, and there is then no cap on cost.
        completion_price: of a million tokens of answers.
    """

    tokens: int | None = None
    cost: float | None = None
    prompt_price: float | None = None
    completion_price: float | None = None

    def cost_of(self, tokens: Tokens) -> float | None:
        """What tokens cost; None without prices."""
        if self.prompt_price is None or self.completion_price is None:
            return None
        return (tokens.prompt * self.prompt_price + tokens.completion * self.completion_price) / 1e6

    def allows(self, tokens: Tokens) -> bool:
        """Whether so many tokens may be spent in all."""
        cost = self.cost_of(tokens)
        return (self.tokens is None or tokens.total <= self.tokens) and (
            self.cost is None or cost is None or cost <= self.cost
        )


class Budget:
    """What is left under a cap, for requests of one event loop.

    Before a request is sent, the most that it can take is reserved; once it is answered, what it took is spent and the
    rest is free again. What is spent and reserved never exceeds the cap, as long as no request takes more than
    ``worst``; where one did, the largest seen is reserved from then on.
    """

    def __init__(self, cap: Cap, worst: Tokens, spent: Tokens = Tokens()) -> None:
        """Nothing is reserved yet.

        Args:
            cap: what may be spent.
            worst: the most that one request can take.
            spent: what was spent before.
        """
        self.spent = spent
        self.worst = worst
        self.is_exhausted = False
        self._cap = cap
        self._reserved = Tokens()
        self._settled = asyncio.Event()

    async def reserve(self) -> Tokens | None:
        """Reserve what one request can take, once there is room for it; None if there never will be."""
        while not self._cap.allows(self.spent + self._reserved + self.worst):
            if not self._reserved.total:
                self.is_exhausted = True
                return None
            self._settled.clear()
            await self._settled.wait()
        self._reserved += self.worst
        return self.worst

    def settle(self, reserved: Tokens, used: Tokens) -> None:
        """A request that had reserved so much has ended, and took so much."""
        self.spent += used
        self.worst = self.worst.at_least(used)
        self._reserved -= reserved
        self._settled.set()
