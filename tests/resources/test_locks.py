from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from dqe_resources.locks import HeldError, LockError, file_alone, folder_alone, held, hold_open

if TYPE_CHECKING:
    from pathlib import Path

HOLDER = """
import sys
from pathlib import Path
from dqe_resources.locks import held
with held(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def lock(tmp_path: Path) -> Path:
    return tmp_path / "lock"


def holder(lock: Path) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(lock)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


def test_a_lock_ends_with_the_process_that_holds_it(lock: Path) -> None:
    with holder(lock) as process:
        with pytest.raises(HeldError, match=f"another process holds {lock}"), held(lock, wait=0.1):
            pass
        process.kill()
        process.wait()
        with held(lock, wait=10):
            assert lock.exists()
    assert not lock.exists(), "nothing is left"


def test_who_waits_gets_it_once_it_is_free_and_then_alone(lock: Path) -> None:
    with holder(lock) as process:
        assert process.stdin is not None
        process.stdin.close()
        with held(lock):
            # The holder has removed its file meanwhile: what is held now is the one that is there.
            with pytest.raises(HeldError), held(lock, wait=0):
                pass
            assert process.wait() == 0
            with pytest.raises(HeldError), held(lock, wait=0):
                pass


def test_two_runs_do_not_write_to_one_place(tmp_path: Path) -> None:
    folder, file = tmp_path / "some" / "folder", tmp_path / "other" / "file"
    with folder_alone(folder), file_alone(file):
        with pytest.raises(HeldError, match=f"{folder}: another run is writing to it"), folder_alone(folder):
            pass
        with pytest.raises(HeldError, match=f"{file}: another run is writing to it"), file_alone(file):
            pass
    assert not list(folder.iterdir())
    assert not list(file.parent.iterdir())


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(LockError, match="file: cannot be written"), folder_alone(tmp_path / "file"):
        pass
    with pytest.raises(LockError, match="below: cannot be written"), file_alone(tmp_path / "file" / "below"):
        pass


def test_an_open_file_is_held_until_it_is_closed(tmp_path: Path) -> None:
    path = tmp_path / "file"
    with path.open("wb") as mine:
        assert hold_open(mine)
        with path.open("rb") as other:
            assert not hold_open(other)
    with path.open("rb") as other:
        assert hold_open(other)
