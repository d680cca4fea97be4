from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(autouse=True)
def data_folder(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A data folder of the test's own, so that no index outlives it."""
    folder = tmp_path_factory.mktemp("data")
    monkeypatch.setenv("DQE_DATA", str(folder))
    return folder
