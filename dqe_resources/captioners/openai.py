"""The captioner that asks a server: any with the chat interface of OpenAI, such as lmdeploy, vLLM, SGLang or Ollama."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from pydantic import Field

from dqe_resources.captioners.chat import ChatModel
from dqe_resources.captioners.chat_client import ChatClient
from dqe_resources.captioners.fields import (
    FieldCaptioner,
    FieldsClient,
    fields_request,
    fields_schema,
    read_fields,
)
from dqe_resources.captioners.json_client import UnparsableError
from dqe_resources.captioners.protocol import VisionCaptioner
from dqe_resources.configurable import matching

if TYPE_CHECKING:
    from collections.abc import Iterator

    from dqe_resources.captioners.protocol import Caption, Captioner, Sample

FieldName = Annotated[
    str, matching(r"^[a-z][a-z0-9_]{0,31}$", "a name: a small letter a to z, then up to 31 small letters, digits and _")
]


class OpenAICaptioner(ChatModel, VisionCaptioner):
    """Asks a server for each caption, many at once, and takes the answers as they come.

    Attributes:
        gpus: GPUs that the server runs on, for the accounting.
        fields: Several captions of each image in one answer: what each is to be, by its name, such as {short: one
            sentence, tags: ten tags}. The first is this captioner's caption, and each other one is a caption source of
            its own, called NAME_FIELD.
        json_schema: Whether the server is asked for ``fields`` by a schema; false for one that refuses
            ``response_format``.
    """

    kind: ClassVar[str] = "openai"
    without_effect: ClassVar[frozenset[str]] = ChatModel.without_effect | VisionCaptioner.without_effect | {"gpus"}

    gpus: Annotated[int, Field(ge=1)] = 1
    fields: dict[FieldName, Annotated[str, Field(min_length=1)]] = Field(default_factory=dict)
    json_schema: bool = True

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

    @property
    def more_sources(self) -> tuple[Captioner, ...]:
        """A caption source for each field but the first."""
        return tuple(
            FieldCaptioner(
                name=f"{self.name}_{field}",
                min_coverage=self.min_coverage,
                image_backbones=self.image_backbones,
                of=self.name,
                field=field,
                model=self.model,
                revision=self.revision,
            )
            for field in list(self.fields)[1:]
        )

    def signature(self) -> dict[str, Any]:
        """The settings that change what it writes."""
        found = super().signature()
        # Captions from before there were fields stay.
        return found if self.fields else {name: found[name] for name in found if name not in {"fields", "json_schema"}}

    def request(self, sample: Sample) -> dict[str, Any]:
        """The request for one sample, with the form of the answer where it has fields."""
        if not self.fields:
            return super().request(sample)
        request = super().request(replace(sample, prompt=f"{sample.prompt}\n\n{fields_request(self.fields)}"))
        schema = {"name": "captions", "strict": True, "schema": fields_schema(self.fields)}
        wanted = {"response_format": {"type": "json_schema", "json_schema": schema}} if self.json_schema else {}
        # Before what the settings say, which may say another.
        return wanted | request

    def spoken(self, text: str) -> str:
        """The first field of an answer with fields."""
        if not self.fields:
            return text
        first = next(iter(self.fields))
        try:
            return read_fields(text, {first: ""})[first]
        except UnparsableError:
            return ""

    def caption(self, samples: Iterator[Sample]) -> Iterator[tuple[int, Caption]]:
        """As ``Captioner.caption``."""
        client = FieldsClient(self, samples, self.fields) if self.fields else ChatClient(self, samples)
        for place, caption in client.answers():
            yield place, replace(caption, finish_reason="error") if caption.finish_reason == "unparsable" else caption
