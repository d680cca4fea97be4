"""What every command prints with: tables, progress, errors of one line, and what to do next."""

from __future__ import annotations

import os
import re
import shutil
import sys
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import typer
from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import pyarrow as pa
    from rich.progress import Progress

    from dqe_resources.progress import Step

_SAY_EVERY_SECONDS = 30.0
_CONTROL = re.compile(r"[\x00-\x09\x0b-\x1f\x7f-\x9f]")
_LEFT = frozenset({"string", "bool", "timestamp[us, tz=UTC]"})

console = Console()
errors = Console(stderr=True)


def fail(message: str) -> NoReturn:
    """End the command: what was asked for cannot be meant."""
    errors.print(f"[red]error:[/red] {escape(message)}", soft_wrap=True, highlight=False)
    raise typer.Exit(2)


@contextmanager
def clear_errors() -> Iterator[None]:
    """Every error that a person can mend is one line for each fault; what remains is a fault of ours."""
    from dqe_resources.errors import DataQualityError

    try:
        yield
    except (DataQualityError, ValueError) as error:
        for line in str(error).splitlines():
            errors.print(f"[red]error:[/red] {shown(line)}", soft_wrap=True, highlight=False)
        raise typer.Exit(1) from None
    except KeyboardInterrupt:
        errors.print("stopped; what is finished is kept: run the same command again to go on")
        raise typer.Exit(130) from None


@contextmanager
def counting(what: str) -> Iterator[Callable[[int, int], None]]:
    """A bar for one piece of work, or now and then a line where there is no terminal.

    Gives what is to be told how much of how much is done.
    """
    if console.is_terminal:
        with _bars() as bars:
            task = bars.add_task(what, total=None, note="")
            yield lambda done, total: bars.update(task, completed=done, total=total)
        return
    said = time.monotonic()

    def say(done: int, total: int) -> None:
        nonlocal said
        if time.monotonic() - said >= _SAY_EVERY_SECONDS:
            said = time.monotonic()
            console.print(f"{what}: {done:,} of {total:,}", highlight=False)

    yield say


@contextmanager
def progress_bars() -> Iterator[None]:
    """A bar for what runs, a line for what has ended."""
    from dqe_resources import progress

    with _bars() as bars:
        tasks: dict[tuple[str, str | None], Any] = {}

        def show(step: Step) -> None:
            key = (step.asset, step.partition)
            name = f"{step.asset:<28} {step.partition or 'all shards'}"
            if key not in tasks:
                tasks[key] = bars.add_task(name, total=None, note="")
            if step.outcome is None:
                bars.update(tasks[key], completed=step.done, total=step.total or None, note=step.note)
                return
            bars.remove_task(tasks.pop(key))
            failed = step.outcome.startswith("failed")
            mark, style = ("✗", "red") if failed else ("✓", "green")
            bars.console.print(f"[{style}]{mark}[/{style}] {name}  [dim]{escape(step.outcome)}[/dim]", highlight=False)

        with progress.listen(show):
            yield


def _bars() -> Progress:
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        ProgressColumn,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )
    from rich.text import Text

    class RateColumn(ProgressColumn):
        def render(self, task: Any) -> Text:
            return Text(f"{task.speed:,.0f}/s" if task.speed else "")

    columns = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=20),
        MofNCompleteColumn(),
        RateColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}", style="dim"),
    )
    return Progress(*columns, console=console, transient=True)


def say_next(*commands: str) -> None:
    """The last line of every command: what to do next, as it is to be typed here."""
    program = Path(sys.argv[0])
    is_elsewhere = program.name == "dqe" and shutil.which("dqe") != str(program)
    typed = os.path.relpath(program) if is_elsewhere else "dqe"
    console.print(
        "Next: " + ", ".join(f"[b]{command.replace('dqe', typed, 1)}[/b]" for command in commands), soft_wrap=True
    )


def shown(text: str) -> str:
    """Text from anywhere as it stands: without markup, or control characters that a terminal would obey."""
    return escape(_CONTROL.sub(" ", text))


def print_table(data: pa.Table) -> None:
    """A table for the terminal."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 0, 0, 1))
    for name, kind in zip(data.column_names, data.schema.types, strict=True):
        # With spaces, a heading wraps between words where the terminal is narrow.
        table.add_column(name.replace("_", " "), justify="left" if str(kind) in _LEFT else "right", overflow="fold")
    for row in zip(*(column.to_pylist() for column in data.columns), strict=True):
        table.add_row(*(_cell(value) for value in row))
    console.print(table)


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.3f}"
    return shown(f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value))
