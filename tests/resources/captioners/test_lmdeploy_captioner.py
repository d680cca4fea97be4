"""The captioner that runs lmdeploy in this process: all of it but the engine; where lmdeploy is, its interface too."""

from __future__ import annotations

import asyncio
import io
import json
import re
import threading
from concurrent.futures import Future, ThreadPoolExecutor
from importlib.util import find_spec

import pytest
from PIL import Image
from pydantic import ValidationError

from dqe_resources.captioners import lmdeploy as module
from dqe_resources.captioners import lmdeploy_engine
from dqe_resources.captioners.lmdeploy import LmdeployCaptioner, generation_config, load
from dqe_resources.captioners.lmdeploy_engine import LmdeployEngine
from dqe_resources.captioners.lmdeploy_requests import FATAL, READY, RETRYABLE, Answer, Request, failed
from dqe_resources.captioners.protocol import CaptionerError, Sample

needs_lmdeploy = pytest.mark.skipif(find_spec("lmdeploy") is None, reason="lmdeploy is not installed: extra 'gpu'")


def captioner(**settings) -> LmdeployCaptioner:
    return LmdeployCaptioner.model_validate({"name": "vlm", "model": "some/model", **settings})


def sample(number: int) -> Sample:
    return Sample(image=picture(number), prompt=f"prompt {number}")


def picture(number: int, size: tuple[int, int] = (8, 6)) -> bytes:
    file = io.BytesIO()
    Image.new("L", size, number).save(file, "JPEG", quality=100)
    return file.getvalue()


class Engine:
    """Stands where lmdeploy's engine does: answers in threads of its own, as a script says for each request."""

    def __init__(self, answer=None, max_batch_size: int = 4) -> None:
        self.max_batch_size = max_batch_size
        self.answer = answer or self.echo
        self.asked: list[tuple[int, int]] = []
        self.pool = ThreadPoolExecutor(8)

    @staticmethod
    def echo(request) -> Answer:
        return Answer(f"{request.prompt} of grey {request.image.getpixel((0, 0))[0]}", "stop", 300, 20)

    def start(self, request) -> Future[Answer]:
        self.asked.append((request.index, request.attempt))
        return self.pool.submit(self.answer, request)

    def close(self) -> None:
        self.pool.shutdown()


def ask(engine, count: int, **settings):
    return dict(captioner(**settings).caption_with(engine, iter([sample(n) for n in range(count)])))


def test_every_sample_gets_its_own_caption():
    found = ask(Engine(), 50)
    assert sorted(found) == list(range(50))
    for number, caption in found.items():
        assert caption.text == f"prompt {number} of grey {number}"
        assert (caption.finish_reason, caption.error, caption.attempts) == ("stop", None, 1)
        assert (caption.prompt_tokens, caption.completion_tokens) == (300, 20)
        assert 0 <= caption.seconds < 60


def test_captions_come_as_they_are_finished():
    first = threading.Event()

    def answer(request):
        if request.index == 0:
            first.wait(10)
        return Engine.echo(request)

    order = []
    for index, _ in captioner().caption_with(Engine(answer), iter([sample(n) for n in range(10)])):
        order.append(index)
        if len(order) == 9:
            first.set()
    assert order[-1] == 0


def test_samples_are_taken_no_further_ahead_than_the_engine_needs():
    taken = 0

    def samples():
        nonlocal taken
        for number in range(300):
            taken += 1
            yield sample(number % 256)

    results = captioner().caption_with(Engine(max_batch_size=4), samples())
    next(results)
    # The batch, those made ready for the engine, and those whose image is being read.
    assert taken <= 4 + 2 * READY + 1
    results.close()


def test_concurrency_limits_what_is_under_way():
    running = most = 0
    lock = threading.Lock()

    def answer(request):
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        asyncio.run(asyncio.sleep(0.002))
        with lock:
            running -= 1
        return Engine.echo(request)

    assert len(ask(Engine(answer, max_batch_size=8), 40, concurrency=3)) == 40
    assert most <= 3


def test_a_cut_caption_says_so():
    found = ask(Engine(lambda request: Answer("Half a", "length", 300, 512)), 1)[0]
    assert (found.text, found.finish_reason, found.error) == ("Half a", "length", None)


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (Answer("", "error", code="preprocess_failed", error="Request preprocessing failed."), "preprocessing failed"),
        (Answer("", "error", code="context_length_exceeded", error="too long"), "too long"),
    ],
)
def test_what_the_engine_refuses_is_a_row_with_an_error(answer, error):
    engine = Engine(lambda request: answer if request.index == 1 else Engine.echo(request))
    found = ask(engine, 3)
    assert found[1].finish_reason == "error"
    assert error in found[1].error
    assert found[1].text is None
    assert [found[n].finish_reason for n in (0, 2)] == ["stop", "stop"]
    assert len(engine.asked) == 3


