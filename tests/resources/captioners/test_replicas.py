"""Several servers of one model, each a real HTTP server."""

from __future__ import annotations

import asyncio
import socket
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import pytest
from aiohttp import web
from pydantic import ValidationError

from dqe_resources.captioners.judge import Judge
from dqe_resources.captioners.openai import OpenAICaptioner
from dqe_resources.captioners.protocol import NoCaptionerError, Sample
from tests.caption_server import CaptionServer, caption_of, jpeg

if TYPE_CHECKING:
    from collections.abc import Iterator

    from dqe_resources.captioners.protocol import Caption


def captioner(*urls: str, **settings: Any) -> OpenAICaptioner:
    return OpenAICaptioner(name="vlm", urls=urls, model="tiny", **settings)


def asked(model: OpenAICaptioner, number: int) -> Iterator[tuple[int, Caption]]:
    return model.caption(Sample({}, jpeg(index), "Describe it.") for index in range(number))


def assert_all_are_there(captions: dict[int, Caption], number: int) -> None:
    assert {index: caption.text for index, caption in captions.items()} == {n: caption_of(n) for n in range(number)}


def nobody() -> str:
    """An address at which nothing listens."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{taken.getsockname()[1]}"


def slowly(seconds: float) -> Any:
    async def answer(number: int) -> str:
        await asyncio.sleep(seconds)
        return caption_of(number)

    return answer


def test_work_is_shared_by_speed() -> None:
    with CaptionServer(slowly(0.02)) as fast, CaptionServer(slowly(0.2)) as slow:
        captions = dict(asked(captioner(fast.url, slow.url, concurrency=4), 120))
    assert_all_are_there(captions, 120)
    assert len(fast.asked) + len(slow.asked) == 120
    assert len(fast.asked) > 2 * len(slow.asked) > 0
    assert max(fast.most, slow.most) == 4, "concurrency is for each"


def test_a_server_that_dies_and_one_that_never_was_lose_nothing() -> None:
    with CaptionServer(slowly(0.02)) as one, ExitStack() as stack:
        other = stack.enter_context(CaptionServer(slowly(0.05)))
        captions = {}
        for index, caption in asked(captioner(one.url, nobody(), other.url, concurrency=4), 150):
            captions[index] = caption
            if len(captions) == 30:
                stack.close()
    assert_all_are_there(captions, 150)
    assert other.asked
    assert {caption.finish_reason for caption in captions.values()} == {"stop"}


def test_a_server_that_comes_back_gets_work_again() -> None:
    state = {"is_away": True}

    async def answer(number: int) -> str | web.Response:
        await asyncio.sleep(0.01)
        return web.Response(status=502) if state["is_away"] else caption_of(number)

    with CaptionServer(slowly(0.05)) as one, CaptionServer(answer) as other:
        captions, before = {}, 0
        for index, caption in asked(captioner(one.url, other.url, concurrency=2), 150):
            captions[index] = caption
            if len(captions) == 20:
                before, state["is_away"] = len(other.asked), False
    assert_all_are_there(captions, 150)
    assert len(other.asked) > before + 20, "it is the faster one"


def test_a_server_that_no_longer_answers_holds_back_no_sample_for_good() -> None:
    async def never(_: int) -> str:
        await asyncio.sleep(60)
        return ""

    with CaptionServer() as one, CaptionServer(never) as other:
        captions = dict(asked(captioner(one.url, other.url, concurrency=4, idle_seconds=0.5), 60))
    assert_all_are_there(captions, 60)
    assert 0 < len(other.asked) < 60


@pytest.mark.parametrize(
    "answer",
    [
        {"text": "Failed to get response after a period of time", "error_code": 10402},
        {"error": {"code": 429, "message": "Provider returned error"}},
        {"error": {"code": 503, "message": "no instance is there"}},
    ],
)
def test_what_a_proxy_says_of_a_server_that_is_away_loses_nothing(answer: dict[str, Any]) -> None:
    refused = iter(range(12))

    async def through_proxy(number: int) -> str | web.Response:
        return caption_of(number) if next(refused, None) is None else web.json_response(answer)

    with CaptionServer(through_proxy) as proxy:
        captions = dict(asked(captioner(proxy.url, concurrency=8, retries=0), 20))
    assert_all_are_there(captions, 20)


def test_an_error_of_one_request_in_an_answer_is_that_rows() -> None:
    async def answer(number: int) -> str | web.Response:
        refusal = {"error": {"code": 400, "message": "image too small"}}
        return web.json_response(refusal) if number == 3 else caption_of(number)

    with CaptionServer(answer) as server:
        captions = dict(asked(captioner(server.url), 8))
    assert captions[3].finish_reason == "error"
    assert "image too small" in str(captions[3].error)
    assert captions[4].text == caption_of(4)


def test_one_that_refuses_and_none_that_answers_are_named() -> None:
    async def refuse(_: int) -> web.Response:
        return web.Response(status=404, text="no such model")

    with (
        CaptionServer() as one,
        CaptionServer(refuse) as other,
        pytest.raises(NoCaptionerError, match=f"^{other.url}: HTTP 404 .*no such model"),
    ):
        dict(asked(captioner(one.url, other.url, concurrency=1), 30))
    urls = (nobody(), nobody())
    with pytest.raises(NoCaptionerError) as error:
        dict(asked(captioner(*urls, start_seconds=0), 3))
    assert all(f"{url}: ClientConnectorError" in str(error.value) for url in urls)


@pytest.mark.parametrize(
    ("servers", "said"),
    [
        ({}, "expected url, or urls"),
        ({"url": "http://a", "urls": ["http://b"]}, "expected url, or urls"),
        ({"urls": ["http://a", "http://a/v1"]}, "an address stands twice"),
        ({"urls": ["a:80"]}, "expected http://HOST:PORT"),
    ],
)
def test_servers_that_cannot_be_are_refused(servers: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        OpenAICaptioner(name="vlm", model="tiny", **servers)
    with pytest.raises(ValidationError, match=said):
        Judge(model="tiny", **servers)


def test_where_the_servers_are_changes_no_caption() -> None:
    one, two = (OpenAICaptioner(name="vlm", model="tiny", **at) for at in ({"url": "http://a"}, {"urls": ["http://b"]}))
    assert one.signature() == two.signature()
