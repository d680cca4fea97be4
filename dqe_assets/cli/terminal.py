"""What every command prints with: tables, progress, errors of one line, and what to do next."""

from __future__ import annotations

import os
import re
import shutil
import sys
import time
from contextlib import contextmanager
from datetime import datetime
from decimal import Decimal
from enum import IntEnum
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

console = Console()
errors = Console(stderr=True)


class ExitCode(IntEnum):
    """How a command ends."""

    DONE = 0
    FAILED = 1
    """Something went wrong, or what is asked for is not there yet."""
    WRONG_USAGE = 2
    """The command line or dqe.yaml is wrong. Click uses it too."""
    STOPPED = 130
    """Ctrl-C, as shells count it."""


def fail(message: str, code: ExitCode = ExitCode.WRONG_USAGE) -> NoReturn:
    """End the command with a line that says why."""
    errors.print(f"[red]error:[/red] {escape(message)}", soft_wrap=True, highlight=False)
    raise typer.Exit(code)


@contextmanager
def clear_errors() -> Iterator[None]:
    """Every error that a person can fix is one line for each fault; what remains is a fault of ours."""
    from dqe_resources.errors import DataQualityError, UsageError

    try:
        yield
    except (DataQualityError, ValueError) as error:
        for line in str(error).splitlines():
            errors.print(f"[red]error:[/red] {shown(line)}", soft_wrap=True, highlight=False)
        is_usage = isinstance(error, UsageError | ValueError)
        raise typer.Exit(ExitCode.WRONG_USAGE if is_usage else ExitCode.FAILED) from None
    except KeyboardInterrupt:
        errors.print("stopped; finished work is kept. To go on, run the same command again")
        raise typer.Exit(ExitCode.STOPPED) from None


@contextmanager
def counting(what: str) -> Iterator[Callable[[int, int], None]]:
    """A bar for one piece of work, or now and then a line if there is no terminal; on the error stream.

    Gives a function to call with the number done and the total.
    """
    if errors.is_terminal:
        with _bars(errors) as bars:
            task = bars.add_task(what, total=None, note="")
            yield lambda done, total: bars.update(task, completed=done, total=total)
        return
    said = time.monotonic()

    def say(done: int, total: int) -> None:
        nonlocal said
        if time.monotonic() - said >= _SAY_EVERY_SECONDS:
            said = time.monotonic()
            errors.print(f"{what}: {done:,} of {total:,}", highlight=False)

    yield say


@contextmanager
def progress_bars() -> Iterator[None]:
    """A bar for what runs, a line for what has ended."""
    from dqe_resources import progress

    with _bars(console) as bars:
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


def _bars(where: Console) -> Progress:
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
    return Progress(*columns, console=where, transient=True)


def say_next(*commands: str) -> None:
    """The last line of every command: what to do next, as it is to be typed here."""
    program = Path(sys.argv[0])
    is_elsewhere = program.name == "dqe" and shutil.which("dqe") != str(program)
    typed = os.path.relpath(program) if is_elsewhere else "dqe"
    console.print(
        "Next: " + ", ".join(f"[b]{command.replace('dqe', typed, 1)}[/b]" for command in commands), soft_wrap=True
    )


def say_written(path: Path, what: str = "") -> None:
    """Say that a file was written, and what is in it."""
    console.print(
        f"{f'{escape(what)} ' if what else ''}written to {escape(str(path))}", soft_wrap=True, highlight=False
    )


def json_option(keys: str) -> Any:
    """The option ``--json`` of a command.

    Args:
        keys: of the document, for its help.
    """
    return typer.Option("--json", help=f"Print one JSON document and nothing else to stdout: {keys}")


def print_json(document: Any) -> None:
    """The document of ``--json``: of Arrow tables the rows; numbers as numbers; times in ISO 8601.

    What JSON has no number for (NaN and infinity) is null, bytes are base64, and a duration is in seconds.
    """
    from pydantic_core import to_json

    text = to_json(
        document, indent=2, inf_nan_mode="null", bytes_mode="base64", timedelta_mode="float", fallback=_plain
    )
    typer.echo(text.decode())


def _plain(value: Any) -> Any:
    """What pydantic does not know: a table as its rows, a number of NumPy's as one of Python's."""
    import pyarrow as pa

    if isinstance(value, pa.Table):
        return [{name: _number(cell) for name, cell in row.items()} for row in value.to_pylist()]
    return value.item()


def _number(value: Any) -> Any:
    """A decimal, as DuckDB's sums are, as a number that JSON has."""
    if not isinstance(value, Decimal):
        return value
    return int(value) if value == value.to_integral_value() else float(value)


def shown(text: str) -> str:
    """Text from anywhere as it stands: without markup, or control characters that a terminal would obey."""
    return escape(without_control(text))


def without_control(text: str) -> str:
    """Text without the control characters that a terminal would obey."""
    return _CONTROL.sub(" ", text)


def print_table(data: pa.Table) -> None:
    """A table that fits the terminal, whatever its columns: see ``dqe_assets.cli.layout``."""
    from dqe_assets.cli.layout import Column, lay_out

    columns = [
        # With spaces, a heading wraps between words.
        Column(name.replace("_", " "), [_cell(value) for value in values.to_pylist()], _is_text(values.type))
        for name, values in zip(data.column_names, data.columns, strict=True)
    ]
    for part in lay_out(columns, console.width):
        table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 0, 0, 1))
        for column, width in part:
            table.add_column(
                escape(column.heading), justify="left" if column.wraps else "right", width=width, overflow="fold"
            )
        for row in zip(*(column.cells for column, _ in part), strict=True):
            table.add_row(*map(escape, row))
        console.print(table)


def print_upright(data: pa.Table) -> None:
    """The rows of a table with a field in each line, those that are null left out."""
    import pyarrow as pa

    fields = [(name, value) for row in data.to_pylist() for name, value in row.items() if value is not None]
    values = [f"{value:.4g}" if isinstance(value, float) else _cell(value) for _, value in fields]
    print_table(pa.table({"field": [name for name, _ in fields], "value": values}))


def _is_text(kind: pa.DataType) -> bool:
    import pyarrow.types as kinds

    return not (kinds.is_integer(kind) or kinds.is_floating(kind) or kinds.is_decimal(kind))


def _cell(value: Any) -> str:
    match value:
        case None:
            return ""
        case bool():
            return "yes" if value else "no"
        case int() | float():
            return f"{value:,}" if isinstance(value, int) else f"{value:.3f}"
        case datetime():
            return f"{value:%Y-%m-%d %H:%M:%S}"
        case list() | tuple():
            return ", ".join(map(_cell, value))
        case _:
            return without_control(str(value))
