"""An engine of lmdeploy in this process: how its settings become lmdeploy's own, how it is loaded, and how asked."""

from __future__ import annotations

from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dqe_resources.captioners.lmdeploy_requests import Answer, failed
from dqe_resources.captioners.protocol import NoCaptionerError
from dqe_resources.errors import one_line

if TYPE_CHECKING:
    from collections.abc import Mapping
    from concurrent.futures import Future

    from dqe_resources.captioners.engine_settings import EngineName, EngineSettings
    from dqe_resources.captioners.lmdeploy_requests import Request


class LmdeployEngine:
    """lmdeploy's pipeline, asked one request at a time and as many at once as wanted.

    Requests go to ``AsyncEngine.preprocess`` and ``AsyncEngine.generate`` on the pipeline's own event loop, which is
    what ``Pipeline.infer`` does with a whole list. So the images of those that wait are made ready while others are
    generated, and a result comes as soon as it is there.

    Args:
        pipeline: an ``lmdeploy.Pipeline``.
        generation: what to generate, an ``lmdeploy.GenerationConfig``.
        image_options: what the model's processor is told with each image.
    """

    def __init__(self, pipeline: Any, generation: Any, image_options: Mapping[str, Any]) -> None:
        self.pipeline = pipeline
        self._generation = generation
        self._image_options = dict(image_options)

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

        image = {"type": "image_data", "image_data": {"data": request.image, **self._image_options}}
        messages = [{"role": "user", "content": [image, {"type": "text", "text": request.prompt}]}]
        engine, generation = self.pipeline.async_engine, self._generation
        if request.seed is not None:
            generation = replace(generation, random_seed=request.seed)
        try:
            prepared = await engine.preprocess(messages, self.pipeline.session(), gen_config=generation)
            parts = [part async for part in engine.generate(prepared, stream_response=False)]
        except RequestError as error:
            return failed(error.code.value, error.message)
        except Exception as error:  # noqa: BLE001
            # lmdeploy's own pipeline makes an internal error of whatever else it raises.
            return failed("internal_error", f"{type(error).__name__}: {error}")
        if not parts or parts[-1].finish_reason not in {"stop", "length"}:
            reason = parts[-1].finish_reason if parts else None
            return failed("internal_error", f"the engine ended it with finish_reason {reason}")
        text, last = "".join(part.response for part in parts), parts[-1]
        return Answer(text, last.finish_reason, last.input_token_len, last.generate_token_len)


def load_pipeline(settings: EngineSettings, label: str, *, ngram_guard: bool) -> Any:
    """An ``lmdeploy.Pipeline`` with the model on the GPU.

    Args:
        settings: the model and how it is run.
        label: what messages call the captioner.
        ngram_guard: whether the generation needs a guard against repeated n-grams, which TurboMind lacks.

    Raises:
        NoCaptionerError: lmdeploy or a GPU is missing, or the settings do not suit the engine.
        Exception: whatever lmdeploy raises where the model cannot be loaded.
    """
    _require_gpus(settings, label)
    import lmdeploy
    from lmdeploy.utils import get_model

    path = settings.model
    if not Path(path).exists():
        path = str(get_model(path, settings.options.get("download_dir"), settings.revision))
    engine = chosen_engine(settings, path)
    if engine == "turbomind" and ngram_guard:
        raise NoCaptionerError(
            f"{label}: TurboMind has no n-gram guard; set engine: pytorch, or repetition_penalty in its place"
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
        NoCaptionerError: lmdeploy does not take a setting; says what it says.
    """
    import lmdeploy

    config = lmdeploy.TurbomindEngineConfig if engine == "turbomind" else lmdeploy.PytorchEngineConfig
    # One of the two classes would not say so.
    unknown = sorted(set(settings.options) - {field.name for field in fields(config)})
    if unknown:
        raise NoCaptionerError(f"options of {settings.model}: lmdeploy's {config.__name__} has no field {unknown[0]}")
    try:
        # Its metrics are for a server that somebody scrapes, and live as long as the process.
        return config(**{"enable_metrics": False, **settings.fields_of(engine)})
    except (AssertionError, ValueError) as error:
        raise NoCaptionerError(
            f"lmdeploy's {config.__name__} refuses the settings of {settings.model}: {one_line(error)}"
        ) from error


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
        NoCaptionerError: TurboMind is asked for, but cannot run here or does not know the model's architecture.
    """
    from lmdeploy import turbomind
    from lmdeploy.archs import autoget_backend

    if settings.engine == "pytorch":
        return "pytorch"
    known: EngineName = autoget_backend(path, trust_remote_code=settings.trust_remote_code)
    if settings.engine == "turbomind" and known != "turbomind":
        why = "does not know its architecture" if turbomind.is_available() else "cannot be loaded on this machine"
        raise NoCaptionerError(f"{settings.model}: TurboMind {why}; set engine: pytorch, or auto")
    return known


def _require_gpus(settings: EngineSettings, label: str) -> None:
    try:
        import lmdeploy  # noqa: F401
        import torch
    except ImportError as error:
        raise NoCaptionerError(
            f"{label}: lmdeploy is not installed ({error}); install the extra 'gpu' "
            "in an environment of its own (docs/gpu.md), or use kind: openai with a server"
        ) from error
    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if gpus < settings.tp:
        raise NoCaptionerError(
            f"{label}: needs {settings.tp} NVIDIA GPU{'s' if settings.tp > 1 else ''}, and this "
            f"machine shows {gpus or 'none'}; run it where there is one, or use kind: openai with a server elsewhere"
        )
