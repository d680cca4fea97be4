"""Configured components: one class of settings and behaviour for each kind, chosen by ``kind`` in data/dqe.yaml."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, ClassVar

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, SerializeAsAny, model_validator
from pydantic_core import PydanticCustomError

from dqe_resources.cache import in_data_directory

__all__ = ["Configurable", "ExistingPath", "SerializeAsAny", "Strict", "one_of"]


class Strict(BaseModel):
    """Settings that refuse a key they do not know, and say which they do."""

    model_config = ConfigDict(extra="forbid", frozen=True)

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


def one_of(*kinds: type[Configurable]) -> BeforeValidator:
    """Validates a setting that holds one of several kinds of component, chosen by its key ``kind``.

    For use as ``Annotated[SerializeAsAny[Scorer], one_of(LabelSpace, OpenClip)]``.
    """
    by_kind = {cls.kind: cls for cls in kinds}

    def choose(value: Any) -> Any:
        if isinstance(value, Configurable):
            return value
        allowed = ", ".join(sorted(by_kind))
        if not isinstance(value, dict) or "kind" not in value:
            raise PydanticCustomError("kind", "needs the key 'kind', one of: {allowed}", {"allowed": allowed})
        settings = dict(value)
        kind = settings.pop("kind")
        if kind not in by_kind:
            raise PydanticCustomError(
                "kind", "kind '{kind}' is not known; allowed: {allowed}", {"kind": str(kind), "allowed": allowed}
            )
        return by_kind[kind].model_validate(settings)

    return BeforeValidator(choose)


def _existing_path(path: Path) -> Path:
    resolved = in_data_directory(path)
    if not resolved.exists():
        msg = f"there is nothing at {resolved}: give the path of an existing file or folder"
        raise ValueError(msg)
    return resolved


ExistingPath = Annotated[Path, AfterValidator(_existing_path)]
"""A path that must exist; a relative one counts from the folder of dqe.yaml."""
