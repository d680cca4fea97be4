"""``dqe captions``: what models wrote, side by side."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dqe_assets.cli.terminal import clear_errors, console, say_next, say_written

captions = typer.Typer(no_args_is_help=True, help="The captions of all sources: compare them.")


@captions.callback()
def main() -> None:
    """Keep ``compare`` a command of its own."""


@captions.command()
def compare(
    sources: Annotated[
        list[str] | None, typer.Argument(help="Caption sources: original, captioners' names; by default all.")
    ] = None,
    *,
    out: Annotated[Path, typer.Option(metavar="FILE", help="The page.")] = Path("data/captions.html"),
    images: Annotated[int, typer.Option(min=0, max=200, help="Images shown with all their captions.")] = 20,
) -> None:
    """Write one HTML page of the captioners side by side: cost, fit, truth, grounding, and the same images by all."""
    with clear_errors():
        from dqe_assets.orchestration.settings import load_settings
        from dqe_assets.report.assets import stored_images
        from dqe_assets.report.captions_page import render_captions
        from dqe_assets.report.gallery import GalleryInputs
        from dqe_resources.store import replace_file

        settings = load_settings(sources_may_be_away=True)
        store = settings.opened_store
        with settings.warehouse.connect() as connection:
            inputs = GalleryInputs(
                connection, lambda uids: stored_images(store, connection, uids), title="Captions compared"
            )
            text = render_captions(inputs, tuple(sources or ()), images)
        replace_file(out, lambda target: target.write(text.encode()))
        say_written(out)
        if console.is_terminal:
            typer.launch(out.absolute().as_uri())
        say_next('dqe sql "FROM captioner_comparison"')
