"""What every command prints with: tables, progress, errors of one line, and what to do next.

Names, captions and messages are not ours. They reach a terminal by ``say`` and ``print_table`` alone, which show them
by ``printable``: see ``dqe_resources/printable.py``.
"""

from __future__ import annotations

import os
import re
import shutil
import sys
import time
import traceback
from contextlib import contextmanager
from datetime import datetime
from decimal import Decimal
from enum import IntEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import click
import typer
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Span, Text

from dqe_resources.printable import printable, quoted

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import pyarrow as pa
    from rich.progress import Progress

    from dqe_resources.progress import Step

_SAY_EVERY_SECONDS = 30.0
_HOLE = "\ue000"
_NOT_IN_JSON = re.compile("[\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff\ufff9-\ufffb]")

STOPPED = "stopped; finished work is kept. To go on, run the same command again"
"""What a command says that Ctrl-C or SIGTERM has ended."""

console = Console(highlight=False, emoji=False)
errors = Console(stderr=True, highlight=False, emoji=False)


class ExitCode(IntEnum):
    """How a command ends; and as shells count it, by Ctrl-C with 130, and by SIGTERM with 143."""

    DONE = 0
    FAILED = 1
    """Something went wrong, or what is asked for is not there yet."""
    WRONG_USAGE = 2
    """The command line or dqe.yaml is wrong. Click uses it too."""


def say(ours: str, *foreign: object, to: Console | None = None, style: str = "", wrap: bool = False) -> None:
    """Print a line.

    Args:
        ours: words of ours, in rich's markup; each ``{}`` in them stands for one of the others.
        foreign: whatever else is in the line, printed as it stands: no markup, and nothing that a terminal obeys.
        to: where; by default the standard output.
        style: of the whole line.
        wrap: whether a line too long for the terminal is broken between words. What is to be copied is not.
    """
    (to or console).print(_filled(ours, foreign), style=style, soft_wrap=not wrap)


def _filled(ours: str, foreign: tuple[object, ...]) -> Text:
    text = Text.from_markup(ours.replace("{}", _HOLE), emoji=False)
    holes = [place for place, character in enumerate(text.plain) if character == _HOLE]
    filled = Text()
    start = 0
    for hole, value in zip(holes, foreign, strict=True):
        shown = printable(str(value))
        filled.append_text(text[start:hole])
        filled.append_text(Text(shown, spans=[Span(0, len(shown), span.style) for span in text[hole].spans]))
        start = hole + 1
    return filled.append_text(text[start:])


def fail(message: str, code: ExitCode = ExitCode.WRONG_USAGE) -> NoReturn:
    """End the command with a line that says why."""
    say("[red]error:[/red] {}", message, to=errors)
    raise typer.Exit(code)


@contextmanager
def clear_errors() -> Iterator[None]:
    """Every error that a person can fix is one line for each fault; what remains is ours, and has a traceback.

    Ctrl-C and SIGTERM end the command with a line that says how to go on.
    """
    from dqe_resources import stopping
    from dqe_resources.errors import DataQualityError, UsageError, of_whole_run
    from dqe_resources.warehouse import damage_in_words

    with stopping.stoppable(STOPPED):
        try:
            yield
        except (typer.Exit, click.exceptions.ClickException):
            raise
        except Exception as error:
            if stopping.requested():
                raise
            if isinstance(error, DataQualityError | ValueError):
                for line in str(error).splitlines():
                    say("[red]error:[/red] {}", line, to=errors)
                is_usage = isinstance(error, UsageError | ValueError)
                raise typer.Exit(ExitCode.WRONG_USAGE if is_usage else ExitCode.FAILED) from None
            if (why := of_whole_run(error) or damage_in_words(str(error))) is not None:
                fail(why, ExitCode.FAILED)
            # What Python itself would print, but for what a terminal would obey in it.
            for line in traceback.format_exc().splitlines():
                say("{}", line, to=errors)
            raise typer.Exit(ExitCode.FAILED) from None


@contextmanager
def counting(what: str) -> Iterator[Callable[[int, int], None]]:
    """A bar for one piece of work, or now and then a line if there is no terminal; on the error stream.

    Gives a function to call with the number done and the total.
    """
    if errors.is_terminal:
        with _bars(errors) as bars:
            task = bars.add_task(printable(what), total=None, note="")
            yield lambda done, total: bars.update(task, completed=done, total=total)
        return
    said = time.monotonic()

    def tell(done: int, total: int) -> None:
        nonlocal said
        if time.monotonic() - said >= _SAY_EVERY_SECONDS:
            said = time.monotonic()
            say("{}: {} of {}", what, f"{done:,}", f"{total:,}", to=errors)

    yield tell


