"""A vision-language model in this process, on the GPU, run by lmdeploy."""

from __future__ import annotations

import atexit
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from pydantic import Field

from dqe_resources.captioners.engine_settings import EngineSettings
from dqe_resources.captioners.lmdeploy_engine import LmdeployEngine, load_pipeline
from dqe_resources.captioners.lmdeploy_requests import captions
from dqe_resources.captioners.protocol import CaptionerError, NoCaptionerError, VisionCaptioner

if TYPE_CHECKING:
    from collections.abc import Iterator

    from dqe_resources.captioners.lmdeploy_requests import Engine
    from dqe_resources.captioners.protocol import Caption, Sample

_NGRAM_THRESHOLD = 3
"""Repetitions that the guard allows where the settings do not say."""


class LmdeployCaptioner(VisionCaptioner, EngineSettings):
    """Captions on this machine's GPU: the model is loaded once for all shards of a run.

    It needs the extra ``gpu``. An engine takes new images while it generates for others (continuous batching), so it is
    kept full: as many requests as its batch holds are under way, and a few more are ready and wait.

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
    def label(self) -> str:
        """What messages call it."""
        return f"captioner {self.name}"

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
            yield from self.caption_with(loaded_engine(self), samples)
        except CaptionerError:
            _loaded.abandon()
            raise

    def caption_with(self, engine: Engine, samples: Iterator[Sample]) -> Iterator[tuple[int, Caption]]:
        """As ``caption``, from an engine that is loaded."""
        return captions(
            samples,
            engine,
            self.label,
            concurrency=self.concurrency,
            retries=self.retries,
            stall_seconds=self.stall_seconds,
        )

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


def generation_config(settings: LmdeployCaptioner) -> Any:
    """The configuration of the generation, as lmdeploy has it."""
    from lmdeploy import GenerationConfig

    return GenerationConfig(**settings.generation_values())


def load(settings: LmdeployCaptioner) -> LmdeployEngine:
    """Load a model onto the GPU.

    Raises:
        CaptionerError: lmdeploy or a GPU is missing, or the model cannot be loaded.
    """
    image_options = {} if settings.max_dynamic_patch is None else {"max_dynamic_patch": settings.max_dynamic_patch}
    try:
        pipeline = load_pipeline(settings, settings.label, ngram_guard=bool(settings.repetition_ngram_size))
        return LmdeployEngine(pipeline, generation_config(settings), image_options)
    except CaptionerError:
        raise
    except Exception as error:
        raise NoCaptionerError(
            f"{settings.label}: lmdeploy cannot load {settings.model}: {type(error).__name__}: {error}"
        ) from error


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
