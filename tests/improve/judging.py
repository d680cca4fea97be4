"""What tests of judging share: judges of a known mind behind a real server, and captions to judge."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

from dqe_resources.captioners.judge import CRITERIA, Judge
from tests.caption_server import CaptionServer

if TYPE_CHECKING:
    from collections.abc import Callable

    from aiohttp import web

    Mind = Callable[[str, str], int]
    """The mark that a judge gives a caption, from its label and its text."""

_CAPTION = re.compile(r'<caption label="(\w+)">(.*?)</caption>')


def answer_of(captions: dict[str, str], mind: Mind) -> str:
    """A judge's answer about captions by their labels."""
    marks = {label: mind(label, text) for label, text in captions.items()}
    return json.dumps(
        {
            label: {name: {"reason": f"{name} of {label}", "score": mark} for name in CRITERIA}
            for label, mark in marks.items()
        }
    )


def shown(request: dict[str, Any]) -> dict[str, str]:
    """The captions in a request, by their labels, in the order in which they are shown."""
    return dict(_CAPTION.findall(request["messages"][0]["content"][1]["text"]))


class JudgeServer(CaptionServer):
    """A judge of a mind; ``behave`` may answer otherwise, from the image's number and how often it was asked about."""

    def __init__(
        self, mind: Mind = lambda *_: 4, behave: Callable[[int, int], str | web.Response | None] = lambda *_: None
    ) -> None:
        super().__init__(self._judge)
        self.mind = mind
        self.behave = behave

    async def _judge(self, number: int) -> str | web.Response:
        request = self.requests[-1]
        return self.behave(number, self.asked.count(number)) or answer_of(shown(request), self.mind)


def judge(server: CaptionServer, **settings: Any) -> Judge:
    return Judge.model_validate({"url": server.url, "model": "tiny-judge", **settings})
