"""A vision-language model in this process, on the GPU, run by lmdeploy."""

from __future__ import annotations

import atexit
import time
from concurrent.futures import Future
from dataclasses import dataclass, field, fields, replace
from io import BytesIO
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Protocol

from pydantic import Field

from dqe_resources.captioners.engine_settings import EngineName, EngineSettings
from dqe_resources.captioners.in_flight import StalledError, in_flight
from dqe_resources.captioners.protocol import Caption, CaptionerError, Sample, VisionCaptioner
from dqe_resources.errors import one_line
from dqe_resources.parallel import ordered_map

if TYPE_CHECKING:
    from collections.abc import Iterator

_READY = 32
"""Requests that wait, made ready, for a place in the engine's batch."""

_MANY = 20
"""Failures in a row that no few images are the cause of."""

_NGRAM_THRESHOLD = 3
"""Repetitions that the guard allows where the settings do not say."""

_FATAL = frozenset({"engine_unavailable", "unauthorized", "model_not_found"})
"""lmdeploy's error codes that no other request would escape."""

_AGAIN = frozenset({"internal_error", "request_cancelled", "request_conflict"})
"""lmdeploy's error codes that the same request may escape when it is made once more."""


@dataclass(frozen=True, slots=True)
class Request:
    """One image and the prompt, ready for an engine.

    Attributes:
        index: the sample's place among those given.
        image: a PIL image in RGB; None if it could not be read.
        prompt: the prompt in full.
        seed: seed of the sampling; None for that of the settings.
        attempt: how often it has been asked, this time included.
    """

    index: int
    image: Any
    prompt: str
    seed: int | None = None
    attempt: int = 1


@dataclass(frozen=True, slots=True)
class Answer:
    """What an engine gave; for an error, ``code`` is lmdeploy's name of it."""

    text: str
    finish_reason: Literal["stop", "length", "error"]
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    code: str | None = None
    error: str | None = None


class Engine(Protocol):
    """An engine as the captioner needs it."""

    @property
    def max_batch_size(self) -> int:
        """Captions generated at once."""

    def start(self, request: Request) -> Future[Answer]:
        """Begin a caption; the future ends, in another thread, with the whole answer. It never fails."""

    def close(self) -> None:
        """Free the GPU."""


class LmdeployCaptioner(VisionCaptioner, EngineSettings):
    """Captions on this machine's GPU: the model is loaded once for all shards of a run.

    An engine takes new images while it generates for others (continuous batching), so it is kept full: as many
    requests as its batch holds are under way, and a few more wait, made ready. Needs the extra ``gpu``.

    Attributes:
        concurrency: Captions under way at once, at most. By default as many as the engine's batch holds, and a few made
            ready.
        max_dynamic_patch: The most tiles of 448 pixels that InternVL cuts an image into, at 256 tokens each. By default
            the model's own limit, usually 12 and one of the whole image.
        top_p: Share of the probability that is sampled from, where the temperature is above 0.
        repetition_penalty: Above 1, tokens that were said before become less probable.
        ignore_eos: Always generate ``max_tokens`` tokens: for measuring only.
        retries: How often an image is tried again after an internal error of the engine.
        stall_seconds: Seconds without a finished caption after which the engine counts as hung.
    """

    kind: ClassVar[str] = "lmdeploy"
    without_effect: ClassVar[frozenset[str]] = (
        VisionCaptioner.without_effect | EngineSettings.speed_only | {"stall_seconds", "retries"}
    )

    concurrency: Annotated[int, Field(ge=1, le=4096)] = 4096
    max_dynamic_patch: Annotated[int, Field(ge=1)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1)] = 1.0
    repetition_penalty: Annotated[float, Field(gt=0)] = 1.0
    ignore_eos: bool = False
    retries: Annotated[int, Field(ge=0)] = 2
    stall_seconds: Annotated[float, Field(gt=0)] = 600.0

    @property
    def price_per_hour(self) -> float | None:
        """Of all GPUs that the model is spread over."""
        return None if self.price_per_gpu_hour is None else self.price_per_gpu_hour * self.tp

    def caption(self, samples: Iterator[Sample]) -> Iterator[tuple[int, Caption]]:
        """Captions as the engine finishes them.

        Raises:
            CaptionerError: lmdeploy or a GPU is missing, the model cannot be loaded, the engine has stopped or hangs.
        """
        try:
            yield from captions(samples, loaded_engine(self), self)
        except CaptionerError:
            _loaded.abandon()
            raise

    def generation_values(self) -> dict[str, Any]:
        """The fields of lmdeploy's GenerationConfig."""
        greedy = self.temperature == 0
        return {
            "max_new_tokens": self.max_tokens,
            # Without sampling lmdeploy drops the penalty; sampling from the one most probable token is greedy too.
            "do_sample": not greedy or self.repetition_penalty != 1,
            "top_k": 1 if greedy else 50,
            "temperature": 1.0 if greedy else self.temperature,
            "top_p": self.top_p,
            "repetition_penalty": self.repetition_penalty,
            "random_seed": self.seed,
            "repetition_ngram_size": self.repetition_ngram_size or 0,
            "repetition_ngram_threshold": self.repetition_ngram_threshold or _NGRAM_THRESHOLD,
            "ignore_eos": self.ignore_eos,
        }