def test_an_internal_error_is_tried_again():
    def answer(request):
        if request.index == 2 and request.attempt < 3:
            return Answer("", "error", code="internal_error", error="out of memory")
        return Engine.echo(request)

    engine = Engine(answer)
    found = ask(engine, 5, retries=2)
    assert found[2].text == "prompt 2 of grey 2"
    assert found[2].attempts == 3
    assert sorted(engine.asked) == [(0, 1), (1, 1), (2, 1), (2, 2), (2, 3), (3, 1), (4, 1)]


def test_an_internal_error_that_stays_is_a_row_with_an_error():
    engine = Engine(lambda _: Answer("", "error", code="internal_error", error="out of memory"))
    found = ask(engine, 1, retries=1)[0]
    assert (found.text, found.finish_reason, found.error, found.attempts) == (None, "error", "out of memory", 2)


def test_an_image_that_cannot_be_read_does_not_reach_the_engine():
    engine = Engine()
    samples = [sample(0), Sample(image=b"\xff\xd8 no picture", prompt="p"), sample(2)]
    found = dict(captioner().caption_with(engine, iter(samples)))
    assert found[1].finish_reason == "error"
    assert "cannot be read" in found[1].error
    assert sorted(engine.asked) == [(0, 1), (2, 1)]


def test_an_engine_that_stops_ends_the_run_after_what_is_finished():
    stopped = threading.Event()

    def answer(request):
        if request.index >= 5:
            stopped.wait(10)
            return Answer("", "error", code="engine_unavailable", error="The inference engine is unavailable.")
        return Engine.echo(request)

    results = captioner().caption_with(Engine(answer, 4), iter([sample(n) for n in range(9)]))
    assert sorted(next(results)[0] for _ in range(5)) == [0, 1, 2, 3, 4]
    stopped.set()
    with pytest.raises(CaptionerError, match=r"vlm.*stopped.*unavailable"):
        next(results)


def test_an_engine_that_hangs_ends_the_run():
    hung = Future()
    engine = Engine()
    engine.start = lambda _: hung
    with pytest.raises(CaptionerError, match=r"finished no caption for 0\.05 s.*stall_seconds"):
        ask(engine, 3, stall_seconds=0.05)
    assert hung.cancelled()


def test_an_engine_that_only_fails_ends_the_run_early():
    engine = Engine(lambda _: Answer("", "error", code="preprocess_failed", error="no chat template"))
    with pytest.raises(CaptionerError, match="20 images in a row failed: no chat template"):
        ask(engine, 1000)
    assert len(engine.asked) < 100


def test_one_load_serves_all_shards_and_another_model_takes_its_place(monkeypatch):
    loads, closed = [], []

    def stand_in(settings):
        engine = Engine()
        loads.append(settings.model)
        engine.close = lambda: closed.append(settings.model)
        return engine

    monkeypatch.setattr(module, "load", stand_in)
    monkeypatch.setattr(module, "_loaded", module._Loaded())
    for name in ("a", "a", "b"):
        list(captioner(model=name).caption(iter([sample(1)])))
    assert loads == ["a", "b"]
    assert closed == ["a"]


def test_an_engine_that_failed_is_loaded_again_and_not_closed(monkeypatch):
    loads = []

    def stand_in(settings):
        engine = Engine(lambda _: Answer("", "error", code="engine_unavailable", error="gone"))
        loads.append(engine)
        engine.close = lambda: pytest.fail("it may hang in that")
        return engine

    monkeypatch.setattr(module, "load", stand_in)
    monkeypatch.setattr(module, "_loaded", module._Loaded())
    for _ in range(2):
        with pytest.raises(CaptionerError, match="gone"):
            list(captioner().caption(iter([sample(1)])))
    assert len(loads) == 2


