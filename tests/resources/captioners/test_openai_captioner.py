"""The captioner that asks a server, against a real HTTP server."""

from __future__ import annotations

import asyncio
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest
from aiohttp import web
from pydantic import ValidationError

from dqe_resources.captioners.chat_answer import NoAnswerError, parse_answer
from dqe_resources.captioners.openai import OpenAICaptioner
from dqe_resources.captioners.protocol import Caption, CaptionerError, Sample
from tests.caption_server import CaptionServer, caption_of, jpeg

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator


def captioner(server: CaptionServer, **settings: Any) -> OpenAICaptioner:
    return OpenAICaptioner(name="vlm", url=server.url, model="tiny", **settings)


def samples(numbers: Iterable[int]) -> Iterator[Sample]:
    return (Sample({}, jpeg(number), "Describe it.") for number in numbers)


def all_of(server: CaptionServer, number: int, **settings: Any) -> dict[int, Caption]:
    found = list(captioner(server, **settings).caption(samples(range(number))))
    assert len(found) == number, "one each"
    return dict(found)


def test_each_image_gets_its_own_caption_with_many_under_way() -> None:
    async def answer(number: int) -> str:
        await asyncio.sleep(0.02 + 0.03 * (number % 3))
        return caption_of(number)

    with CaptionServer(answer) as server:
        captions = all_of(server, 60, concurrency=12)
    assert server.most == 12
    assert {index: caption.text for index, caption in captions.items()} == {i: caption_of(i) for i in range(60)}
    assert {(caption.finish_reason, caption.attempts, caption.error) for caption in captions.values()} == {
        ("stop", 1, None)
    }
    assert captions[7].prompt_tokens == 307
    assert captions[7].completion_tokens == 8
    assert all(0.02 <= (caption.seconds or 0) < 5 for caption in captions.values())


def test_the_request_holds_what_the_settings_say_and_nothing_that_they_do_not() -> None:
    options = {
        "max_tokens": 77,
        "temperature": 0.5,
        "seed": 3,
        "repetition_ngram_size": 8,
        "extra_body": {"top_p": 0.9},
        "image_options": {"max_dynamic_patch": 4},
    }
    with CaptionServer() as server:
        all_of(server, 1, **options)
        all_of(server, 1)
    full, plain = server.requests
    content = [
        {"type": "image_url", "image_url": {"url": full["messages"][0]["content"][0]["image_url"]["url"]}},
        {"type": "text", "text": "Describe it."},
    ]
    assert content[0]["image_url"]["url"].startswith("data:image/jpeg;base64,")
    assert plain == {
        "model": "tiny",
        "messages": [{"role": "user", "content": content}],
        "max_tokens": 512,
        "temperature": 0.0,
        "stream": False,
    }
    content[0]["image_url"]["max_dynamic_patch"] = 4
    assert full == {
        **plain,
        "messages": [{"role": "user", "content": content}],
        "max_tokens": 77,
        "temperature": 0.5,
        "seed": 3,
        "repetition_ngram_size": 8,
        "top_p": 0.9,
    }


def test_a_slow_answer_holds_back_no_other() -> None:
    release = threading.Event()

    async def answer(number: int) -> str:
        if number == 0:
            await asyncio.to_thread(release.wait, 10)
        return caption_of(number)

    with CaptionServer(answer) as server:
        captions = captioner(server, concurrency=4).caption(samples(range(40)))
        first = [next(captions)[0] for _ in range(39)]
        release.set()
        assert [index for index, _ in captions] == [0]
    assert sorted(first) == list(range(1, 40))


def test_no_more_samples_are_taken_than_are_under_way() -> None:
    release, taken = threading.Event(), []

    async def answer(number: int) -> str:
        await asyncio.to_thread(release.wait, 10)
        return caption_of(number)

    with CaptionServer(answer) as server:
        lazily = (taken.append(number) or sample for number, sample in enumerate(samples(range(50))))
        found: list[Any] = []
        captions = captioner(server, concurrency=8).caption(lazily)
        thread = threading.Thread(target=lambda: found.extend(captions))
        thread.start()
        wait_for(lambda: server.under_way == 8 and len(taken) == 9)
        time.sleep(0.1)
        assert len(taken) == 9, "eight under way, and the next in hand"
        release.set()
        thread.join(10)
        assert len(found) == 50


def test_the_number_under_way_adapts_to_a_server_that_takes_fewer() -> None:
    refused = 0

    async def answer(number: int) -> str | web.Response:
        nonlocal refused
        if server.under_way > 6:
            refused += 1
            return web.Response(status=429, headers={"Retry-After": "0"}, text="too many")
        await asyncio.sleep(0.01)
        return caption_of(number)

    with CaptionServer(answer) as server:
        captions = all_of(server, 300, concurrency=48)
    assert all(caption.text == caption_of(index) for index, caption in captions.items())
    assert sum(caption.attempts or 0 for caption in captions.values()) == len(server.asked)
    assert refused < 300, "less than one for each caption"


def test_a_failure_in_passing_is_asked_again_and_others_are_the_rows() -> None:
    asked: dict[int, int] = {}

    async def answer(number: int) -> str | web.Response:
        asked[number] = asked.get(number, 0) + 1
        if number == 1:
            return web.Response(status=400, text="image is too small")
        if number == 2 and asked[2] == 1:
            return web.Response(status=500, headers={"Retry-After": "0"})
        if number == 3:
            return " "
        return caption_of(number)

    with CaptionServer(answer) as server:
        captions = all_of(server, 5, retries=1)
    assert [captions[index].finish_reason for index in range(5)] == ["stop", "error", "stop", "error", "stop"]
    assert captions[1].error == "HTTP 400 Bad Request image is too small"
    assert captions[3].error == "the text is empty"
    assert [captions[index].attempts for index in range(5)] == [1, 1, 2, 2, 1]


