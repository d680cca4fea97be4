"""lmdeploy's own proxy before two servers, one of which goes away: nothing is lost."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import urllib.request

import pytest

from dqe_resources.captioners.openai import OpenAICaptioner
from dqe_resources.captioners.protocol import Sample
from tests.caption_server import CaptionServer, caption_of, jpeg
from tests.servers.ports import free_port

IMAGES = 120
HOW = (
    "needs lmdeploy: pip install --no-deps --target FOLDER lmdeploy mmengine-lite pybase64 yapf addict termcolor "
    "shortuuid, and DQE_LMDEPLOY=FOLDER"
)


@pytest.fixture
def proxy(tmp_path):
    """The address of lmdeploy's proxy, which looks for its servers every two seconds."""
    folder = os.environ.get("DQE_LMDEPLOY")
    if folder is None:
        pytest.skip(HOW)
    port = free_port()
    environment = {
        **os.environ,
        "PYTHONPATH": folder,
        "LMDEPLOY_CONTROLLER_HEART_BEAT_EXPIRATION": "2",
    }
    command = [sys.executable, "-m", "lmdeploy", "serve", "proxy", "--server-name", "127.0.0.1"]
    command += ["--server-port", str(port), "--disable-cache-status"]
    with (tmp_path / "proxy.log").open("wb") as log:
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
    url = f"http://127.0.0.1:{port}"
    try:
        deadline = time.monotonic() + 240
        while not answers(url):
            is_starting = process.poll() is None and time.monotonic() < deadline
            assert is_starting, (tmp_path / "proxy.log").read_text()[-2000:]
            time.sleep(0.2)
        yield url
    finally:
        process.terminate()
        process.wait()


def answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(f"{url}/nodes/status", timeout=5):
            return True
    except OSError:
        return False


def add(proxy: str, server: CaptionServer) -> None:
    request = urllib.request.Request(
        f"{proxy}/nodes/add", json.dumps({"url": server.url}).encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=30) as answer:
        assert "Added successfully" in answer.read().decode()


def test_nothing_is_lost_behind_a_proxy_of_which_one_server_dies(proxy):
    settings = {"name": "vlm", "url": proxy, "model": "tiny", "concurrency": 8}
    captioner = OpenAICaptioner.model_validate(settings)
    with CaptionServer() as stays:
        with CaptionServer() as dies:
            add(proxy, stays)
            add(proxy, dies)
            results = captioner.caption(Sample(image=jpeg(number), prompt="What is it?") for number in range(IMAGES))
            found = dict([next(results) for _ in range(20)])
            assert dies.asked, "the proxy asked the other one alone"
        found |= dict(results)
    assert {place: one.text for place, one in found.items()} == {place: caption_of(place) for place in range(IMAGES)}
    assert {one.finish_reason for one in found.values()} == {"stop"}
