"""The processes of this machine, told apart also when a later one gets the number of an earlier one."""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

_PROCESSES = Path("/proc")


@dataclass(frozen=True, slots=True)
class Process:
    """A process that has not ended.

    Attributes:
        pid: its number, which a later process may get again.
        parent: the number of the process that started it, or of the one that took it over.
        session: the number of its session.
        began: when it began, in the kernel's ticks: no other process has both this number and this time.
    """

    pid: int
    parent: int
    session: int
    began: str

    @property
    def started_at(self) -> float:
        """When it began, in seconds since 1970, to a second or so."""
        lines = (_PROCESSES / "stat").read_text(encoding="ascii").splitlines()
        boot = next(int(line.split()[1]) for line in lines if line.startswith("btime "))
        return boot + int(self.began) / os.sysconf("SC_CLK_TCK")

    @property
    def command(self) -> list[str]:
        """What it runs, with its arguments; empty once it has ended."""
        with contextlib.suppress(OSError):
            data = (_PROCESSES / str(self.pid) / "cmdline").read_bytes()
            return data.decode(errors="surrogateescape").split("\0")[:-1]
        return []


def private_bytes() -> int:
    """Memory of this process that is its own, and not a file's; 0 where the system does not say."""
    with contextlib.suppress(OSError):
        _, resident, shared, *_ = (_PROCESSES / "self" / "statm").read_text(encoding="ascii").split()
        return (int(resident) - int(shared)) * os.sysconf("SC_PAGE_SIZE")
    return 0


def process(pid: int) -> Process | None:
    """A process by its number; None if none has it, or if it has ended and only waits to be taken note of."""
    with contextlib.suppress(OSError):
        text = (_PROCESSES / str(pid) / "stat").read_text(encoding="utf-8", errors="replace")
        # The name stands in brackets and may hold anything, brackets too.
        values = text.rpartition(")")[2].split()
        if values[0] not in {"Z", "X"}:
            return Process(pid, int(values[1]), int(values[3]), values[19])
    return None


def processes() -> Iterator[Process]:
    """All processes of this machine."""
    for entry in _PROCESSES.glob("[0-9]*"):
        if found := process(int(entry.name)):
            yield found


def below(pid: int) -> list[Process]:
    """The processes that a process has started, and those that these have started."""
    there = list(processes())
    found: list[Process] = []
    parents = {pid}
    while children := [one for one in there if one.parent in parents and one not in found]:
        found += children
        parents = {one.pid for one in children}
    return found
