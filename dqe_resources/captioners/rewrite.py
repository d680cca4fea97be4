"""The captioner that makes a caption of other captions, by a language model that sees no image."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from pydantic import Field

from dqe_resources.captioners.chat import ChatServer
from dqe_resources.captioners.chat_client import ChatClient
from dqe_resources.captioners.protocol import PromptedCaptioner
from dqe_resources.captioners.transformers_batches import WritingModel
from dqe_resources.captioners.transformers_model import TransformersModel, loaded_model
from dqe_resources.configurable import SerializeAsAny, matching, one_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from dqe_resources.captioners.protocol import Caption, Sample


class ServerWriter(ChatServer):
    """A language model behind a server with OpenAI's chat interface."""

    kind: ClassVar[str] = "openai"

    @property
    def label(self) -> str:
        """By its model."""
        return f"the writer {self.model}"

    def write(self, samples: Iterator[Sample]) -> Iterator[tuple[int, Caption]]:
        """As ``Captioner.caption``."""
        yield from ChatClient(self, samples).answers()


class TransformersWriter(TransformersModel):
    """A language model of Transformers in this process."""

    kind: ClassVar[str] = "transformers"

    def write(self, samples: Iterator[Sample]) -> Iterator[tuple[int, Caption]]:
        """As ``Captioner.caption``."""
        label = f"the writer {self.model}"
        yield from WritingModel(loaded_model(self, label, sees=False), self, label).answers(samples)


Placeholder = Annotated[
    str, matching(r"^[a-z][a-z0-9_]{0,63}$", "a name: a small letter a to z, then up to 63 small letters, digits and _")
]


class RewriteCaptioner(PromptedCaptioner):
    """Makes a caption of captions by a language model, which does not see the image.

    It can rewrite (LaCLIP, arXiv 2305.20088), join the names of the original with the description of a model
    (CapsFusion, 2310.20550; VeCap, 2310.07699), shorten or translate. A sample that has none of the captions gets none.

    Attributes:
        prompt: Name of the prompt: rewrite, fuse, shorten, translate, or your own file data/prompts/NAME.txt.
        inputs: The captions that it is made of. Each key stands in braces in the prompt ({caption} in rewrite, shorten
            and translate; {original_caption} and {description} in fuse), and its value is original or the name of a
            captioner that is listed before this one.
        writer: The language model.
    """

    kind: ClassVar[str] = "rewrite"
    asset: ClassVar[str] = "raw_samples"
    columns: ClassVar[tuple[str, ...]] = ("uid",)

    prompt: str = "rewrite"
    inputs: Annotated[dict[Placeholder, str], Field(min_length=1)] = Field(
        default_factory=lambda: {"caption": "original"}
    )
    writer: Annotated[SerializeAsAny[ServerWriter | TransformersWriter], one_of(ServerWriter, TransformersWriter)]

    @property
    def model_id(self) -> str:
        """The writer's name."""
        return self.writer.model

    @property
    def model_revision(self) -> str | None:
        """The revision that the settings name."""
        return self.writer.revision

    @property
    def captions_read(self) -> Mapping[str, str]:
        """As the settings say."""
        return self.inputs

    @property
    def pool(self) -> str | None:
        """That of all models in this process; for a server a pool of its own."""
        return super().pool if isinstance(self.writer, TransformersWriter) else f"captioner_{self.name}"

    @property
    def price_per_hour(self) -> float | None:
        """Of one GPU."""
        return self.price_per_gpu_hour

    def signature(self) -> dict[str, Any]:
        """The settings that change what it writes, those of the writer among them."""
        return {**super().signature(), "writer": self.writer.signature()}

    def caption(self, samples: Iterator[Sample]) -> Iterator[tuple[int, Caption]]:
        """As ``Captioner.caption``."""
        yield from self.writer.write(samples)
