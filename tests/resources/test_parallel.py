from __future__ import annotations

import threading
import time

import pytest

from dqe_resources.parallel import ordered_map


def test_results_come_in_order_and_no_more_are_begun_than_asked_for() -> None:
    begun: list[int] = []

    def work(item: int) -> int:
        begun.append(item)
        time.sleep(0.001 * (item % 3))
        return item * item

    results = ordered_map(work, range(50), ahead=5)
    first = [next(results) for _ in range(10)]
    assert first == [item * item for item in range(10)]
    assert len(begun) <= 10 + 5
    assert list(results) == [item * item for item in range(10, 50)]


def test_an_error_comes_out_where_its_item_stands() -> None:
    def work(item: int) -> int:
        if item == 3:
            msg = "three"
            raise ValueError(msg)
        return item

    results = ordered_map(work, range(10))
    assert [next(results) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(ValueError, match="three"):
        next(results)


def test_maps_within_maps_do_not_wait_for_each_other() -> None:
    done = []

    def outer(item: int) -> int:
        return sum(ordered_map(lambda inner: inner * item, range(4)))

    thread = threading.Thread(target=lambda: done.extend(ordered_map(outer, range(20))))
    thread.start()
    thread.join(timeout=20)
    assert done == [6 * item for item in range(20)]
