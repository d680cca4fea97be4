"""Settings as Dagster resources: people see them in the UI and can change them for a run in the launchpad."""

# Dagster and pydantic read the annotations of these classes as they are, so they cannot be postponed in this module.

import types
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Union, get_args, get_origin

import dagster as dg
from pydantic import Field, create_model

from dqe_resources.configurable import Strict
from dqe_resources.store import Store
from dqe_resources.web_url import without_credentials

RUN_OPTIONS = "run_options"
"""Key of the resource with what holds for one run."""

WORKERS = "workers"
"""Key of the resource with the workers that shards are given to; it is None where there are none."""

_PLAIN = (bool, int, float, str)


class RunOptions(dg.ConfigurableResource):  # type: ignore[type-arg]
    """Options of one run."""

    force: bool = Field(default=False, description="make again what is current")


class StoreResource(dg.ConfigurableResource):  # type: ignore[type-arg]
    """The store: Parquet files and manifests."""

    root: str = Field(description="folder or fsspec URL under which each asset has its partitions")

    def create_resource(self, context: dg.InitResourceContext) -> Any:  # noqa: ARG002 - as Dagster calls it
        """The store that stages read and write."""
        return Store(self.root)


class SettingsResource(dg.ConfigurableResource):  # type: ignore[type-arg]
    """Base of the resources that ``as_resource`` makes."""

    settings: ClassVar[Strict]

    def create_resource(self, context: dg.InitResourceContext) -> Any:  # noqa: ARG002 - as Dagster calls it
        """The settings, or what they configure, with what the launchpad has changed."""
        return _changed(type(self).settings, {name: getattr(self, name) for name in type(self).model_fields})


def as_resource(settings: Strict) -> SettingsResource:
    """A resource with the fields of these settings; a run gets the settings with its own changes.

    Numbers, texts, choices, lists of these, and nested ones can be changed in the launchpad. Secrets, and URLs with a
    user or a password, are not shown.
    """
    kind = type(settings)
    model = create_model(
        f"{kind.__name__}Resource", __base__=SettingsResource, __doc__=kind.__doc__, **_fields(settings)
    )
    model.settings = settings
    return model()


def _fields(settings: Strict) -> dict[str, Any]:
    """Type, value and meaning of every field that can be shown, as ``create_model`` takes them."""
    found: dict[str, Any] = {}
    for name, field in type(settings).model_fields.items():
        value = getattr(settings, name)
        if isinstance(value, str) and without_credentials(value) != value:
            continue
        if isinstance(value, Strict):
            nested = create_model(type(value).__name__, __base__=dg.Config, **_fields(value))
            kind, default = nested, nested()
        else:
            kind, default = _shown_type(field.annotation), _plain(value)
        if kind is not None:
            found[name] = (kind, Field(default=default, description=field.description))
    return found


def _shown_type(annotation: Any) -> Any:  # noqa: PLR0911 - one for each form of type
    """The type that Dagster's configuration has for it; None if it has none, or it is a secret."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if annotation in _PLAIN:
        return annotation
    if annotation is Path:
        return str
    if origin is Annotated:
        return _shown_type(arguments[0])
    if origin is Literal:
        return _only({type(one) for one in arguments})
    if origin in (types.UnionType, Union):
        shown = _only({_shown_type(one) for one in arguments if one is not type(None)})
        return shown | None if shown is not None and type(None) in arguments else shown
    if origin in (list, tuple) and _shown_type(arguments[0]) in _PLAIN:
        return list[_shown_type(arguments[0])]  # type: ignore[misc]
    return None


def _only(found: set[Any]) -> Any:
    """The one that there is; None if there are several."""
    return next(iter(found)) if len(found) == 1 else None


def _plain(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    return str(value) if isinstance(value, Path) else value


def _changed(settings: Strict, values: Mapping[str, Any]) -> Strict:
    """The settings with these values, checked as those of the file are."""
    before = {name: getattr(settings, name) for name in type(settings).model_fields}
    changed: dict[str, Any] = {}
    for name, value in values.items():
        one = before[name]
        after = _changed(one, dict(value)) if isinstance(one, Strict) else value
        if after != _plain(one):
            changed[name] = after
    return type(settings).model_validate(before | changed) if changed else settings