def test_what_an_endless_refusal_begins_with_is_enough() -> None:
    async def answer(number: int) -> web.StreamResponse:
        return web.Response(status=400, body=b"no " * 1_000_000)

    with CaptionServer(answer) as server:
        captions = all_of(server, 3)
    assert all(1_000 > len(caption.error or "") > 100 for caption in captions.values())


@pytest.mark.parametrize("status", [401, 404, 422])
def test_what_is_wrong_for_all_ends_it_at_once(status: int) -> None:
    async def answer(number: int) -> web.Response:
        return web.Response(status=status, text="no model 'tiny'")

    with (
        CaptionServer(answer) as server,
        pytest.raises(CaptionerError, match=rf"{server.url}: HTTP {status} .* no model 'tiny'"),
    ):
        all_of(server, 100, concurrency=2)
    assert len(server.asked) <= 4


def test_a_server_that_refuses_every_image_is_not_asked_about_all() -> None:
    async def answer(number: int) -> web.Response:
        return web.Response(status=400, text="the model takes no images")

    with (
        CaptionServer(answer) as server,
        pytest.raises(CaptionerError, match=r"none of the first 20 requests got a caption: .*no images"),
    ):
        all_of(server, 500, concurrency=4)
    assert len(server.asked) < 40


def test_a_server_that_is_not_there_is_waited_for_and_then_named() -> None:
    alone = OpenAICaptioner(name="vlm", url="http://127.0.0.1:9/v1/", model="tiny", start_seconds=0.2)
    assert alone.url == "http://127.0.0.1:9"
    with pytest.raises(
        CaptionerError, match=r"127\.0\.0\.1:9: no server answered within 0\.2 s .*Connect.*captioner vlm"
    ):
        list(alone.caption(samples(range(3))))


def test_what_goes_wrong_with_the_samples_is_said() -> None:
    def broken() -> Iterator[Sample]:
        yield from samples(range(3))
        msg = "the shard is torn"
        raise ValueError(msg)

    with CaptionServer() as server, pytest.raises(ValueError, match="the shard is torn"):
        list(captioner(server).caption(broken()))


def test_closing_it_ends_what_is_under_way() -> None:
    async def answer(number: int) -> str:
        await asyncio.sleep(0 if number == 0 else 60)
        return caption_of(number)

    with CaptionServer(answer) as server:
        captions = captioner(server, concurrency=4).caption(samples(range(100)))
        assert next(captions)[0] == 0
        threads = threading.active_count()
        captions.close()
        wait_for(lambda: server.under_way == 0)
    assert threading.active_count() < threads


def test_the_key_comes_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    locked = OpenAICaptioner(name="vlm", url="http://localhost:1", model="tiny", api_key_env="MY_KEY")
    monkeypatch.delenv("MY_KEY", raising=False)
    with pytest.raises(CaptionerError, match="captioner vlm: MY_KEY is not set"):
        list(locked.caption(samples(range(1))))
    monkeypatch.setenv("MY_KEY", "secret")
    assert locked.headers()["Authorization"] == "Bearer secret"
    assert "secret" not in repr(locked)


def test_its_runs_have_a_pool_of_their_own() -> None:
    plain = OpenAICaptioner(name="vlm", url="http://localhost:1", model="tiny", price_per_gpu_hour=1.5, gpus=4)
    assert plain.pool == "captioner_vlm"
    assert plain.price_per_hour == 6
    assert plain.backbones == frozenset()


def test_settings_that_change_no_caption_are_not_in_the_signature() -> None:
    base = {"name": "vlm", "url": "http://localhost:1", "model": "tiny"}
    signature = OpenAICaptioner(**base).signature()
    same = {"url": "https://elsewhere/v1", "concurrency": 9, "idle_seconds": 5, "retries": 0, "price_per_gpu_hour": 2}
    assert OpenAICaptioner(**{**base, **same, "min_coverage": 0.1, "checkpoint_every": 7}).signature() == signature
    for change in ({"model": "other"}, {"max_tokens": 5}, {"seed": 1}, {"extra_body": {"a": 1}}, {"revision": "b"}):
        assert OpenAICaptioner(**{**base, **change}).signature() != signature


@pytest.mark.parametrize("wrong", [{"url": "localhost:8000"}, {"concurrency": 0}, {"temperature": -1}, {"name": "a/b"}])
def test_wrong_settings_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        OpenAICaptioner(**{"name": "vlm", "url": "http://localhost:1", "model": "tiny", **wrong})


def test_answers_are_read_as_servers_write_them() -> None:
    assert parse_answer(b'{"choices": [{"message": {"content": "A dog."}, "finish_reason": "length"}]}') == Caption(
        "A dog.", "length"
    )
    parts = b'{"choices": [{"message": {"content": [{"type": "text", "text": "A dog."}]}}], "usage": null}'
    assert parse_answer(parts) == Caption("A dog.")
    for broken in (
        b"<html>",
        b"[]",
        b'{"choices": []}',
        b'{"error": "x"}',
        b'{"choices": [{"message": {"content": null}}]}',
        b'{"choices": [{"message": {"content": "half of it"}, "finish_reason": "error"}]}',
        b'{"choices": [{"message": null}]}',
        b"[" * 100_000,
        b'{"choices": [{"message": {"content": "\xff"}}]}',
    ):
        with pytest.raises(NoAnswerError):
            parse_answer(broken)


def wait_for(condition: Any, seconds: float = 10) -> None:
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:
        time.sleep(0.005)
    assert condition()
