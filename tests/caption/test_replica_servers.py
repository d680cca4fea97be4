"""Two real servers of one model, one of which is slow or is killed: nothing is lost, and work is shared by speed."""

from __future__ import annotations

import os
import signal
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from dqe_resources.captioners.openai import OpenAICaptioner
from dqe_resources.captioners.protocol import Sample
from tests.caption.test_transformers_server import PROMPT, TOKENS
from tests.image_files import blocks
from tests.servers.transformers_server import TransformersServer

if TYPE_CHECKING:
    from collections.abc import Iterator

IMAGES = 120


@pytest.fixture(scope="module")
def second(started_vlm_server: TransformersServer, tmp_path_factory: pytest.TempPathFactory):
    server = TransformersServer(Path(started_vlm_server.model), tmp_path_factory.mktemp("second"))
    server.start()
    yield server
    server.kill()


def asked(*servers: TransformersServer) -> Iterator[tuple[int, object]]:
    captioner = OpenAICaptioner.model_validate(
        {
            "name": "tiny",
            "model": servers[0].model,
            "urls": [server.url for server in servers],
            "max_tokens": TOKENS,
            "concurrency": 4,
        }
    )
    return captioner.caption(Sample(image=blocks(number), prompt=PROMPT) for number in range(IMAGES))


def test_a_slow_server_gets_less(vlm_server, second):
    is_over = threading.Event()

    def slow_down() -> None:
        while not is_over.wait(0.05):
            os.kill(second.pid, signal.SIGSTOP)
            is_over.wait(0.5)
            os.kill(second.pid, signal.SIGCONT)

    before = [vlm_server.requests(), second.requests()]
    thread = threading.Thread(target=slow_down)
    thread.start()
    try:
        found = dict(asked(vlm_server, second))
    finally:
        is_over.set()
        thread.join()
    assert sorted(found) == list(range(IMAGES))
    assert all(one.text and one.error is None for one in found.values())
    fast, slow = vlm_server.requests() - before[0], second.requests() - before[1]
    assert fast + slow == IMAGES
    assert fast > 2 * slow > 0, (fast, slow)


def test_a_server_that_is_killed_loses_nothing(vlm_server, second):
    results = asked(vlm_server, second)
    found = dict([next(results) for _ in range(20)])
    second.kill()
    for index, caption in results:
        assert index not in found
        found[index] = caption
    assert sorted(found) == list(range(IMAGES))
    assert all(one.text and one.error is None for one in found.values())
