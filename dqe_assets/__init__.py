"""Know, improve and choose image-caption data: the stages, and functions for notebooks and programs.

``import dqe_assets as dqe`` loads nothing yet. ``dqe.open("data")`` reads what was made; ``dqe.quality``,
``dqe.score``, ``dqe.text_quality`` and ``dqe.find_duplicates`` measure data that is in no store.
"""

import sys
from importlib import import_module
from types import ModuleType
from typing import Any

_FUNCTIONS = {
    "open": ("dqe_assets.api.opened", "open_data"),
    "quality": ("dqe_assets.api.quality", "quality"),
    "score": ("dqe_assets.api.quality", "score"),
    "text_quality": ("dqe_assets.api.quality", "text_quality"),
    "find_duplicates": ("dqe_assets.api.duplicates", "find_duplicates"),
}

__all__ = ["find_duplicates", "open", "quality", "score", "text_quality"]


def _function(name: str) -> Any:
    module, function = _FUNCTIONS[name]
    return getattr(import_module(module), function)


def __getattr__(name: str) -> Any:
    if name in _FOLDERS:
        return import_module(f"{__name__}.{name}")
    if name in _FUNCTIONS:
        return _function(name)
    msg = f"module {__name__!r} has no attribute {name!r}"
    raise AttributeError(msg)


def __dir__() -> list[str]:
    return sorted({*globals(), *_FUNCTIONS})


_FOLDERS = frozenset({"score"})
"""Functions whose name is a stage's too."""


class _Folder(ModuleType):
    """A stage that can be called, as the function of its name."""

    def __call__(self, *arguments: Any, **named: Any) -> Any:
        return _function(self.__name__.rpartition(".")[2])(*arguments, **named)


class _Package(ModuleType):
    """This package: Python sets a folder as its attribute once something in it is imported."""

    def __setattr__(self, name: str, value: Any) -> None:
        if name in _FOLDERS and isinstance(value, ModuleType):
            value.__class__ = _Folder
        super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package
