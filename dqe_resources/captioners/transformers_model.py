"""A model of Hugging Face Transformers in this process: its settings, and how it is loaded."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Field, model_validator

from dqe_resources.captioners.protocol import AskedModel, LanguageModel, NoCaptionerError, SeeingModel
from dqe_resources.errors import one_line

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Self

_TASKS = {"florence2": "<MORE_DETAILED_CAPTION>"}
"""What models that take task tokens are asked by default, by their type."""

_OF_ANOTHER_CLASS = "Unrecognized configuration class"


class LocalModel(AskedModel):
    """A model of Transformers in this process, on a CPU or a GPU, asked in batches.

    Attributes:
        model: A folder, or the name of a repository on the hub.
        revision: Branch, tag or commit of the repository.
        trust_remote_code: Run the code that comes with the model: Moondream needs it.
        device: ``cpu``, ``cuda``, ``mps`` ...; ``auto`` takes a CUDA device if there is one.
        dtype: Type of weights and activations; ``auto`` is bfloat16 on a GPU and float32 on a CPU.
        concurrency: Answers generated at once: the size of a batch. A batch that memory does not hold is halved.
        thinking: Whether a model that can think aloud before it answers is to do so: its chat template is told. By
            default nothing is said.
    """

    without_effect: ClassVar[frozenset[str]] = AskedModel.without_effect | {"device", "trust_remote_code"}

    trust_remote_code: bool = False
    device: Annotated[str, Field(min_length=1)] = "auto"
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    concurrency: Annotated[int, Field(ge=1, le=4096)] = 8
    thinking: bool | None = None


class SeeingLocalModel(LocalModel, SeeingModel):
    """A model of Transformers in this process that is given an image and a prompt.

    Attributes:
        image_options: Further arguments of the model's image processor, such as {size: {longest_edge: 512}}, with
            which SmolVLM looks at the image once in place of at 17 tiles of it.
    """

    without_effect: ClassVar[frozenset[str]] = LocalModel.without_effect | SeeingModel.without_effect

    image_options: dict[str, Any] = Field(default_factory=dict)


class TransformersModel(LocalModel, LanguageModel):
    """A model of Transformers in this process that writes answers.

    Attributes:
        generation: Further fields of Transformers' GenerationConfig: num_beams, repetition_penalty,
            no_repeat_ngram_size ...
    """

    without_effect: ClassVar[frozenset[str]] = LocalModel.without_effect | LanguageModel.without_effect

    generation: dict[str, Any] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _has_no_guard(self) -> Self:
        if self.repetition_ngram_size is not None:
            raise ValueError(
                "repetition_ngram_size: Transformers has generation: {no_repeat_ngram_size: 3} in its place"
            )
        return self

    def generation_values(self) -> dict[str, Any]:
        """The arguments of ``generate``."""
        sampling = {"do_sample": True, "temperature": self.temperature} if self.temperature else {"do_sample": False}
        return {"max_new_tokens": self.max_tokens, **sampling, **self.generation}


@dataclass(frozen=True)
class LoadedModel:
    """A model, and the processor or tokenizer that prepares its inputs; None if its own code does."""

    model: Any
    processor: Any
    device: str
    dtype: Any

    @property
    def tokenizer(self) -> Any:
        """What turns text into tokens and back."""
        return getattr(self.processor, "tokenizer", self.processor)

    @property
    def has_chat_template(self) -> bool:
        """Whether it is asked in a conversation."""
        return bool(getattr(self.processor, "chat_template", None) or getattr(self.tokenizer, "chat_template", None))

    @cached_property
    def special_ids(self) -> frozenset[int]:
        """Tokens that are no text: ends, padding, places of images ..."""
        ends = self.model.generation_config.eos_token_id
        return frozenset({*self.tokenizer.all_special_ids, *(ends if isinstance(ends, list) else [ends])})

    @property
    def task(self) -> str:
        """What it is asked where it takes no prompt; empty if that is nothing."""
        return _TASKS.get(self.model.config.model_type, "")


_loaded: dict[str, LoadedModel] = {}
"""The one model of this process: two would have to share the memory."""


def loaded_model(settings: LocalModel, label: str, *, sees: bool) -> LoadedModel:
    """The model of these settings, loaded if it is not; one of others is given up first.

    Args:
        settings: which model, and how it is run.
        label: what messages call it.
        sees: whether it is given images.

    Raises:
        NoCaptionerError: it cannot be loaded: says what Transformers says.
    """
    wanted = ("model", "revision", "trust_remote_code", "device", "dtype")
    key = f"{sees} {settings.model_dump_json(include=set(wanted))}"
    if key not in _loaded:
        _loaded.clear()
        try:
            _loaded[key] = _load(settings, sees=sees)
        except Exception as error:
            raise NoCaptionerError(
                f"{label}: Transformers cannot load {settings.model}: {type(error).__name__}: {one_line(error)}; "
                "'model' is a folder, or a model of the Hugging Face hub that this machine can reach"
            ) from error
    return _loaded[key]


def _load(settings: LocalModel, *, sees: bool) -> LoadedModel:
    from dqe_resources.models.torchvision_cpu import ensure_torchvision

    ensure_torchvision()
    import torch
    from transformers import (
        AutoModelForCausalLM,
        AutoModelForImageTextToText,
        AutoModelForSeq2SeqLM,
        AutoProcessor,
        AutoTokenizer,
    )

    chosen = "cuda" if torch.cuda.is_available() else "cpu"
    device = chosen if settings.device == "auto" else settings.device
    named = ("float32" if device == "cpu" else "bfloat16") if settings.dtype == "auto" else settings.dtype
    dtype = getattr(torch, named)
    where = {"revision": settings.revision, "trust_remote_code": settings.trust_remote_code}
    # A vision-language model can be asked about text alone.
    of_text = (AutoModelForCausalLM, AutoModelForSeq2SeqLM, AutoModelForImageTextToText)
    model = _first(
        (AutoModelForImageTextToText, AutoModelForCausalLM) if sees else of_text, settings.model, dtype=dtype, **where
    )
    model = model.to(device).eval()
    if hasattr(model, "query"):
        return LoadedModel(model, None, device, dtype)
    processor = (AutoProcessor if sees else AutoTokenizer).from_pretrained(settings.model, **where)
    loaded = LoadedModel(model, processor, device, dtype)
    if not model.config.is_encoder_decoder:
        # What is generated begins where the prompts end.
        loaded.tokenizer.padding_side = "left"
    if loaded.tokenizer.pad_token is None:
        loaded.tokenizer.pad_token = loaded.tokenizer.eos_token
    return loaded


def _first(classes: Sequence[Any], name: str, **arguments: Any) -> Any:
    """The model, of the first class that knows its configuration."""
    for one in classes[:-1]:
        try:
            return one.from_pretrained(name, **arguments)
        except ValueError as error:
            if _OF_ANOTHER_CLASS not in str(error):
                raise
    return classes[-1].from_pretrained(name, **arguments)
