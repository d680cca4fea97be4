"""The client against servers that fail in every way: no run hangs, and nothing is lost."""

from __future__ import annotations

import threading
import time

import pytest

from dqe_resources.captioners.openai import OpenAICaptioner
from dqe_resources.captioners.protocol import CaptionerError, Sample
from tests.caption_server import caption_of, jpeg
from tests.servers.misbehaving import FAULTS, MisbehavingServer


def captioner(server: MisbehavingServer, **settings) -> OpenAICaptioner:
    return OpenAICaptioner.model_validate(
        {
            "name": "vlm",
            "model": "tiny",
            "url": server.url,
            "concurrency": 64,
            "connect_seconds": 2,
            "idle_seconds": 0.5,
            "total_seconds": 1,
            "start_seconds": 2,
            "give_up_after": 30,
            **settings,
        }
    )


def ask(server: MisbehavingServer, count: int, **settings):
    samples = (Sample(image=jpeg(number), prompt="Describe it.") for number in range(count))
    found = {}
    for index, caption in captioner(server, **settings).caption(samples):
        assert index not in found
        found[index] = caption
    return found


def test_whatever_goes_wrong_once_is_asked_for_again():
    with MisbehavingServer(lambda number, attempt: FAULTS[number] if attempt == 1 else None) as server:
        found = ask(server, len(FAULTS))
        assert sorted(found) == list(range(len(FAULTS)))
        for number, fault in enumerate(FAULTS):
            caption = found[number]
            assert (caption.text, caption.finish_reason) == (caption_of(number), "stop"), fault
            # aiohttp itself sends a request again that a kept connection was closed on.
            assert caption.attempts in ({1, 2} if fault in {"closed", "reset"} else {2}), fault
            assert server.asked[number] == 2, fault


def test_whatever_goes_wrong_for_ever_is_a_row_with_its_last_error():
    # Between each two that fail, one that does not: the server is well, and only these images are not.
    def behave(number: int, _: int) -> str | None:
        return FAULTS[number // 2] if number % 2 else None

    with MisbehavingServer(behave) as server:
        found = ask(server, 2 * len(FAULTS), retries=1)
        assert sorted(found) == list(range(2 * len(FAULTS)))
        for number, caption in found.items():
            if number % 2:
                fault = FAULTS[number // 2]
                assert caption.finish_reason == "error", fault
                assert caption.error, fault
                assert "\n" not in caption.error, fault
                assert len(caption.error) < 600, fault
                assert caption.attempts == 2, fault
            else:
                assert caption.text == caption_of(number)
        errors = {FAULTS[number // 2]: found[number].error for number in found if number % 2}
        assert "CUDA error" in errors["500"]
        assert "CUDA out of memory" in errors["an error in 200"]
        assert "finish_reason abort" in errors["finish_reason abort"]
        assert "empty" in errors["empty text"]
        assert "reset" in errors["reset half way"].lower()
        # What there was of a caption that failed is kept, and marked.
        assert found[2 * FAULTS.index("finish_reason error") + 1].text == "This image"


def test_a_server_that_is_slow_to_start_is_waited_for():
    server = MisbehavingServer()
    come = threading.Timer(0.7, server.come)
    come.start()
    try:
        assert len(ask(server, 5, start_seconds=20)) == 5
    finally:
        come.join()
        server.__exit__()


def test_a_server_that_dies_and_comes_back_costs_nothing():
    with MisbehavingServer() as server:
        samples = (Sample(image=jpeg(number), prompt="p") for number in range(200))
        results = captioner(server, concurrency=8).caption(samples)
        found = dict([next(results) for _ in range(50)])
        server.go()
        come = threading.Timer(1.0, server.come)
        come.start()
        for index, caption in results:
            assert index not in found
            found[index] = caption
        come.join()
        assert {index: caption.text for index, caption in found.items()} == {n: caption_of(n) for n in range(200)}
        # Only what was under way when it died was asked for twice.
        assert sum(server.asked.values()) <= 200 + 8 + 1


def test_a_server_that_stays_away_ends_the_run_with_what_is_finished():
    with MisbehavingServer() as server:
        samples = (Sample(image=jpeg(number), prompt="p") for number in range(200))
        results = captioner(server, concurrency=8, give_up_after=1).caption(samples)
        found = dict([next(results) for _ in range(50)])
        server.go()
        began = time.monotonic()
        with pytest.raises(CaptionerError, match=r"no usable answer for 1 s \(give_up_after\).*last error"):
            found.update(results)
        assert time.monotonic() - began < 15
        assert all(caption.text == caption_of(index) for index, caption in found.items())


@pytest.mark.parametrize("fault", ["silent", "500", "broken json", "reset"])
def test_a_server_that_only_fails_ends_the_run(fault):
    with MisbehavingServer(lambda *_: fault) as server:
        began = time.monotonic()
        with pytest.raises(CaptionerError, match=r"no usable answer for 0\.5 s \(give_up_after\)"):
            ask(server, 200, give_up_after=0.5, retries=100, idle_seconds=0.3)
        assert time.monotonic() - began < 15


def test_a_server_that_is_busy_is_left_alone_for_as_long_as_it_says():
    moments: list[float] = []
    busy = b"HTTP/1.1 429 Too Many Requests\r\nRetry-After: 1\r\nContent-Length: 4\r\nConnection: close\r\n\r\nbusy"

    def behave(_: int, attempt: int) -> bytes | None:
        moments.append(time.monotonic())
        return busy if len(moments) <= 4 else None

    with MisbehavingServer(behave) as server:
        found = ask(server, 40, concurrency=4)
        assert {index: caption.text for index, caption in found.items()} == {n: caption_of(n) for n in range(40)}
        assert moments[4] - moments[0] > 0.9
        assert server.most_at_once <= 4
