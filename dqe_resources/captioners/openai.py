"""The captioner that asks a server: any with the chat interface of OpenAI, such as lmdeploy, vLLM, SGLang or Ollama."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, ClassVar

from pydantic import Field

from dqe_resources.captioners.chat import ChatModel
from dqe_resources.captioners.chat_client import ChatClient
from dqe_resources.captioners.protocol import VisionCaptioner

if TYPE_CHECKING:
    from collections.abc import Iterator

    from dqe_resources.captioners.protocol import Caption, Sample


class OpenAICaptioner(ChatModel, VisionCaptioner):
    """Asks a server for each caption, many at once, and takes the answers as they come.

    Attributes:
        gpus: GPUs that the server runs on, for the accounting.
    """

    kind: ClassVar[str] = "openai"
    without_effect: ClassVar[frozenset[str]] = ChatModel.without_effect | VisionCaptioner.without_effect | {"gpus"}

    gpus: Annotated[int, Field(ge=1)] = 1

    @property
    def label(self) -> str:
        """By its name."""
        return f"captioner {self.name}"

    @property
    def pool(self) -> str | None:
        """A pool of its own: its limit is the number of runs that ask this server at once."""
        return f"captioner_{self.name}"

    @property
    def price_per_hour(self) -> float | None:
        """The price of all GPUs."""
        return None if self.price_per_gpu_hour is None else self.price_per_gpu_hour * self.gpus

    def caption(self, samples: Iterator[Sample]) -> Iterator[tuple[int, Caption]]:
        """As ``Captioner.caption``."""
        yield from ChatClient(self, samples).answers()
