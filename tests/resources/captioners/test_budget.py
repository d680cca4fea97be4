"""A cap that requests under way at once cannot overshoot."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dqe_resources.captioners.budget import Budget, Cap, Tokens

WORST = Tokens(100, 20)


@given(
    st.lists(st.tuples(st.integers(0, 100), st.integers(0, 20), st.integers(0, 4)), max_size=40),
    st.integers(0, 2500),
    st.sampled_from([None, 0.5, 1.0, 2.0]),
)
def test_what_is_spent_and_reserved_never_exceeds_the_cap(
    requests: list[tuple[int, int, int]], most: int, cost: float | None
) -> None:
    cap = Cap(most, cost, 1000.0, 4000.0)
    budget = Budget(cap, WORST)
    sent: list[Tokens] = []

    async def one(prompt: int, completion: int, turns: int) -> None:
        reserved = await budget.reserve()
        if reserved is None:
            return
        sent.append(Tokens(prompt, completion))
        for _ in range(turns):
            await asyncio.sleep(0)
        budget.settle(reserved, Tokens(prompt, completion))

    async def all_at_once() -> None:
        await asyncio.wait_for(asyncio.gather(*(one(*request) for request in requests)), 10)

    asyncio.run(all_at_once())
    assert budget.spent == sum(sent, Tokens())
    assert budget.spent.total <= most
    assert cost is None or (cap.cost_of(budget.spent) or 0) <= cost
    if len(sent) < len(requests):
        assert budget.is_exhausted
        assert not cap.allows(budget.spent + WORST), "no room for another was left unused"


def test_a_request_that_took_more_than_was_thought_is_reckoned_with_from_then_on() -> None:
    async def ask() -> tuple[Tokens, bool]:
        budget = Budget(Cap(1000), WORST)
        reserved = await budget.reserve()
        assert reserved is not None
        budget.settle(reserved, Tokens(600, 10))
        return budget.worst, await budget.reserve() is None

    assert asyncio.run(ask()) == (Tokens(600, 20), True)


def test_costs_are_of_a_million_tokens() -> None:
    assert Cap(prompt_price=2.0, completion_price=8.0).cost_of(Tokens(500_000, 250_000)) == pytest.approx(3.0)
    assert Cap().cost_of(Tokens(1, 1)) is None
    assert Cap().allows(Tokens(10**12, 10**12))