def captions(samples: Iterator[Sample], engine: Engine, settings: LmdeployCaptioner) -> Iterator[tuple[int, Caption]]:
    """Captions of all samples from an engine, in the order in which they end.

    An image that cannot be read or that the engine refuses is a caption with an error; an internal error of the
    engine is tried again.

    Raises:
        CaptionerError: the engine has stopped, nothing was finished for ``settings.stall_seconds``, or 20 images in a
            row failed.
    """
    limit = min(settings.concurrency, engine.max_batch_size + _READY)
    work = _Work(ordered_map(_request, zip(count(), samples), ahead=_READY))
    started: dict[int, float] = {}
    failures = 0

    def start(request: Request) -> Future[Answer]:
        if request.image is None:
            unreadable: Future[Answer] = Future()
            unreadable.set_result(_failed("preprocess_failed", "the image cannot be read"))
            return unreadable
        started.setdefault(request.index, time.monotonic())
        return engine.start(request)

    try:
        for request, future in in_flight(start, work, limit=limit, patience=settings.stall_seconds):
            answer = future.result()
            failures = failures + 1 if answer.error else 0
            if answer.code in _FATAL:
                raise CaptionerError(f"captioner {settings.name}: lmdeploy's engine has stopped: {answer.error}")
            if failures >= _MANY:
                raise CaptionerError(f"captioner {settings.name}: {_MANY} images in a row failed: {answer.error}")
            if answer.code in _AGAIN and request.attempt <= settings.retries:
                work.again.append(replace(request, attempt=request.attempt + 1))
                continue
            seconds = time.monotonic() - started.pop(request.index) if request.index in started else None
            yield request.index, _caption(answer, seconds, request.attempt)
    except StalledError:
        raise CaptionerError(
            f"captioner {settings.name}: lmdeploy's engine finished no caption for {settings.stall_seconds:g} s; "
            "see its log above, and raise stall_seconds if a caption may take that long"
        ) from None


@dataclass
class _Work:
    """Requests, those that are to be made once more first."""

    rest: Iterator[Request]
    again: list[Request] = field(default_factory=list)

    def __iter__(self) -> Iterator[Request]:
        return self

    def __next__(self) -> Request:
        return self.again.pop() if self.again else next(self.rest)


def _request(numbered: tuple[int, Sample]) -> Request:
    from PIL import Image

    index, sample = numbered
    try:
        with Image.open(BytesIO(sample.image)) as image:
            return Request(index, image.convert("RGB"), sample.prompt, sample.seed)
    except OSError:
        return Request(index, None, sample.prompt)


def _caption(answer: Answer, seconds: float | None, attempt: int) -> Caption:
    return Caption(
        answer.text or None,
        answer.finish_reason,
        answer.error,
        answer.prompt_tokens,
        answer.completion_tokens,
        seconds,
        attempt,
    )


