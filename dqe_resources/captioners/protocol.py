"""The interface of a captioner."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Self

from pydantic import Field

from dqe_resources.configurable import ComponentName, Configurable
from dqe_resources.errors import DataQualityError, WholeRunError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping


class CaptionerError(DataQualityError):
    """A captioner cannot go on: says what it asked, what came back last, and what to do."""

    def with_progress(self, finished: int, total: int, what: str) -> Self:
        """The same error, with how much of the shard is kept and that it can go on: for the caller that keeps it."""
        return type(self)(
            f"{str(self).rstrip('.')}. {finished:,} of {total:,} {what} are finished and kept: "
            "fix it and materialise the same shard again, which asks for the rest"
        )


class NoCaptionerError(CaptionerError, WholeRunError):
    """There is no captioner to ask, whatever the sample: its server is away, refuses the key, or lacks the model."""


@dataclass(frozen=True, slots=True)
class Sample:
    """The input of a captioner for one image.

    Attributes:
        values: the columns that the captioner reads.
        image: for a captioner that sees the image, a JPEG whose longest side is at most its ``image_longest_side``.
        prompt: for a captioner that sees the image, the prompt in full.
        seed: seed of the sampling, in place of the captioner's.
    """

    values: Mapping[str, Any] = field(default_factory=dict)
    image: bytes = b""
    prompt: str = ""
    seed: int | None = None


@dataclass(frozen=True, slots=True)
class Caption:
    """One generated caption, or why there is none.

    Attributes:
        text: the caption as generated, without thoughts and special tokens; None if there is none.
        finish_reason: ``stop``, ``length`` where it was cut at the most tokens allowed, ``error``, or ``unparsable``
            where a judge's answers were not of the form that it was asked for.
        error: the last error, if finish_reason is ``error`` or ``unparsable``.
        prompt_tokens: tokens of prompt and image; None if nobody counted.
        completion_tokens: tokens of the text; None if nobody counted.
        seconds: from asking the model to its whole answer; None if no model ran.
        attempts: how often the model was asked; None if no model ran.
        model: the model that wrote it, where that is not the captioner's for every sample.
        removed: what was taken out of what the model wrote: see ``answer_text``.
        asked: what the model was asked in place of the prompt, such as a task token; empty if it was given the image
            alone; None if it was asked with the prompt.
    """

    text: str | None
    finish_reason: Literal["stop", "length", "error", "unparsable"] = "stop"
    error: str | None = None
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    seconds: float | None = None
    attempts: int | None = None
    model: str | None = None
    removed: tuple[str, ...] = ()
    asked: str | None = None


class Captioner(Configurable):
    """Writes a caption for an image. Each captioner in data/dqe.yaml is its own asset ``synthetic_captions/<name>``.

    Attributes:
        name: Name of the captioner: of the asset ``synthetic_captions/<name>``, and of its captions in every table.
        min_coverage: Share of the samples with an image that must have a caption. Below it, the asset's check fails.
        image_backbones: Image backbones inside the model, such as ViT-B-32. A scorer that shares one cannot judge its
            captions.
        license: Licence of the model. It is published with its captions and changes nothing made with it.
    """

    asset: ClassVar[str]
    """The asset that it reads, which has one row for each sample: ``raw_samples``, ``image_features``."""
    columns: ClassVar[tuple[str, ...]]
    """The columns that it reads of it."""
    read_column: ClassVar[str] = "caption"
    """The column that it reads of other captions."""
    without_effect: ClassVar[frozenset[str]] = frozenset({"min_coverage", "image_backbones"})

    name: ComponentName
    min_coverage: Annotated[float, Field(ge=0, le=1)] = 0.98
    image_backbones: tuple[str, ...] = ()
    license: Annotated[str | None, Field(exclude=True)] = None

    @property
    @abstractmethod
    def model_id(self) -> str:
        """Name and version of the model, kept with every caption."""

    @property
    def model_revision(self) -> str | None:
        """Revision of the model's weights, where someone said which."""
        return None

    @property
    def more_sources(self) -> tuple[Captioner, ...]:
        """Caption sources that are made of what it writes, each a captioner that reads its texts."""
        return ()

    def spoken(self, text: str) -> str:
        """The caption in a text that it has written, where that holds more."""
        return text

    @property
    def captions_read(self) -> Mapping[str, str]:
        """The caption sources that it reads, by the names under which a sample has their captions."""
        return {}

    @property
    def backbones(self) -> frozenset[str]:
        """The image backbones inside: a preference by a scorer that shares one with a captioner proves nothing."""
        return frozenset(self.image_backbones)

    @property
    def pool(self) -> str | None:
        """Dagster pool of its steps, whose limit holds for all runs together; by default that of all models."""
        return "model"

    @property
    def price_per_hour(self) -> float | None:
        """What an hour of captioning costs, if it is known."""
        return None

    @abstractmethod
    def caption(self, samples: Iterator[Sample]) -> Iterator[tuple[int, Caption]]:
        """Captions as they are finished, in any order, each with its sample's place among those given, from 0.

        Every sample gets one caption, if only one with ``finish_reason`` ``error``. Samples are taken as they are
        needed, since images are decoded while that happens; a captioner may take them in another thread, one at a
        time. Closing the iterator ends what is under way.

        Args:
            samples: samples that have an image.

        Raises:
            CaptionerError: no sample can be captioned any more, such as when a server has gone.
        """


