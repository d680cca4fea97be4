"""The JSON Schema of data/dqe.yaml, by which an editor completes and checks it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from pydantic.json_schema import GenerateJsonSchema

from dqe_assets.orchestration.settings import Settings

if TYPE_CHECKING:
    from pydantic.json_schema import JsonSchemaValue
    from pydantic_core import core_schema

SCHEMA_FILE = "dqe.schema.json"
"""Name of its file next to dqe.yaml, whose first line names it."""


class _SettingsSchema(GenerateJsonSchema):
    """Without a title for each field, which would only repeat its name."""

    def field_title_should_be_set(self, _schema: object) -> bool:
        return False

    def dict_schema(self, schema: core_schema.DictSchema) -> JsonSchemaValue:
        """Other keys than those of the pattern are refused, as they are when the file is loaded."""
        found = super().dict_schema(schema)
        return found | {"additionalProperties": False} if "patternProperties" in found else found


def settings_schema() -> dict[str, Any]:
    """The JSON Schema (draft 2020-12) of data/dqe.yaml: every key with its type, bounds, default and description."""
    schema = Settings.model_json_schema(schema_generator=_SettingsSchema)
    return {"$schema": GenerateJsonSchema.schema_dialect, **schema, "title": "Settings of the Data Quality Engine"}


def settings_schema_text() -> str:
    """``settings_schema`` as it is written to a file."""
    return json.dumps(settings_schema(), indent=1, ensure_ascii=False) + "\n"
