"""What tests share: a data folder of their own, and model files that are converted only once."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

ROOT = Path(__file__).parent.parent
SBU = ROOT.parent / "shared" / "data" / "sbu"


@pytest.fixture(scope="session")
def model_cache() -> Path:
    """Converted models, kept between sessions beside what make demo keeps."""
    cache = ROOT / "data" / "cache"
    cache.mkdir(parents=True, exist_ok=True)
    return cache


@pytest.fixture
def data(tmp_path: Path, model_cache: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A data folder with the project's own settings and nothing made yet."""
    return make_data_folder(tmp_path / "data", model_cache, monkeypatch.setenv)


def make_data_folder(folder: Path, model_cache: Path, setenv: Callable[[str, str], None]) -> Path:
    folder.mkdir(parents=True)
    shutil.copy(ROOT / "data" / "dqe.yaml", folder)
    (folder / "cache").symlink_to(model_cache)
    setenv("DQE_DATA", str(folder))
    setenv("DAGSTER_HOME", str(folder / "dagster_home"))
    return folder


@pytest.fixture(scope="session")
def sbu() -> Path:
    """Real SBU photos and captions."""
    if not SBU.is_dir():
        pytest.skip(f"no real SBU data at {SBU}")
    return SBU
