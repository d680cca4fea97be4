"""What the shell completes: names of assets and shards, from the folders of a store on this machine."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from dqe_resources.cache import data_directory

if TYPE_CHECKING:
    from collections.abc import Iterator


def asset_names(incomplete: str) -> list[str]:
    """Assets that the store has something of."""
    store = _store()
    names = {folder.relative_to(store).as_posix() for folder, _ in _files(store)} if store else set()
    return sorted(name for name in names if name.startswith(incomplete))


def shard_keys(incomplete: str) -> list[str]:
    """Shards that the store has rows of."""
    store = _store()
    names = {name for _, name in _files(store / "raw_samples")} if store else set()
    return sorted(name for name in names if name.startswith(incomplete))


def run_keys(incomplete: str) -> list[str]:
    """Training runs that the data folder has something of."""
    folder = data_directory() / "training"
    return sorted(path.name for path in folder.glob("*") if path.is_dir() and path.name.startswith(incomplete))


def _files(store: Path) -> Iterator[tuple[Path, str]]:
    for folder, folders, files in os.walk(store):
        folders[:] = [name for name in folders if not name.startswith(".")]
        yield from ((Path(folder), Path(name).stem) for name in files if not name.startswith("."))


def _store() -> Path | None:
    """The folder of the store; None if it is on another machine or cannot be found."""
    import yaml

    try:
        configured = yaml.safe_load((data_directory() / "dqe.yaml").read_text(encoding="utf-8"))
        place = str(os.environ.get("DQE_STORE") or configured.get("store") or "store")
    except (OSError, ValueError, AttributeError, yaml.YAMLError):
        return None
    return None if "://" in place else data_directory() / place