def test_the_signature_holds_what_changes_captions_and_nothing_of_speed():
    before = captioner().signature()
    same = captioner(
        tp=2,
        max_batch_size=8,
        cache_max_entry_count=0.5,
        block_size=128,
        concurrency=7,
        retries=0,
        stall_seconds=1,
        trust_remote_code=True,
        price_per_gpu_hour=2.0,
    )
    assert same.signature() == before
    for change in (
        {"model": "other"},
        {"revision": "v2"},
        {"max_tokens": 5},
        {"temperature": 0.5},
        {"max_dynamic_patch": 6},
        {"quant_policy": 8},
        {"engine": "pytorch"},
        {"repetition_penalty": 1.1},
        {"image_longest_side": 512},
        {"options": {"rope_scaling_factor": 2.0}},
    ):
        assert captioner(**change).signature() != before, change


def test_the_price_is_of_all_gpus():
    assert captioner(tp=4, price_per_gpu_hour=1.5).price_per_hour == 6
    assert captioner().price_per_hour is None


@pytest.mark.parametrize(
    ("settings", "fault"),
    [
        ({"engine": "vllm"}, "engine"),
        ({"cache_max_entry_count": 1.0}, "less than 1"),
        ({"block_size": 48}, "multiple of 32"),
        ({"max_batch": 5}, "unknown key 'max_batch'; allowed: .*max_batch_size"),
    ],
)
def test_a_wrong_setting_is_refused_when_it_is_loaded(settings, fault):
    with pytest.raises(ValidationError, match=fault):
        captioner(**settings)


def test_it_says_what_to_do_where_it_cannot_run():
    with pytest.raises(CaptionerError, match=r"captioner vlm: .*(docs/gpu\.md|machine shows none).*kind: openai"):
        list(captioner().caption(iter([sample(0)])))


# --- lmdeploy itself, wherever it can be imported, with or without a GPU --------------------------------------------


@needs_lmdeploy
@pytest.mark.parametrize("engine", ["turbomind", "pytorch"])
def test_lmdeploy_takes_every_setting_of_its_engines(engine):
    settings = captioner(
        tp=2,
        dtype="bfloat16",
        model_format="awq",
        session_len=4096,
        max_batch_size=64,
        cache_max_entry_count=0.6,
        quant_policy=8,
        block_size=128,
        max_prefill_token_num=4096,
        enable_prefix_caching=True,
        options={"hf_overrides": {"rope_theta": 1.0}},
    )
    config = lmdeploy_engine.engine_config(settings, engine)
    for name, value in settings.fields_of(engine).items():
        assert getattr(config, name) == value, name
    assert config.enable_metrics is False


@needs_lmdeploy
@pytest.mark.parametrize("engine", ["turbomind", "pytorch"])
def test_our_defaults_are_those_of_lmdeploy(engine):
    import lmdeploy

    default = lmdeploy.TurbomindEngineConfig() if engine == "turbomind" else lmdeploy.PytorchEngineConfig()
    for name, value in captioner().fields_of(engine).items():
        assert getattr(default, name) == value, name


@needs_lmdeploy
@pytest.mark.parametrize(
    ("settings", "engine", "fault"),
    [
        ({"options": {"no_such_field": 1}}, "turbomind", "TurbomindEngineConfig has no field no_such_field"),
        ({"options": {"no_such_field": 1}}, "pytorch", "PytorchEngineConfig has no field no_such_field"),
        ({"quant_policy": 16}, "turbomind", "FP8"),
    ],
)
def test_lmdeploy_says_which_setting_it_refuses(settings, engine, fault):
    with pytest.raises(CaptionerError, match=fault):
        lmdeploy_engine.engine_config(captioner(**settings), engine)


@needs_lmdeploy
def test_lmdeploy_takes_every_setting_of_the_generation():
    settings = captioner(
        max_tokens=77,
        temperature=0.7,
        top_p=0.9,
        seed=3,
        repetition_penalty=1.05,
        repetition_ngram_size=4,
        repetition_ngram_threshold=5,
        ignore_eos=True,
    )
    config = generation_config(settings)
    for name, value in settings.generation_values().items():
        assert getattr(config, name) == value, name
    assert (config.repetition_ngram_size, config.repetition_ngram_threshold) == (4, 5)
    assert generation_config(captioner(repetition_ngram_size=4)).repetition_ngram_threshold > 1
    assert generation_config(captioner()).repetition_ngram_size == 0
    assert generation_config(captioner()).do_sample is False
    penalised = generation_config(captioner(repetition_penalty=1.1))
    assert (penalised.do_sample, penalised.top_k) == (True, 1)


@needs_lmdeploy
def test_lmdeploy_takes_a_chat_template(tmp_path):
    assert lmdeploy_engine.chat_template_config(captioner()) is None
    assert lmdeploy_engine.chat_template_config(captioner(chat_template="internvl2_5")).model_name == "internvl2_5"
    file = tmp_path / "template.json"
    file.write_text(json.dumps({"model_name": "mine", "system": "<s>", "capability": "chat"}))
    assert lmdeploy_engine.chat_template_config(captioner(chat_template=str(file))).model_name == "mine"


