"""What every command prints with: errors of one line, and what to do next."""

from __future__ import annotations

import os
import shutil
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import typer
from rich.console import Console
from rich.markup import escape

if TYPE_CHECKING:
    from collections.abc import Iterator

console = Console()
errors = Console(stderr=True)


@contextmanager
def clear_errors() -> Iterator[None]:
    """Every error that a person can mend is one line for each fault; what remains is a fault of ours."""
    from dqe_resources.errors import DataQualityError

    try:
        yield
    except (DataQualityError, ValueError) as error:
        for line in str(error).splitlines():
            errors.print(f"[red]error:[/red] {escape(line)}", soft_wrap=True, highlight=False)
        raise typer.Exit(1) from None
    except KeyboardInterrupt:
        errors.print("stopped; what is finished is kept: run the same command again to go on")
        raise typer.Exit(130) from None


def say_next(*commands: str) -> None:
    """The last line of every command: what to do next, as it is to be typed here."""
    program = Path(sys.argv[0])
    typed = "dqe" if shutil.which("dqe") == str(program) or program.suffix == ".py" else os.path.relpath(program)
    console.print(
        "Next: " + ", ".join(f"[b]{command.replace('dqe', typed, 1)}[/b]" for command in commands), soft_wrap=True
    )
