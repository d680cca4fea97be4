"""Several captions of an image in one answer: how they are asked for, and the caption source that each of them is."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, ClassVar

from dqe_resources.captioners.json_client import JsonClient, UnparsableError, json_in
from dqe_resources.captioners.protocol import Caption, Captioner

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from dqe_resources.captioners.chat import ChatModel
    from dqe_resources.captioners.protocol import Sample


def fields_schema(fields: Mapping[str, str]) -> dict[str, Any]:
    """The JSON schema of an answer with these fields, each with what it is to be."""
    return {
        "type": "object",
        "properties": {name: {"type": "string", "description": meaning} for name, meaning in fields.items()},
        "required": list(fields),
        "additionalProperties": False,
    }


def fields_request(fields: Mapping[str, str]) -> str:
    """What is added to the prompt: a server that keeps to a schema does not show it to the model."""
    lines = "\n".join(f'- "{name}": {meaning}' for name, meaning in fields.items())
    return f"Answer with a JSON object alone, with these keys, the value of each a text:\n{lines}"


def read_fields(text: str, fields: Mapping[str, str]) -> dict[str, str]:
    """The captions in an answer by their fields; a list of texts is joined by commas.

    Raises:
        UnparsableError: it is no JSON object, or a field is missing, no text or blank.
    """
    try:
        answer = json.loads(json_in(text))
    except (ValueError, RecursionError) as error:
        raise UnparsableError(str(error) if isinstance(error, UnparsableError) else "it is no JSON") from error
    found = {}
    for name in fields:
        value = answer.get(name)
        if isinstance(value, list) and all(isinstance(one, str) for one in value):
            value = ", ".join(value)
        if not isinstance(value, str) or not value.strip():
            raise UnparsableError(f"{name} is missing, or no text")
        found[name] = value
    return found


class FieldsClient(JsonClient):
    """A client whose answers have fields."""

    setting: ClassVar[str] = "json_schema of the captioner"

    def __init__(self, model: ChatModel, samples: Iterator[Sample], fields: Mapping[str, str]) -> None:
        super().__init__(model, samples)
        self._fields = fields

    def check(self, index: int, text: str) -> None:  # noqa: ARG002 - all samples have the same
        """As ``JsonClient.check``."""
        read_fields(text, self._fields)


class FieldCaptioner(Captioner):
    """One of the captions that a model has written of an image in one answer.

    It is made by the settings, for each field of a captioner but the first.

    Attributes:
        of: Name of the captioner.
        field: Which of its fields.
        model: Its model.
        revision: Its revision.
    """

    kind: ClassVar[str] = "field"
    asset: ClassVar[str] = "raw_samples"
    columns: ClassVar[tuple[str, ...]] = ("uid",)
    read_column: ClassVar[str] = "text"

    of: str
    field: str
    model: str
    revision: str | None = None

    @property
    def model_id(self) -> str:
        """The model that wrote the answer."""
        return self.model

    @property
    def model_revision(self) -> str | None:
        """Its revision."""
        return self.revision

    @property
    def captions_read(self) -> Mapping[str, str]:
        """The whole answers."""
        return {"answer": self.of}

    @property
    def pool(self) -> str | None:
        """None: nothing is run."""
        return None

    def caption(self, samples: Iterator[Sample]) -> Iterator[tuple[int, Caption]]:
        """The caption in each answer, in order; an error where there is no answer."""
        for place, sample in enumerate(samples):
            try:
                found = read_fields(sample.values["answer"] or "", {self.field: ""})
                yield place, Caption(found[self.field])
            except UnparsableError as error:
                yield place, Caption(None, "error", f"{self.of} has no such caption: {error}")
