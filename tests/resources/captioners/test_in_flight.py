from __future__ import annotations

import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dqe_resources.captioners.in_flight import StalledError, in_flight


class Machine:
    """Doubles numbers in threads, each in the time that it is told, and counts what goes on at once."""

    def __init__(self, seconds: list[float]) -> None:
        self.seconds = seconds
        self.at_once = self.most_at_once = 0
        self.lock = threading.Lock()
        self.pool = ThreadPoolExecutor(64)

    def start(self, number: int) -> Future[int]:
        with self.lock:
            self.at_once += 1
            self.most_at_once = max(self.most_at_once, self.at_once)
        return self.pool.submit(self.run, number)

    def run(self, number: int) -> int:
        time.sleep(self.seconds[number])
        with self.lock:
            self.at_once -= 1
        return 2 * number


@settings(max_examples=25, deadline=None)
@given(seconds=st.lists(st.sampled_from([0.0, 0.0005, 0.002]), max_size=40), limit=st.integers(1, 12))
def test_each_item_ends_once_and_no_more_than_the_limit_are_under_way(seconds, limit):
    machine = Machine(seconds)
    taken = 0

    def items():
        nonlocal taken
        for number in range(len(seconds)):
            taken += 1
            yield number

    results = {}
    for item, future in in_flight(machine.start, items(), limit=limit, patience=5):
        assert taken - len(results) <= limit
        assert item not in results
        results[item] = future.result()
    assert results == {number: 2 * number for number in range(len(seconds))}
    assert machine.most_at_once <= limit


def test_what_ends_first_comes_first():
    machine = Machine([0.2, 0.0, 0.1])
    assert [item for item, _ in in_flight(machine.start, range(3), limit=3, patience=5)] == [1, 2, 0]


def test_what_has_ended_is_handed_on_before_more_is_taken():
    def items():
        yield 0
        time.sleep(0.05)
        yield 1
        pytest.fail("the first one had ended by then")

    results = in_flight(Machine([0.0, 0.0]).start, items(), limit=10, patience=5)
    assert next(results)[0] == 0
    results.close()


def test_a_standstill_ends_in_an_error_and_not_in_a_hang():
    futures: list[Future[int]] = []

    def start(_: int) -> Future[int]:
        futures.append(Future())
        return futures[-1]

    with pytest.raises(StalledError):
        list(in_flight(start, range(5), limit=2, patience=0.05))
    assert len(futures) == 2
    assert all(future.cancelled() for future in futures)


def test_closing_cancels_what_is_under_way():
    futures = [Future(), Future(), Future()]
    futures[1].set_result(1)
    results = in_flight(futures.__getitem__, range(3), limit=3, patience=5)
    assert next(results)[0] == 1
    results.close()
    assert futures[0].cancelled()
    assert len([future for future in futures if future.cancelled()]) >= 1
