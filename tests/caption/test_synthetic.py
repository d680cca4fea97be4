"""Captions of a shard: complete, never mixed, and kept when something ends it."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import pyarrow as pa
import pytest
import yaml
from aiohttp import web

from dqe_assets.caption.prompts import load_prompt
from dqe_assets.caption.synthetic import synthetic_captions
from dqe_assets.caption.tables import SYNTHETIC_CAPTIONS
from dqe_assets.orchestration import runner
from dqe_assets.orchestration.instance import instance
from dqe_assets.orchestration.settings import load_settings
from dqe_resources.captioners.openai import OpenAICaptioner
from dqe_resources.captioners.protocol import Caption, Captioner, CaptionerError, Sample
from tests.caption_server import CaptionServer, caption_of, jpeg
from tests.conftest import killed_run
from tests.stages import handed, stage_named

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from dqe_assets.core.work import CheckResult

SHARD, ASSET, PHOTOS = "stripes-00000", "synthetic_captions/vlm", 60


@pytest.fixture
def stripes(data: Path) -> Path:
    """A data folder with images that are known by their number, the last of them broken, already read."""
    folder = data / "stripes"
    folder.mkdir()
    for number in range(PHOTOS):
        (folder / f"{number:02d}.jpg").write_bytes(jpeg(number))
        (folder / f"{number:02d}.txt").write_text(f"stripe {number}")
    (folder / "zz.jpg").write_bytes(b"<html>gone</html>")
    configure(data, {"kind": "labels", "name": "vlm"})
    make("raw_samples")
    return data


def configure(data: Path, captioner: dict[str, Any]) -> None:
    source = {"kind": "folder", "name": "stripes", "path": "stripes", "min_success_rate": 0}
    (data / "dqe.yaml").write_text(yaml.safe_dump({"sources": [source], "captioners": [captioner]}))


def serve(data: Path, server: CaptionServer, **settings: Any) -> None:
    configure(data, {"kind": "openai", "name": "vlm", "url": server.url, "model": "tiny", **settings})


def make(asset: str = ASSET) -> dict[str, CheckResult]:
    settings = load_settings()
    stage = stage_named(settings, asset)
    work = stage.work(settings.opened_store, SHARD, [SHARD])
    return stage.make(work, handed(settings, stage))[2]


def rows() -> list[dict[str, Any]]:
    return load_settings().opened_store.read(ASSET, SHARD, SYNTHETIC_CAPTIONS).to_pylist()


def test_every_row_says_how_it_came_to_be(stripes: Path) -> None:
    with CaptionServer() as server:
        serve(stripes, server, revision="abc123", prompt="hint")
        results = make()
    assert all(result.passed for result in results.values()), results
    *captioned, broken = rows()
    hint = load_prompt("hint")
    for number, row in enumerate(captioned):
        assert row["text"] == caption_of(number)
        assert row["caption"] == f"A stripe of {number} pixels."
        assert (row["finish_reason"], row["flags"], row["error"], row["attempts"]) == ("stop", [], None, 1)
        assert (row["model"], row["revision"]) == ("tiny", "abc123")
        assert (row["prompt"], row["prompt_hash"]) == ("hint 1", hint.hash)
        assert (row["prompt_tokens"], row["completion_tokens"]) == (300 + number, 8)
        assert row["seconds"] > 0
        assert row["finished_at"] is not None
    prompts = {part["text"] for body in server.requests for part in body["messages"][0]["content"] if "text" in part}
    assert prompts == {hint.render(f"stripe {number}") for number in range(PHOTOS)}
    assert broken["finish_reason"] == "no_image"
    assert [broken[name] for name in ("text", "caption", "flags", "error", "seconds", "finished_at", "attempts")] == [
        None
    ] * 7


def test_what_is_finished_is_kept_when_the_server_fails_and_only_the_rest_is_asked_for(stripes: Path) -> None:
    async def until_25(number: int) -> str | web.Response:
        return caption_of(number) if len(server.asked) <= 25 else web.Response(status=401, text="key expired")

    with CaptionServer(until_25) as server:
        serve(stripes, server, concurrency=4)
        message = r"HTTP 401 Unauthorized key expired\. 25 of 60 captions are finished and kept: fix it and materialise"
        with pytest.raises(CaptionerError, match=message):
            make()
        first = server.asked[:25]
    with CaptionServer() as server:
        serve(stripes, server, concurrency=9, retries=7)
        make()
        assert sorted(server.asked) == sorted(set(range(PHOTOS)) - set(first))
    assert [row["text"] for row in rows()] == [*map(caption_of, range(PHOTOS)), None]
    assert not list((stripes / "store" / ASSET / ".unfinished").rglob("*.arrow"))


async def slowly(number: int) -> str:
    await asyncio.sleep(0.02)
    return caption_of(number)


def test_a_killed_client_asks_only_for_what_is_missing(stripes: Path) -> None:
    with CaptionServer(slowly) as server:
        serve(stripes, server, concurrency=2, checkpoint_every=10)
        killed_run(__name__, "make()", stripes, lambda: len(server.asked) >= 35)
        before = list(server.asked)
        assert 35 <= len(before) < PHOTOS
        server.asked.clear()
        make()
        again = set(server.asked) & set(before)
        assert set(server.asked) | set(before) == set(range(PHOTOS))
        assert len(again) <= 10 + 2, "ten that were not kept yet, two that were under way"
    assert [row["text"] for row in rows()] == [*map(caption_of, range(PHOTOS)), None]


@pytest.mark.parametrize("change", [{"prompt": "short"}, {"max_tokens": 9}, {"model": "other"}])
def test_captions_of_other_settings_are_never_mixed_in(stripes: Path, change: dict[str, Any]) -> None:
    async def until_25(number: int) -> str | web.Response:
        return caption_of(number) if len(server.asked) <= 25 else web.Response(status=403)

    with CaptionServer(until_25) as server:
        serve(stripes, server, concurrency=4)
        with pytest.raises(CaptionerError):
            make()
    with CaptionServer() as server:
        serve(stripes, server, **change)
        make()
        assert sorted(server.asked) == list(range(PHOTOS))
    assert len({(row["model"], row["prompt_hash"]) for row in rows()}) == 1


def test_a_shard_that_failed_its_check_is_asked_again_for_what_failed(stripes: Path) -> None:
    async def not_all(number: int) -> str | web.Response:
        return web.Response(status=400, text="no") if number % 10 == 3 else caption_of(number)

    with CaptionServer(not_all) as server:
        serve(stripes, server)
        assert not make()["coverage"].passed
        server.answer = server.at_once
        server.asked.clear()
        assert make()["coverage"].passed
        assert sorted(server.asked) == list(range(3, PHOTOS, 10))
    assert [row["text"] for row in rows()] == [*map(caption_of, range(PHOTOS)), None]


def test_a_run_of_dagster_ends_with_the_captioners_error(stripes: Path) -> None:
    configure(stripes, {"kind": "openai", "name": "vlm", "url": "http://127.0.0.1:9", "model": "m", "start_seconds": 0})
    settings = load_settings()
    with instance() as current:
        runner.sync(settings, current)
        outcome = runner.materialize(settings, current, assets=[ASSET])
    assert outcome.failures == []
    assert list(outcome.ended) == [ASSET]
    assert "127.0.0.1:9: no server answered within 0 s" in outcome.ended[ASSET]
    assert "0 of 60 captions are finished and kept" in outcome.ended[ASSET]


def test_nothing_more_is_asked_once_captions_cannot_be_kept(stripes: Path) -> None:
    def full(_: pa.Table) -> None:
        raise OSError(28, "No space left on device")

    images = [{"bytes": jpeg(number), "path": None} for number in range(PHOTOS)]
    batch = pa.RecordBatch.from_pydict({"caption": [None] * PHOTOS, "image": images})
    uids = pa.array([f"{index:032x}" for index in range(PHOTOS)])
    # The first caption loads what tells languages apart, and meanwhile others are asked for.
    with CaptionServer(slowly) as server:
        captioner = OpenAICaptioner(name="vlm", url=server.url, model="tiny", concurrency=1, checkpoint_every=4)
        with pytest.raises(OSError, match="No space left") as caught:
            synthetic_captions(
                uids, np.ones(PHOTOS, bool), iter([batch]), captioner, prompt=load_prompt("short"), keep=full
            )
        asked = len(server.asked)
        assert asked < PHOTOS
        time.sleep(0.1)
        assert len(server.asked) == asked
        assert caught.value.errno == 28


class Told(Captioner):
    """Says what it is told to."""

    kind: ClassVar[str] = "told"
    asset: ClassVar[str] = "raw_samples"
    columns: ClassVar[tuple[str, ...]] = ("uid",)
    captions: tuple[tuple[int, Caption], ...]

    @property
    def model_id(self) -> str:
        return "told"

    def caption(self, samples: Iterator[Sample]) -> Iterator[tuple[int, Caption]]:
        assert [sample.values["uid"] for sample in samples] == ["a", "c", "d"]
        yield from self.captions


def told(*captions: tuple[int, Caption]) -> pa.Table:
    uids = pa.array(["a", "b", "c", "d"])
    batches = pa.table({"uid": uids}).to_batches(max_chunksize=3)
    return synthetic_captions(
        uids, np.array([True, False, True, True]), iter(batches), Told(name="told", captions=captions)
    )


def test_order_is_restored_and_a_caption_without_a_word_is_none() -> None:
    table = told(
        (2, Caption("This image showcases a dog \ud800.")),
        (0, Caption(" ")),
        (1, Caption("half", "error", "broke off")),
    )
    assert table.schema == SYNTHETIC_CAPTIONS
    columns = ["uid", "text", "caption", "finish_reason", "error"]
    assert [tuple(row.values()) for row in table.select(columns).to_pylist()] == [
        ("a", " ", None, "error", "the text is empty"),
        ("b", None, None, "no_image", None),
        ("c", "half", None, "error", "broke off"),
        ("d", "This image showcases a dog ?.", "A dog ?.", "stop", None),
    ]
    assert table["flags"].to_pylist() == [["empty"], None, [], []]


@pytest.mark.parametrize("indices", [(0, 1), (0, 1, 1), (0, 1, 2, 2), ()])
def test_a_captioner_that_leaves_a_sample_out_or_doubles_one_is_caught(indices: tuple[int, ...]) -> None:
    with pytest.raises(RuntimeError, match=r"captioner told gave \d captions for 3 images"):
        told(*((index, Caption("A dog.")) for index in indices))


def test_images_are_read_as_they_are_needed_and_a_broken_one_is_a_row(stripes: Path) -> None:
    total, read = 800, 0
    uids = pa.array([f"{index:032x}" for index in range(total)])

    def batches() -> Iterator[pa.RecordBatch]:
        nonlocal read
        for first in range(0, total, 16):
            read += 1
            images = [
                {"bytes": jpeg(n) if n != 5 else b"\xff\xd8broken", "path": None} for n in range(first, first + 16)
            ]
            yield pa.RecordBatch.from_pydict({"caption": [None] * 16, "image": images})

    async def answer(number: int) -> str:
        if number == 0:
            assert read <= 10, "no more than what is made ready ahead"
        return caption_of(number)

    with CaptionServer(answer) as server:
        captioner = OpenAICaptioner(name="vlm", url=server.url, model="tiny", concurrency=8)
        prompt = load_prompt("default")
        table = synthetic_captions(uids, np.ones(total, bool), batches(), captioner, prompt=prompt)
    assert read == total // 16
    assert table["uid"].to_pylist() == uids.to_pylist()
    broken = table.slice(5, 1).to_pylist()[0]
    assert broken["finish_reason"] == "error"
    assert str(broken["error"]).startswith(("truncated", "damaged", "not_an_image"))
    assert table["text"].null_count == 1
