"""Tars as they are written: as the standard library would, and read again."""

from __future__ import annotations

import io
import tarfile
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dqe_assets.training.tar_files import TarError, files_of, opened, write_files

if TYPE_CHECKING:
    from pathlib import Path

FILES = [
    ("00ff-0.jpg", b"a picture" * 100),
    ("00ff-0.txt", "höher".encode()),
    ("00ff-0.json", b""),
    ("é" * 50, b"x" * 512),
]


def by_the_standard_library(files: list[tuple[str, bytes]]) -> bytes:
    """The same tar."""
    target = io.BytesIO()
    with tarfile.open(fileobj=target, mode="w|", format=tarfile.USTAR_FORMAT) as tar:
        for name, data in files:
            info = tarfile.TarInfo(name)
            info.size, info.mode = len(data), 0o444
            tar.addfile(info, io.BytesIO(data))
    return target.getvalue()


names = st.text("abcé0123456789.-_", min_size=1, max_size=50)


@given(st.lists(st.tuples(names, st.binary(max_size=1500)), max_size=30))
def test_what_is_written_has_the_bytes_that_the_standard_library_writes(files: list[tuple[str, bytes]]) -> None:
    target = io.BytesIO()
    write_files(target, files)
    assert target.getvalue() == by_the_standard_library(files)


def test_what_was_written_is_read_again(tmp_path: Path) -> None:
    path = tmp_path / "a.tar"
    with path.open("wb") as target:
        write_files(target, FILES)
    with opened(path) as data:
        assert [(name, data[place]) for name, place in files_of(data, path)] == FILES


@pytest.mark.parametrize("kept", [700, 512 + 1024 + 100])
def test_a_torn_tar_is_named(tmp_path: Path, kept: int) -> None:
    path = tmp_path / "a.tar"
    path.write_bytes(by_the_standard_library(FILES)[:kept])
    with opened(path) as data, pytest.raises(TarError, match=r"a\.tar: at byte"):
        list(files_of(data, path))


def test_another_kind_of_tar_is_named(tmp_path: Path) -> None:
    path = tmp_path / "a.tar"
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as tar:
        info = tarfile.TarInfo("n" * 200)
        tar.addfile(info, io.BytesIO())
    with opened(path) as data, pytest.raises(TarError, match="no plain file"):
        list(files_of(data, path))


def test_a_name_that_is_too_long_is_refused() -> None:
    with pytest.raises(ValueError, match="101"):
        write_files(io.BytesIO(), [("n" * 101, b"")])