class _Loaded:
    """The one engine of this process: two would have to share the GPU's memory."""

    def __init__(self) -> None:
        self._engine: Engine | None = None
        self._of: str | None = None

    def get(self, settings: LmdeployCaptioner) -> Engine:
        wanted = settings.model_dump_json()
        if self._engine is None or self._of != wanted:
            self.close()
            self._engine, self._of = load(settings), wanted
        return self._engine

    def close(self) -> None:
        if self._engine is not None:
            self._engine.close()
        self.abandon()

    def abandon(self) -> None:
        """Use it no more; one that hangs would hang in being closed too."""
        self._engine = self._of = None


_loaded = _Loaded()
atexit.register(_loaded.close)


def loaded_engine(settings: LmdeployCaptioner) -> Engine:
    """The engine of these settings, loaded if it is not; the engine of others is closed first.

    Raises:
        CaptionerError: lmdeploy or a GPU is missing, or the model cannot be loaded.
    """
    return _loaded.get(settings)


class LmdeployEngine:
    """lmdeploy's pipeline, asked one request at a time and as many at once as wanted.

    Requests go to ``AsyncEngine.preprocess`` and ``AsyncEngine.generate`` on the pipeline's own event loop, which is
    what ``Pipeline.infer`` does with a whole list. So the images of those that wait are made ready while others are
    generated, and a result comes as soon as it is there.

    Args:
        pipeline: an ``lmdeploy.Pipeline``.
        settings: what to generate.
    """

    def __init__(self, pipeline: Any, settings: LmdeployCaptioner) -> None:
        self.pipeline = pipeline
        self._generation = generation_config(settings)
        self._image = {} if settings.max_dynamic_patch is None else {"max_dynamic_patch": settings.max_dynamic_patch}

    @property
    def max_batch_size(self) -> int:
        """Captions generated at once."""
        return int(self.pipeline.backend_config.max_batch_size)

    def start(self, request: Request) -> Future[Answer]:
        """Begin a caption."""
        import asyncio

        return asyncio.run_coroutine_threadsafe(self._answer(request), self.pipeline.internal_thread.loop)

    def close(self) -> None:
        """Free the GPU."""
        self.pipeline.close()

    async def _answer(self, request: Request) -> Answer:
        from lmdeploy.serve.core.exceptions import RequestError

        image = {"type": "image_data", "image_data": {"data": request.image, **self._image}}
        messages = [{"role": "user", "content": [image, {"type": "text", "text": request.prompt}]}]
        engine, generation = self.pipeline.async_engine, self._generation
        if request.seed is not None:
            generation = replace(generation, random_seed=request.seed)
        try:
            prepared = await engine.preprocess(messages, self.pipeline.session(), gen_config=generation)
            parts = [part async for part in engine.generate(prepared, stream_response=False)]
        except RequestError as error:
            return _failed(error.code.value, error.message)
        except Exception as error:  # noqa: BLE001
            # lmdeploy's own pipeline makes an internal error of whatever else it raises.
            return _failed("internal_error", f"{type(error).__name__}: {error}")
        if not parts or parts[-1].finish_reason not in {"stop", "length"}:
            reason = parts[-1].finish_reason if parts else None
            return _failed("internal_error", f"the engine ended it with finish_reason {reason}")
        text, last = "".join(part.response for part in parts), parts[-1]
        return Answer(text, last.finish_reason, last.input_token_len, last.generate_token_len)


def _failed(code: str, error: str) -> Answer:
    return Answer("", "error", code=code, error=error)


def load(settings: LmdeployCaptioner) -> LmdeployEngine:
    """Load a model onto the GPU.

    Raises:
        CaptionerError: lmdeploy or a GPU is missing, or the model cannot be loaded.
    """
    _require_gpus(settings)
    try:
        return LmdeployEngine(_pipeline(settings), settings)
    except CaptionerError:
        raise
    except Exception as error:
        raise CaptionerError(
            f"captioner {settings.name}: lmdeploy cannot load {settings.model}: {type(error).__name__}: {error}"
        ) from error


