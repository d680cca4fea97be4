"""How many requests are under way."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dqe_resources.captioners.limit import AdaptiveLimit

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable


class Clock:
    """A time that is set."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


def run(check: Callable[[], Awaitable[None]]) -> None:
    asyncio.run(asyncio.wait_for(check(), 10))


def test_all_places_are_there_at_first_and_no_more() -> None:
    async def check() -> None:
        limit, most, under_way = AdaptiveLimit(5, slow=10), 0, 0

        async def request() -> None:
            nonlocal most, under_way
            async with limit.place() as taken:
                under_way += 1
                most = max(most, under_way)
                await asyncio.sleep(0)
                under_way -= 1
            limit.answered(taken)

        await asyncio.gather(*(request() for _ in range(40)))
        assert most == 5

    run(check)


def test_an_overloaded_server_gets_fewer_once_a_round_and_then_more_again() -> None:
    async def check() -> None:
        clock = Clock()
        limit = AdaptiveLimit(100, slow=10, clock=clock)
        places = [limit.place() for _ in range(100)]
        taken = [await place.__aenter__() for place in places]
        clock.now = 1
        for time in taken[:50]:
            limit.overloaded(time)
        assert limit.places == 70, "what was sent before counts once"
        for place in places:
            await place.__aexit__(None, None, None)
        async with limit.place() as again:
            clock.now = 2
            limit.overloaded(again)
            assert limit.places == 1, "of the one under way"
        rounds = 0
        while limit.places < 100:
            rounds += 1
            for _ in range(limit.places):
                async with limit.place() as again:
                    limit.answered(again)
        assert 20 <= rounds <= 80

    run(check)


@pytest.mark.parametrize(
    ("seconds", "least", "most"),
    [
        (lambda _: 9.0, 64, 64),  # fast enough
        (lambda under_way: under_way * 0.5, 10, 25),  # a queue: as long as it is full
        (lambda _: 30.0, 44, 44),  # slow, however few
    ],
    ids=["fast", "queue", "slow"],
)
def test_slow_answers_count_as_overload_while_fewer_requests_help(
    seconds: Callable[[int], float], least: int, most: int
) -> None:
    async def check() -> None:
        clock = Clock()
        limit = AdaptiveLimit(64, slow=10, clock=clock)
        for _ in range(60):
            places = [limit.place() for _ in range(limit.places)]
            taken = [await place.__aenter__() for place in places]
            clock.now += seconds(len(places))
            for place, time in zip(places, taken, strict=True):
                limit.answered(time)
                await place.__aexit__(None, None, None)
        assert least <= limit.places <= most

    run(check)


def test_a_server_that_asks_to_be_left_alone_is() -> None:
    async def check() -> None:
        limit = AdaptiveLimit(4, slow=10)
        async with limit.place() as taken:
            limit.overloaded(taken, closed_for=0.2)
        async with limit.place() as again:
            assert again - taken >= 0.2

    run(check)


@settings(deadline=None, max_examples=30)
@given(st.integers(1, 8), st.lists(st.sampled_from(["answered", "overloaded", "neither"]), min_size=1, max_size=60))
def test_no_place_is_lost(most: int, outcomes: list[str]) -> None:
    async def check() -> None:
        limit, ended = AdaptiveLimit(most, slow=10), 0

        async def request(outcome: str) -> None:
            nonlocal ended
            async with limit.place() as taken:
                await asyncio.sleep(0)
                if outcome != "neither":
                    getattr(limit, outcome)(taken)
                assert 1 <= limit.places <= most
            ended += 1

        await asyncio.gather(*(request(outcome) for outcome in outcomes))
        assert ended == len(outcomes)

    run(check)
