"""``dqe summary``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dqe_assets.cli.terminal import clear_errors, json_option, print_json, say
from dqe_assets.publish.options import BEST


def summary(
    where: Annotated[
        str, typer.Option(help="SQL condition over the table samples of the warehouse: what is trained on.")
    ] = "true",
    caption: Annotated[str, typer.Option(help="best, original, or the name of a captioner or a mix.")] = BEST,
    out: Annotated[Path, typer.Option(help="Markdown file to write.")] = Path("training_content.md"),
    *,
    as_json: Annotated[
        bool, json_option("the sections of the Commission's template; null where something is to be filled in.")
    ] = False,
) -> None:
    """Write the public summary of training content that the EU's AI Act asks for, as far as it is known here.

    It is no legal advice. What is not known here is marked, to be filled in.
    """
    with clear_errors():
        from dqe_assets.orchestration.settings import load_settings
        from dqe_assets.publish.summary import TO_BE_FILLED_IN, as_markdown
        from dqe_assets.publish.summary import summary as summed
        from dqe_resources.store import replace_file

        settings = load_settings(sources_may_be_away=True)
        with settings.warehouse.session() as query:
            found = summed(query, settings, where, caption)
        if as_json:
            print_json(found)
            return
        text = as_markdown(found)
        replace_file(out, lambda target: target.write(text.encode()))
        say(
            f"[b]{{}}[/b]: {text.count(TO_BE_FILLED_IN) - 1} places are marked {TO_BE_FILLED_IN}. "
            "This is no legal advice.",
            str(out),
        )