def _pipeline(settings: LmdeployCaptioner) -> Any:
    import lmdeploy
    from lmdeploy.utils import get_model

    path = settings.model
    if not Path(path).exists():
        path = str(get_model(path, settings.options.get("download_dir"), settings.revision))
    engine = chosen_engine(settings, path)
    if engine == "turbomind" and settings.repetition_ngram_size:
        raise CaptionerError(
            f"captioner {settings.name}: TurboMind has no n-gram guard; set engine: pytorch, or repetition_penalty "
            "in its place"
        )
    return lmdeploy.pipeline(
        path,
        backend_config=engine_config(settings, engine),
        chat_template_config=chat_template_config(settings),
        vision_config=lmdeploy.VisionConfig(max_batch_size=settings.vision_max_batch_size),
        trust_remote_code=settings.trust_remote_code,
    )


def engine_config(settings: EngineSettings, engine: EngineName) -> Any:
    """The configuration of an engine, as lmdeploy has it.

    Raises:
        CaptionerError: lmdeploy does not take a setting; says what it says.
    """
    import lmdeploy

    config = lmdeploy.TurbomindEngineConfig if engine == "turbomind" else lmdeploy.PytorchEngineConfig
    # One of the two classes would not say so.
    unknown = sorted(set(settings.options) - {field.name for field in fields(config)})
    if unknown:
        raise CaptionerError(f"options of {settings.model}: lmdeploy's {config.__name__} has no field {unknown[0]}")
    try:
        # Its metrics are for a server that somebody scrapes, and live as long as the process.
        return config(**{"enable_metrics": False, **settings.fields_of(engine)})
    except (AssertionError, ValueError) as error:
        raise CaptionerError(
            f"lmdeploy's {config.__name__} refuses the settings of {settings.model}: {one_line(error)}"
        ) from error


def generation_config(settings: LmdeployCaptioner) -> Any:
    """The configuration of the generation, as lmdeploy has it."""
    from lmdeploy import GenerationConfig

    return GenerationConfig(**settings.generation_values())


def chat_template_config(settings: EngineSettings) -> Any:
    """The configuration of the chat template, as lmdeploy has it; None for the model's own."""
    from lmdeploy import ChatTemplateConfig

    if settings.chat_template is None:
        return None
    if Path(settings.chat_template).is_file():
        return ChatTemplateConfig.from_json(settings.chat_template)
    return ChatTemplateConfig(settings.chat_template)


def chosen_engine(settings: EngineSettings, path: str) -> EngineName:
    """The engine to run a model: lmdeploy itself falls back to PyTorch with no more than a line in its log.

    Raises:
        CaptionerError: TurboMind is asked for, but cannot run here or does not know the model's architecture.
    """
    from lmdeploy import turbomind
    from lmdeploy.archs import autoget_backend

    if settings.engine == "pytorch":
        return "pytorch"
    known: EngineName = autoget_backend(path, trust_remote_code=settings.trust_remote_code)
    if settings.engine == "turbomind" and known != "turbomind":
        why = "does not know its architecture" if turbomind.is_available() else "cannot be loaded on this machine"
        raise CaptionerError(f"{settings.model}: TurboMind {why}; set engine: pytorch, or auto")
    return known


def _require_gpus(settings: LmdeployCaptioner) -> None:
    try:
        import lmdeploy  # noqa: F401
        import torch
    except ImportError as error:
        raise CaptionerError(
            f"captioner {settings.name}: lmdeploy is not installed ({error}); install the extra 'gpu' "
            "in an environment of its own (docs/gpu.md), or use kind: openai with a server"
        ) from error
    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if gpus < settings.tp:
        raise CaptionerError(
            f"captioner {settings.name}: needs {settings.tp} NVIDIA GPU{'s' if settings.tp > 1 else ''}, and this "
            f"machine shows {gpus or 'none'}; run it where there is one, or use kind: openai with a server elsewhere"
        )