class AskedModel(Configurable):
    """A model that is given a prompt.

    Attributes:
        model: Name or path of the model, as its server knows it.
        revision: Revision of the weights: a commit, or your own words. It is kept with all that the model writes.
        concurrency: Answers under way at once, at most.
    """

    without_effect: ClassVar[frozenset[str]] = frozenset({"concurrency"})

    model: Annotated[str, Field(min_length=1)]
    revision: str | None = None
    concurrency: Annotated[int, Field(ge=1, le=4096)] = 64


class LanguageModel(AskedModel):
    """A model that is given a prompt and writes an answer.

    Attributes:
        max_tokens: Tokens after which an answer is cut.
        temperature: Temperature of the sampling; 0 takes the most probable answer.
        seed: Seed of the sampling, where the temperature is above 0.
        repetition_ngram_size: Length of the runs of tokens that must not repeat endlessly; null for no such guard.
        repetition_ngram_threshold: How often such a run may come before the answer is ended.
    """

    max_tokens: Annotated[int, Field(ge=1)] = 512
    temperature: Annotated[float, Field(ge=0, le=2)] = 0.0
    seed: int | None = None
    repetition_ngram_size: Annotated[int, Field(ge=1)] | None = None
    repetition_ngram_threshold: Annotated[int, Field(ge=1)] | None = None


class SeeingModel(AskedModel):
    """A model that is given an image and a prompt.

    Attributes:
        image_longest_side: Longest side of the image that the model is given, in pixels. Larger images are made
            smaller.
    """

    image_longest_side: Annotated[int, Field(ge=16, le=8192)] = 1024


class VisionModel(SeeingModel, LanguageModel):
    """A vision-language model that is given an image and a prompt, and writes an answer."""

    without_effect: ClassVar[frozenset[str]] = SeeingModel.without_effect | LanguageModel.without_effect


class PromptedCaptioner(Captioner):
    """A captioner that is a model asked with a prompt.

    Attributes:
        prompt: Name of the prompt: default, short, hint, refine, or your own file data/prompts/NAME.txt.
        checkpoint_every: Captions after which what is done is saved: a kill loses no more than these.
        price_per_gpu_hour: What a GPU costs for an hour, for the accounting.
    """

    without_effect: ClassVar[frozenset[str]] = Captioner.without_effect | {
        "prompt",  # by name; its text is, by hash
        "checkpoint_every",
        "price_per_gpu_hour",
    }

    prompt: str = "default"
    checkpoint_every: Annotated[int, Field(ge=1)] = 100
    price_per_gpu_hour: Annotated[float, Field(ge=0)] | None = None


class VisionCaptioner(VisionModel, PromptedCaptioner):
    """A captioner that sees the image: a vision-language model that is asked with a prompt."""

    asset: ClassVar[str] = "raw_samples"
    columns: ClassVar[tuple[str, ...]] = ("caption", "image")
    without_effect: ClassVar[frozenset[str]] = VisionModel.without_effect | PromptedCaptioner.without_effect

    @property
    def model_id(self) -> str:
        """The model's name."""
        return self.model

    @property
    def model_revision(self) -> str | None:
        """The revision that the settings name."""
        return self.revision