@contextmanager
def progress_bars() -> Iterator[None]:
    """A bar for what runs, a line for what has ended."""
    from dqe_resources import progress

    with _bars(console) as bars:
        tasks: dict[tuple[str, str | None], Any] = {}

        def show(step: Step) -> None:
            key = (step.asset, step.partition)
            name = printable(f"{step.asset:<28} {step.partition or 'all shards'}")
            if key not in tasks:
                tasks[key] = bars.add_task(name, total=None, note="")
            if step.outcome is None:
                bars.update(tasks[key], completed=step.done, total=step.total or None, note=printable(step.note))
                return
            bars.remove_task(tasks.pop(key))
            failed = step.outcome.startswith("failed")
            mark = "[red]✗[/red]" if failed else "[green]✓[/green]"
            say(f"{mark} {{}}  [dim]{{}}[/dim]", name, step.outcome, to=bars.console)

        with progress.listen(show):
            yield


@contextmanager
def progress_by_shard() -> Iterator[None]:
    """A bar for the shard that runs, a line for each that has ended; without a terminal, a line for each asset."""
    from dqe_resources import progress

    if not console.is_terminal:
        with progress_bars():
            yield
        return
    with _bars(console) as bars:
        running: _ShardLine | None = None

        def show(step: Step) -> None:
            nonlocal running
            shard = step.partition or "all shards"
            if running is None or running.shard != shard:
                if running is not None:
                    running.end()
                running = _ShardLine(bars, shard)
            running.show(step)

        with progress.listen(show):
            yield
        if running is not None:
            running.end()


class _ShardLine:
    """What is shown of a shard, whose assets are made one after another."""

    def __init__(self, bars: Progress, shard: str) -> None:
        self.shard = shard
        self._bars, self._began, self._ended = bars, time.monotonic(), 0
        self._failed: list[str] = []
        self._task = bars.add_task(f"{shard:<16}", total=None, note="")

    def show(self, step: Step) -> None:
        """Show how far an asset is, or that it has ended."""
        self._bars.update(
            self._task, completed=step.done, total=step.total or None, note=printable(f"{step.asset} {step.note}")
        )
        if step.outcome is not None:
            self._ended += 1
            self._failed += [f"{step.asset} {step.outcome}"] if step.outcome.startswith("failed") else []

    def end(self) -> None:
        """Say what has become of it."""
        self._bars.remove_task(self._task)
        mark = "[red]✗[/red]" if self._failed else "[green]✓[/green]"
        said = "; ".join(self._failed) or f"{self._ended} assets, {time.monotonic() - self._began:.0f} s"
        say(f"{mark} {{}}  [dim]{{}}[/dim]", f"{self.shard:<16}", said, to=self._bars.console)


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

    class RateColumn(ProgressColumn):
        def render(self, task: Any) -> Text:
            return Text(f"{task.speed:,.0f}/s" if task.speed else "")

    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=20),
        MofNCompleteColumn(),
        RateColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}", style="dim", markup=False),
    )
    return Progress(*columns, console=where, transient=True)


def say_next(*commands: str) -> None:
    """The last line of every command: what to do next, as it is to be typed here.

    Args:
        commands: each as ``dqe_resources.printable.command`` makes it, if there are names in it.
    """
    say(f"Next: {', '.join(['[b]{}[/b]'] * len(commands))}", *map(as_typed, commands))


def as_typed(one: str) -> str:
    """A command as it is to be typed here, where ``dqe`` is perhaps not on the path."""
    program = Path(sys.argv[0])
    is_elsewhere = program.name == "dqe" and shutil.which("dqe") != str(program)
    return one.replace("dqe", quoted(os.path.relpath(program)), 1) if is_elsewhere else one


def say_written(path: Path, what: str = "") -> None:
    """Say that a file was written, and what is in it."""
    say("{}written to {}", f"{what} " if what else "", path)


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
    # An escape of JSON stands for the same character, and no terminal obeys it.
    typer.echo(_NOT_IN_JSON.sub(lambda match: f"\\u{ord(match[0]):04x}", text.decode()))


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


def print_table(data: pa.Table) -> None:
    """A table that fits the terminal, whatever its columns: see ``dqe_assets.cli.layout``."""
    from dqe_assets.cli.layout import Column, lay_out

    columns = [
        # With spaces, a heading wraps between words.
        Column(
            printable(name.replace("_", " ")),
            [printable(_cell(value)) for value in values.to_pylist()],
            _is_text(values.type),
        )
        for name, values in zip(data.column_names, data.columns, strict=True)
    ]
    for part in lay_out(columns, console.width):
        table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 0, 0, 1))
        for column, width in part:
            table.add_column(
                Text(column.heading), justify="left" if column.wraps else "right", width=width, overflow="fold"
            )
        for row in zip(*(column.cells for column, _ in part), strict=True):
            table.add_row(*map(Text, row))
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
            return str(value)
