"""Configured components: one class of settings and behaviour for each kind, chosen by ``kind`` in data/dqe.yaml."""

from __future__ import annotations

from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from docstring_parser import DocstringStyle, parse
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, SerializeAsAny, model_validator
from pydantic_core import PydanticCustomError, core_schema

from dqe_resources.cache import in_data_directory

if TYPE_CHECKING:
    from collections.abc import Iterator

    from docstring_parser import Docstring
    from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler
    from pydantic.json_schema import JsonSchemaValue
    from pydantic_core import ErrorDetails

__all__ = [
    "ComponentName",
    "Configurable",
    "ExistingPath",
    "FileName",
    "SerializeAsAny",
    "Strict",
    "existing_path",
    "files_may_be_away",
    "in_words",
    "is_away",
    "matching",
    "one_of",
]


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

    def __getstate__(self) -> dict[Any, Any]:
        """The settings alone: a worker loads for itself what is kept beside them."""
        state = super().__getstate__()
        return {**state, "__dict__": {name: state["__dict__"][name] for name in type(self).model_fields}}

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
    """Several kinds of component, one of which the key ``kind`` chooses; a name alone is one of the kind ``named``."""

    by_kind: dict[str, type[Configurable]] = field(hash=False)
    named: str | None = None

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> core_schema.CoreSchema:
        kinds = {kind: handler.generate_schema(cls) for kind, cls in self.by_kind.items()}
        described: core_schema.CoreSchema = core_schema.tagged_union_schema(kinds, "kind")
        written = core_schema.union_schema([described, core_schema.str_schema()]) if self.named else described
        return core_schema.no_info_before_validator_function(
            self.choose, handler(source), json_schema_input_schema=written
        )

    def __get_pydantic_json_schema__(
        self, schema: core_schema.CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        """One of the kinds, each with its key ``kind``, which is no field."""
        found = handler(schema)
        described = found["anyOf"][0] if self.named else found
        for (kind, cls), choice in zip(self.by_kind.items(), described["oneOf"], strict=True):
            settings = handler.resolve_ref_schema(choice)
            if "kind" not in settings["properties"]:
                chosen = {"const": kind, "description": _docstring(cls).short_description}
                settings["properties"] = {"kind": chosen, **settings["properties"]}
                settings["required"] = ["kind", *settings.get("required", ())]
        return found

    def choose(self, value: Any) -> Any:
        """The component that a mapping of settings describes; a component is taken as it is."""
        if isinstance(value, Configurable):
            return value
        if isinstance(value, str) and self.named:
            value = {"kind": self.named, "name": value}
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


def one_of(*kinds: type[Configurable], named: type[Configurable] | None = None) -> _OneOf:
    """Validates a setting that holds one of several kinds of component, chosen by its key ``kind``.

    For use as ``Annotated[SerializeAsAny[Scorer], one_of(LabelSpace, OpenClip)]``.

    Args:
        kinds: the kinds.
        named: the one of them that a text alone is, which is then its name.
    """
    return _OneOf({cls.kind: cls for cls in kinds}, named.kind if named else None)


def matching(pattern: str, words: str, *, max_length: int | None = None) -> Any:
    """A field of texts of a certain form.

    Args:
        pattern: a regular expression that the text matches.
        words: what the text is, for people: ``in_words`` says it of a text that does not match.
        max_length: characters, at most.
    """
    _FORMS[pattern] = words
    return Field(pattern=pattern, max_length=max_length)


_FORMS: dict[str, str] = {}

_FAULTS = {
    "string_type": "expected text",
    **dict.fromkeys(("int_type", "int_parsing", "int_from_float"), "expected a whole number"),
    **dict.fromkeys(("float_type", "float_parsing"), "expected a number"),
    "finite_number": "expected a finite number",
    **dict.fromkeys(("bool_type", "bool_parsing"), "expected true or false"),
    **dict.fromkeys(("list_type", "tuple_type", "set_type", "frozen_set_type"), "expected a list"),
    **dict.fromkeys(("dict_type", "mapping_type", "model_type", "model_attributes_type"), "expected keys with values"),
    "path_type": "expected a path",
    **dict.fromkeys(("literal_error", "enum"), "expected {expected}"),
    "greater_than": "must be above {gt}",
    "greater_than_equal": "must be at least {ge}",
    "less_than": "must be below {lt}",
    "less_than_equal": "must be at most {le}",
    "too_short": "needs at least {min_length} in the list",
    "too_long": "takes at most {max_length} in the list",
    "string_too_short": "needs at least {min_length} characters",
    "string_too_long": "takes at most {max_length} characters",
}


def in_words(fault: ErrorDetails) -> str:
    """What is wrong with a value, for people who write dqe.yaml; without the value itself."""
    values = fault.get("ctx", {})
    if fault["type"] == "string_pattern_mismatch":
        return f"expected {_FORMS.get(values['pattern'], 'text that matches ' + values['pattern'])}"
    if fault["msg"] == "Field required":  # faults of ours are of the type "missing" too
        return "is missing"
    if fault["type"] in _FAULTS:
        return _FAULTS[fault["type"]].format(**values)
    return fault["msg"].removeprefix("Value error, ")


_MAY_BE_AWAY: ContextVar[bool] = ContextVar("may_be_away", default=False)


@contextmanager
def files_may_be_away() -> Iterator[None]:
    """Take paths at their word while settings are read: who uses a file that is not there is told so then."""
    token = _MAY_BE_AWAY.set(True)
    try:
        yield
    finally:
        _MAY_BE_AWAY.reset(token)


def is_away(path: Path) -> bool:
    """Whether there is nothing at a path, and that is a fault now."""
    return not path.exists() and not _MAY_BE_AWAY.get()


def existing_path(path: Path) -> Path:
    """The path, from the data folder if it is relative.

    Raises:
        ValueError: there is nothing.
    """
    resolved = in_data_directory(path)
    if is_away(resolved):
        msg = f"there is nothing at {resolved}: give the path of an existing file or folder"
        raise ValueError(msg)
    return resolved


ExistingPath = Annotated[Path, AfterValidator(existing_path)]
"""A path that must exist (see ``files_may_be_away``); a relative one counts from the folder of dqe.yaml."""

ComponentName = Annotated[
    str, matching(r"^[A-Za-z][A-Za-z0-9_]{0,63}$", "a name: a letter a to z, then up to 63 letters, digits and _")
]
"""A name that is safe as a part of an asset key, a file name and a column name."""

FileName = Annotated[
    str,
    matching(
        r"^[a-z0-9][a-z0-9_-]*$",
        "a name: a small letter a to z or a digit, then small letters, digits, _ and -",
        max_length=60,
    ),
]
"""A name that is safe as a part of an asset key and a file name."""
