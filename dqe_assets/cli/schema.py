"""``dqe schema``: the JSON Schema of dqe.yaml."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dqe_assets.cli.terminal import clear_errors, say_written


def schema(
    out: Annotated[Path | None, typer.Option(metavar="FILE", help="Write it to a file instead of printing it.")] = None,
) -> None:
    """Print the JSON Schema of dqe.yaml: every key, what it means, and what it may be."""
    with clear_errors():
        from dqe_assets.cli.settings_schema import settings_schema_text
        from dqe_resources.store import replace_file

        text = settings_schema_text()
        if out is None:
            typer.echo(text, nl=False)
            return
        replace_file(out, lambda target: target.write(text.encode()))
        say_written(out)
