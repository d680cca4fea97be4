from __future__ import annotations

import os
from typing import TYPE_CHECKING

from dqe_resources.store import is_as_written, what_is_written, written

if TYPE_CHECKING:
    from pathlib import Path

    import pytest


def test_a_file_is_as_written_while_each_of_its_bytes_is(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"content")
    facts = what_is_written(path)
    assert facts["bytes"] == 7
    assert is_as_written(path, facts)
    for other in (b"", b"contenT", b"conten", b"contents"):
        path.write_bytes(other)
        assert not is_as_written(path, facts)
    path.unlink()
    assert not is_as_written(path, facts)
    path.write_bytes(b"content")
    assert is_as_written(path, facts)
    assert not is_as_written(path, {}), "an earlier version of this project wrote no such facts"


def test_a_large_file_is_read_again_only_if_it_may_have_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(written, "_LARGE", 4)
    path = tmp_path / "file"
    path.write_bytes(b"content")
    facts = what_is_written(path)
    read: list[Path] = []

    def watched(one: Path) -> dict[str, object]:
        read.append(one)
        return what_is_written(one)

    monkeypatch.setattr(written, "what_is_written", watched)
    for _ in range(3):
        assert is_as_written(path, facts)
    assert len(read) == 1
    before = path.stat()
    path.write_bytes(b"contenT")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert not is_as_written(path, facts), "not even if it is hidden when it was changed"
    path.write_bytes(b"content")
    assert is_as_written(path, facts)
    assert len(read) == 3
