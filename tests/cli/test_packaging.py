"""What is installed: everything that the packages read, the license, and nothing that tells people of a name that no
index has."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from typing import TYPE_CHECKING

import pytest

from tests.conftest import ROOT

if TYPE_CHECKING:
    from pathlib import Path

PACKAGES = ("dqe_assets", "dqe_resources")
BUILT = ("pyproject.toml", "README.md", "LICENSE")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built of a copy: setuptools leaves files behind where it builds."""
    pytest.importorskip("setuptools", minversion="77")
    folder = tmp_path_factory.mktemp("wheel")
    for name in PACKAGES:
        shutil.copytree(ROOT / name, folder / "source" / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in BUILT:
        shutil.copy(ROOT / name, folder / "source")
    command = ["-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "--no-index", "--wheel-dir", "."]
    done = subprocess.run(
        [sys.executable, *command, "./source"], cwd=folder, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    (built,) = folder.glob("*.whl")
    return built


def test_a_wheel_has_every_file_of_the_packages_and_the_license(wheel: Path) -> None:
    found = set(zipfile.ZipFile(wheel).namelist())
    files = {
        path.relative_to(ROOT).as_posix()
        for package in PACKAGES
        for path in (ROOT / package).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert files <= found
    (license_file,) = [name for name in found if name.endswith(".dist-info/licenses/LICENSE")]
    assert zipfile.ZipFile(wheel).read(license_file) == (ROOT / "LICENSE").read_bytes()
    (metadata,) = [name for name in found if name.endswith(".dist-info/METADATA")]
    assert "License-Expression: Apache-2.0" in zipfile.ZipFile(wheel).read(metadata).decode()


def test_what_is_installed_begins_a_data_folder_of_its_own(wheel: Path, tmp_path: Path) -> None:
    zipfile.ZipFile(wheel).extractall(tmp_path / "site")
    (tmp_path / "images").mkdir()
    shutil.copy(ROOT / "docs" / "images" / "asset_graph.png", tmp_path / "images")
    done = subprocess.run(
        [sys.executable, "-m", "dqe_assets.cli", "init", "images"],
        cwd=tmp_path,
        env={**{k: v for k, v in os.environ.items() if k != "DQE_DATA"}, "PYTHONPATH": str(tmp_path / "site")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "a folder of 1 image" in done.stdout
    assert sorted(path.name for path in (tmp_path / "data").iterdir()) == ["dqe.schema.json", "dqe.yaml"]


def test_nothing_tells_people_to_install_a_name_that_no_index_has() -> None:
    files = [*ROOT.glob("*.*"), *(ROOT / "data").glob("*.yaml"), *(ROOT / "docs").rglob("*.md")]
    for package in PACKAGES:
        files += (ROOT / package).rglob("*.*")
    wrong = ("pip install data-quality-engine", "pip install 'data-quality-engine", 'pip install "data-quality-engine')
    texts = {path: path.read_text(errors="replace") for path in files if path.is_file() and path.suffix != ".pyc"}
    assert [str(path) for path, text in texts.items() if any(one in text for one in wrong)] == []
