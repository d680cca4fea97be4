"""What benchmarks share: the machine's name, a table, and a row of JSON for each figure."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import tempfile
import time
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table

from dqe_resources.cache import data_directory

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

RESULTS = Path(__file__).parent / "results"

_VERSIONS = ("dagster", "numpy", "onnxruntime", "pillow", "pyarrow", "qdrant-edge-py")


def machine() -> dict[str, Any]:
    """The machine as far as it explains a figure: processor, cores this process may use, memory in GiB."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {
        "cpu": _cpu(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "memory_gib": round(memory / 2**30, 1),
    }


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that decide the speed."""
    return {"python": platform.python_version(), **{name: version(name) for name in _VERSIONS}}


@contextmanager
def data_folder() -> Iterator[Path]:
    """A data folder that is removed in the end, with the converted models of the one that was configured before."""
    cache, before = data_directory() / "cache", os.environ.get("DQE_DATA")
    with TemporaryDirectory() as name:
        if cache.is_dir():
            Path(name, "cache").symlink_to(cache)
        os.environ["DQE_DATA"] = name
        try:
            yield Path(name)
        finally:
            if before is None:
                del os.environ["DQE_DATA"]
            else:
                os.environ["DQE_DATA"] = before


def peak_mib() -> float:
    """Peak memory of this process and of those that it has started, from Linux's own count of each."""
    processes = [
        "self",
        *(pid for task in Path("/proc/self/task").iterdir() for pid in (task / "children").read_text().split()),
    ]
    lines = [line for pid in processes for line in Path(f"/proc/{pid}/status").read_text().splitlines()]
    return sum(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1024


def measured(command: Sequence[str]) -> tuple[dict[str, float], str]:
    """Run a command; returns its CPU seconds and its peak memory in MiB, and what it has printed.

    Its memory, and that of the processes that it starts, is what they take beyond files that they map (RssAnon), looked
    at a hundred times a second.

    Raises:
        RuntimeError: it failed; with the end of what it has printed.
    """
    peak = 0.0
    with tempfile.TemporaryFile() as printed:
        process = subprocess.Popen(command, stdout=printed, stderr=subprocess.STDOUT)  # noqa: S603
        while True:
            ended, status, usage = os.wait4(process.pid, os.WNOHANG)
            if ended:
                break
            peak = max(peak, _anonymous_mib(process.pid))
            time.sleep(0.01)
        process.returncode = os.waitstatus_to_exitcode(status)
        printed.seek(0)
        text = printed.read().decode(errors="replace")
    if process.returncode:
        raise RuntimeError(f"{' '.join(command)} failed:\n{text[-2_000:]}")
    return {"cpu_seconds": usage.ru_utime + usage.ru_stime, "peak_mib": peak}, text


def _anonymous_mib(pid: int | str) -> float:
    """Memory of a process and of those that it has started; 0 once it has ended."""
    total = 0.0
    with suppress(OSError):
        lines = Path(f"/proc/{pid}/status").read_text(encoding="utf-8").splitlines()
        total = sum(int(line.split()[1]) for line in lines if line.startswith("RssAnon")) / 1024
        for task in Path(f"/proc/{pid}/task").iterdir():
            total += sum(map(_anonymous_mib, (task / "children").read_text().split()))
    return total


def publish(
    name: str,
    columns: Sequence[str],
    rows: Sequence[Mapping[str, Any]],
    title: str,
    *,
    show: bool = True,
    keep: bool = True,
) -> None:
    """Print rows as a table, and append each as a line of JSON to results/<name>.jsonl, with machine and versions.

    Args:
        name: of the results file.
        columns: the keys to show.
        rows: a figure each.
        title: of the table.
        show: print them.
        keep: append them.
    """
    here = machine()
    table = Table(title=title, title_justify="left", caption=", ".join(f"{key} {value}" for key, value in here.items()))
    for column in columns:
        numeric = any(isinstance(row.get(column), int | float) for row in rows)
        table.add_column(column.replace("_", " "), justify="right" if numeric else "left")
    for row in rows:
        table.add_row(*(_cell(row.get(column)) for column in columns))
    if show:
        Console(width=140).print(table)
    if not keep:
        return
    RESULTS.mkdir(exist_ok=True)
    when = datetime.now(UTC).isoformat(timespec="seconds")
    with (RESULTS / f"{name}.jsonl").open("a", encoding="utf-8") as file:
        for row in rows:
            file.write(json.dumps({**row, "machine": here, "versions": versions(), "when": when}) + "\n")


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.machine())


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:,.3f}" if abs(value) < 10 else f"{value:,.1f}"
    return f"{value:,}" if isinstance(value, int) else str(value)
