"""Configured components: one class of settings and behaviour for each kind, chosen by ``kind`` in data/dqe.yaml."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from docstring_parser import DocstringStyle, parse
from pydantic import AfterValidator, BaseModel, ConfigDict, SerializeAsAny, model_validator
from pydantic_core import PydanticCustomError, core_schema

from dqe_resources.cache import in_data_directory

if TYPE_CHECKING:
    from docstring_parser import Docstring
    from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler
    from pydantic.json_schema import JsonSchemaValue

__all__ = ["Configurable", "ExistingPath", "SerializeAsAny", "Strict", "one_of"]


@cache
def _docstring(cls: type) -> Docstring:
    return parse(cls.__doc__ or "", DocstringStyle.GOOGLE)


def _on_one_line(text: str | None) -> str | None:
    return " ".join(text.split()) if text else None


class Strict(BaseModel):
    """Settings that refuse unknown keys and say which keys are allowed.

    A subclass describes its fields under "Attributes:" in its docstring. These texts are the fields' descriptions in
    the JSON Schema of dqe.yaml and in Dagster's UI.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> core_schema.CoreSchema:
        """Describe the fields first: the schema that is built here holds their descriptions."""
        for base in reversed(cls.__mro__):
            for attribute in _docstring(base).params if issubclass(base, BaseModel) else ():
                if attribute.arg_name in cls.__pydantic_fields__:
                    cls.__pydantic_fields__[attribute.arg_name].description = _on_one_line(attribute.description)
        return handler(source)

    @classmethod
    def __get_pydantic_json_schema__(
        cls, schema: core_schema.CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        """The JSON Schema, described by the docstring without its list of fields."""
        found = handler(schema)
        docstring = _docstring(cls)
        paragraphs = (docstring.short_description, docstring.long_description)
        handler.resolve_ref_schema(found)["description"] = "\n\n".join(filter(None, paragraphs))
        return found

    @model_validator(mode="before")
    @classmethod
    def _refuse_unknown_keys(cls, value: Any) -> Any:
        if isinstance(value, dict):
            unknown = sorted(set(map(str, value)) - set(cls.model_fields))
            if unknown:
                raise PydanticCustomError(
                    "unknown_key",
                    "unknown key {unknown}; allowed: {allowed}",
                    {
                        "unknown": ", ".join(f"'{key}'" for key in unknown),
                        "allowed": ", ".join(sorted(cls.model_fields)),
                    },
                )
        return value


class Configurable(Strict):
    """Something that data/dqe.yaml configures: its fields are the settings, its methods the behaviour.

    A component is cheap to build: what is heavy is imported and loaded when it is first used.
    """

    kind: ClassVar[str]
    without_effect: ClassVar[frozenset[str]] = frozenset()
    """Settings that change nothing that it produces, and so are no part of the signature."""

    def signature(self) -> dict[str, Any]:
        """The settings that change what it produces: part of the fingerprint of everything made with it."""
        return {"kind": self.kind, **self.model_dump(mode="json", exclude=set(self.without_effect))}


@dataclass(frozen=True, slots=True)
class _OneOf:
    """Several kinds of component, one of which the key ``kind`` chooses."""

    by_kind: dict[str, type[Configurable]]

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> core_schema.CoreSchema:
        kinds = {kind: handler.generate_schema(cls) for kind, cls in self.by_kind.items()}
        return core_schema.no_info_before_validator_function(
            self.choose, handler(source), json_schema_input_schema=core_schema.tagged_union_schema(kinds, "kind")
        )

    def __get_pydantic_json_schema__(
        self, schema: core_schema.CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        """One of the kinds, each with its key ``kind``, which is no field."""
        found = handler(schema)
        for (kind, cls), choice in zip(self.by_kind.items(), found["oneOf"], strict=True):
            settings = handler.resolve_ref_schema(choice)
            if "kind" not in settings["properties"]:
                described = {"const": kind, "description": _docstring(cls).short_description}
                settings["properties"] = {"kind": described, **settings["properties"]}
                settings["required"] = ["kind", *settings.get("required", ())]
        return found

    def choose(self, value: Any) -> Any:
        """The component that a mapping of settings describes; a component is taken as it is."""
        if isinstance(value, Configurable):
            return value
        allowed = ", ".join(sorted(self.by_kind))
        if not isinstance(value, dict) or "kind" not in value:
            raise PydanticCustomError("kind", "needs the key 'kind', one of: {allowed}", {"allowed": allowed})
        settings = dict(value)
        kind = settings.pop("kind")
        if kind not in self.by_kind:
            raise PydanticCustomError(
                "kind", "kind '{kind}' is not known; allowed: {allowed}", {"kind": str(kind), "allowed": allowed}
            )
        return self.by_kind[kind].model_validate(settings)


def one_of(*kinds: type[Configurable]) -> _OneOf:
    """Validates a setting that holds one of several kinds of component, chosen by its key ``kind``.

    For use as ``Annotated[SerializeAsAny[Scorer], one_of(LabelSpace, OpenClip)]``.
    """
    return _OneOf({cls.kind: cls for cls in kinds})


def _existing_path(path: Path) -> Path:
    resolved = in_data_directory(path)
    if not resolved.exists():
        msg = f"there is nothing at {resolved}: give the path of an existing file or folder"
        raise ValueError(msg)
    return resolved


ExistingPath = Annotated[Path, AfterValidator(_existing_path)]
"""A path that must exist; a relative one counts from the folder of dqe.yaml."""