@needs_lmdeploy
def test_the_engine_is_chosen_by_the_architecture(tmp_path):
    from lmdeploy import turbomind

    for architecture, known in (
        ("InternVLChatModel", True),
        ("Qwen2_5_VLForConditionalGeneration", True),
        ("Qwen3VLForConditionalGeneration", False),
        ("CogVLMForCausalLM", False),
    ):
        folder = tmp_path / architecture
        folder.mkdir()
        (folder / "config.json").write_text(json.dumps({"architectures": [architecture], "model_type": "made_up"}))
        expected = "turbomind" if known and turbomind.is_available() else "pytorch"
        assert lmdeploy_engine.chosen_engine(captioner(), str(folder)) == expected
        assert lmdeploy_engine.chosen_engine(captioner(engine="pytorch"), str(folder)) == "pytorch"
        if expected == "pytorch":
            with pytest.raises(CaptionerError, match=r"TurboMind.*set engine: pytorch"):
                lmdeploy_engine.chosen_engine(captioner(engine="turbomind"), str(folder))


class StandInPipeline:
    """lmdeploy's own event loop, and an engine that hands back what lmdeploy's message parser made of a request."""

    def __init__(self) -> None:
        from lmdeploy.pipeline import _EventLoopThread
        from lmdeploy.serve.managers import SessionManager

        self.internal_thread = _EventLoopThread(daemon=True)
        self.async_engine = self
        self.sessions = SessionManager()
        self.prepared: list = []

    def session(self):
        return self.sessions.get()

    async def preprocess(self, messages, session_id, gen_config=None):
        from lmdeploy.serve.core.exceptions import ErrorCode, RequestError
        from lmdeploy.serve.processors import MultimodalProcessor

        parsed = await MultimodalProcessor.async_parse_multimodal_item(messages)
        image, text = parsed[0]["content"]
        if text["text"] == "too long":
            raise RequestError(ErrorCode.CONTEXT_LENGTH_EXCEEDED)
        if text["text"] == "broken":
            raise KeyError("of ours")
        return text["text"], image, gen_config

    async def generate(self, request, stream_response=True):
        from lmdeploy.serve.core.async_engine import GenOut

        assert stream_response is False
        text, image, config = request
        assert image["type"] == "image"
        said = f"{text}, {image['data'].size}, {image.get('max_dynamic_patch')}, {config.max_new_tokens}"
        yield GenOut(said, 300, 20)
        yield GenOut("", 300, 20, "abort" if text == "aborted" else "length")


@needs_lmdeploy
def test_requests_and_answers_are_in_lmdeploys_own_form():
    from lmdeploy.serve.core import AsyncEngine

    engine = LmdeployEngine(StandInPipeline(), generation_config(captioner(max_tokens=9)), {"max_dynamic_patch": 6})

    def answer(prompt):
        request = Request(0, Image.new("RGB", (8, 6)), prompt)
        return engine.start(request).result(timeout=30)

    assert answer("Describe it") == Answer("Describe it, (8, 6), 6, 9", "length", 300, 20)
    assert answer("aborted") == failed("internal_error", "the engine ended it with finish_reason abort")
    assert answer("too long").code == "context_length_exceeded"
    assert answer("broken") == Answer("", "error", code="internal_error", error="KeyError: 'of ours'")

    import inspect

    inspect.signature(AsyncEngine.preprocess).bind(None, [], None, gen_config=None)
    inspect.signature(AsyncEngine.generate).bind(None, None, stream_response=False)


@needs_lmdeploy
def test_every_error_code_of_lmdeploy_is_known():
    from lmdeploy.serve.core.exceptions import ErrorCode

    of_a_row = {"invalid_request", "context_length_exceeded", "unsupported_feature", "preprocess_failed"}
    assert {code.value for code in ErrorCode} == of_a_row | FATAL | RETRYABLE


@needs_lmdeploy
def test_a_model_that_cannot_be_loaded_is_named():
    import torch

    if not torch.cuda.is_available():
        with pytest.raises(CaptionerError, match=re.escape("needs 1 NVIDIA GPU, and this machine shows none")):
            load(captioner())
    else:
        with pytest.raises(CaptionerError, match="cannot load"):
            load(captioner(model="no/such-model"))
