"""A real HTTP server with OpenAI's chat interface, whose captions say which image they are of."""

from __future__ import annotations

import asyncio
import base64
import io
import json
import threading
from typing import TYPE_CHECKING, Any

from aiohttp import web
from PIL import Image

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from typing import Self


def jpeg(number: int) -> bytes:
    """An image that is known by its number: as wide as that, and eight pixels high."""
    encoded = io.BytesIO()
    Image.new("RGB", (number + 1, 8), (number % 256, 90, 30)).save(encoded, "JPEG")
    return encoded.getvalue()


def caption_of(number: int) -> str:
    """What the server says of it."""
    return f"This image showcases a stripe of {number} pixels."


def _number_of(content: list[dict[str, Any]]) -> int:
    image = next(part for part in content if part["type"] == "image_url")
    data = base64.b64decode(image["image_url"]["url"].removeprefix("data:image/jpeg;base64,"))
    return Image.open(io.BytesIO(data)).width - 1


class CaptionServer:
    """Answers each request as ``answer`` says: a coroutine function from the image's number to a caption or a response.

    A request without an image is known by its text.

    Attributes:
        asked: the numbers of the images asked about, in the order of the requests.
        requests: the requests' bodies.
        under_way: requests that are being answered now.
        most: the most of them at once.
    """

    def __init__(self, answer: Callable[[Any], Awaitable[str | web.Response]] | None = None) -> None:
        self.answer = answer or self.at_once
        self.asked: list[int] = []
        self.requests: list[dict[str, Any]] = []
        self.under_way = self.most = 0
        self._started = threading.Event()
        self._loop = asyncio.new_event_loop()
        self._stop = asyncio.Event()
        self._thread = threading.Thread(target=self._loop.run_until_complete, args=[self._serve()], daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        assert self._started.wait(10)
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(10)

    async def at_once(self, number: int) -> str:
        """The caption of an image, without delay."""
        return caption_of(number)

    async def _serve(self) -> None:
        app = web.Application(client_max_size=1 << 26)
        app.router.add_get("/v1/models", self._models)
        app.router.add_get("/health", self._models)
        app.router.add_post("/v1/chat/completions", self._chat)
        runner = web.AppRunner(app, access_log=None, handler_cancellation=True, shutdown_timeout=0.1)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        self.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        self._started.set()
        await self._stop.wait()
        await runner.cleanup()

    async def _models(self, _: web.Request) -> web.Response:
        return web.json_response({"data": [{"id": "tiny"}]})

    async def _chat(self, request: web.Request) -> web.Response:
        body = json.loads(await request.read())
        content = body["messages"][0]["content"]
        number = content if isinstance(content, str) else _number_of(content)
        self.asked.append(number)
        self.requests.append(body)
        self.under_way += 1
        self.most = max(self.most, self.under_way)
        try:
            answer = await self.answer(number)
        finally:
            self.under_way -= 1
        if isinstance(answer, web.Response):
            return answer
        choice = {"index": 0, "message": {"role": "assistant", "content": answer}, "finish_reason": "stop"}
        usage = {
            "prompt_tokens": len(number) if isinstance(number, str) else 300 + number,
            "completion_tokens": len(answer.split()),
        }
        return web.json_response({"choices": [choice], "usage": usage})
