"""The client against ``transformers serve``, a real server of a real (if tiny) vision-language model."""

from __future__ import annotations

import base64
import json
import signal
import subprocess
import sys
import time
import urllib.request
from typing import TYPE_CHECKING

import pytest
import yaml

from dqe_assets.caption.prepare import prepare_image
from dqe_assets.caption.prompts import prompt_of
from dqe_assets.caption.tables import SYNTHETIC_CAPTIONS
from dqe_assets.ingest.tables import RAW_SAMPLES
from dqe_assets.orchestration import runner
from dqe_assets.orchestration.instance import instance
from dqe_assets.orchestration.settings import load_settings
from dqe_resources.captioners.budget import Cap, Tokens
from dqe_resources.captioners.judge import Judge
from dqe_resources.captioners.openai import OpenAICaptioner
from dqe_resources.captioners.protocol import CaptionerError, Sample
from tests.conftest import environment
from tests.image_files import blocks

if TYPE_CHECKING:
    from pathlib import Path

    from tests.servers.transformers_server import TransformersServer

IMAGES = 120
TOKENS = 8
PROMPT = "What is it?"


def settings_of(server: TransformersServer) -> dict:
    return {"name": "tiny", "model": server.model, "url": server.url, "max_tokens": TOKENS, "concurrency": 8}


def asked_plainly(server: TransformersServer, image: bytes, prompt: str) -> str:
    """What the server says when it is asked by a plain request and has nothing else to do."""
    url = f"data:image/jpeg;base64,{base64.b64encode(image).decode()}"
    content = [{"type": "image_url", "image_url": {"url": url}}, {"type": "text", "text": prompt}]
    body = {
        "model": server.model,
        "messages": [{"role": "user", "content": content}],
        "max_tokens": TOKENS,
        "temperature": 0,
    }
    request = urllib.request.Request(
        f"{server.url}/chat/completions", json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=60) as answer:
        return json.load(answer)["choices"][0]["message"]["content"]


def test_each_image_gets_its_own_caption_whatever_else_is_under_way(vlm_server):
    captioner = OpenAICaptioner.model_validate(settings_of(vlm_server))
    samples = [Sample(image=blocks(number), prompt=PROMPT) for number in range(40)]
    found = dict(captioner.caption(iter(samples)))
    alone = [asked_plainly(vlm_server, sample.image, PROMPT) for sample in samples[:12]]
    assert len(set(alone)) > 8, "the model must tell images apart for this to show anything"
    assert [found[number].text for number in range(12)] == alone
    assert sorted(found) == list(range(40))
    for caption in found.values():
        assert caption.finish_reason in {"stop", "length"}
        assert caption.completion_tokens <= TOKENS
        assert caption.prompt_tokens > 16
        assert caption.seconds > 0


def test_a_field_that_the_server_does_not_know_is_named_at_once(vlm_server):
    captioner = OpenAICaptioner.model_validate({**settings_of(vlm_server), "extra_body": {"no_such_field": 1}})
    with pytest.raises(CaptionerError, match=r"HTTP 422.*no_such_field"):
        list(captioner.caption(iter([Sample(image=blocks(0), prompt=PROMPT)])))


def test_nothing_is_lost_when_the_server_is_killed(vlm_server):
    captioner = OpenAICaptioner.model_validate({**settings_of(vlm_server), "give_up_after": 200})
    asked_before = vlm_server.requests()
    results = captioner.caption(Sample(image=blocks(number), prompt=PROMPT) for number in range(80))
    found = dict([next(results) for _ in range(20)])
    vlm_server.kill()
    vlm_server.start(wait=False)
    for index, caption in results:
        assert index not in found
        found[index] = caption
    assert sorted(found) == list(range(80))
    assert {caption.finish_reason for caption in found.values()} <= {"stop", "length"}
    assert all(caption.text for caption in found.values())
    # Answers that were on their way when it died are asked for again, and no others.
    assert vlm_server.requests() - asked_before <= 80 + captioner.concurrency


@pytest.fixture
def shard(data: Path, vlm_server) -> Path:
    """A data folder with one shard of images and a captioner that asks the server."""
    folder = data / "images"
    folder.mkdir()
    for number in range(IMAGES):
        (folder / f"{number:03}.jpg").write_bytes(blocks(number))
        (folder / f"{number:03}.txt").write_text(f"picture {number}")
    captioner = {"kind": "openai", **settings_of(vlm_server), "checkpoint_every": 10, "prompt": "short"}
    configuration = {"sources": [{"kind": "folder", "name": "blocks", "path": str(folder)}], "captioners": [captioner]}
    (data / "dqe.yaml").write_text(yaml.safe_dump(configuration))
    return data


def test_only_what_is_missing_is_asked_for_when_the_client_was_killed(shard, vlm_server):
    before = vlm_server.requests()
    client = subprocess.Popen(
        [sys.executable, "-m", "dqe_assets.cli", "materialize", "raw_samples", "synthetic_captions/tiny"],
        env=environment(shard),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    while client.poll() is None and vlm_server.requests() - before < 40:
        time.sleep(0.002)
    client.send_signal(signal.SIGKILL)
    assert client.wait() == -signal.SIGKILL, "it had finished before it was killed"

    settings = load_settings()
    store = settings.opened_store
    assert store.get("synthetic_captions/tiny", "blocks-00000") is None
    time.sleep(0.5)  # The server still answers what the client no longer hears.
    killed_at = vlm_server.requests() - before
    assert killed_at < IMAGES

    with instance() as current:
        runner.sync(settings, current)
        outcome = runner.materialize(settings, current, assets=["raw_samples", "synthetic_captions/tiny"])
    assert outcome.failures == []
    asked = vlm_server.requests() - before
    captioner = settings.captioners[0]
    assert IMAGES <= asked <= IMAGES + captioner.checkpoint_every + captioner.concurrency
    assert asked - killed_at < IMAGES, "the second run started over"

    table = store.read("synthetic_captions/tiny", "blocks-00000", SYNTHETIC_CAPTIONS)
    assert table.num_rows == IMAGES
    assert set(table["finish_reason"].to_pylist()) <= {"stop", "length"}
    names = store.read("raw_samples", "blocks-00000", RAW_SAMPLES, ["image_name"])["image_name"].to_pylist()
    texts = dict(zip(names, table["text"].to_pylist(), strict=True))
    prompt = prompt_of(captioner)
    for name in names[::15]:
        image = prepare_image((shard / "images" / name).read_bytes(), captioner.image_longest_side)
        assert texts[name] == asked_plainly(vlm_server, image, prompt.render("")), name


def test_a_judge_asks_over_the_same_wire(vlm_server):
    settings = {"url": vlm_server.url, "model": vlm_server.model, "max_tokens": TOKENS, "retries": 1}
    sample = Sample({"labels": ("A",)}, blocks(0), '<caption label="A">blocks</caption>')
    ((_, answer),) = Judge.model_validate(settings).judge(iter([sample]), Cap(), Tokens())
    # This server takes the schema and does not heed it, and the answers of its model are noise.
    assert (answer.finish_reason, answer.attempts) == ("unparsable", 2)
    assert answer.text
    assert 0 < answer.completion_tokens <= 2 * TOKENS
    assert answer.prompt_tokens > 2 * 16
