"""``dqe view``: look at the samples in a browser."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dqe_assets.cli.terminal import clear_errors, console, counting, errors, fail, say
from dqe_resources.printable import command

if TYPE_CHECKING:
    from dqe_assets.view.chosen import Chosen
    from dqe_resources.store import Store

LIMIT = 200_000
"""Samples that are shown, unless more are asked for."""

_LARGE = 1 << 30
"""Bytes of samples that a browser does not hold any more."""


def view(
    where: Annotated[
        str, typer.Option(help='SQL condition over the table samples of the warehouse: "original_similarity < 0.1" ...')
    ] = "true",
    subset: Annotated[str | None, typer.Option(help="Only the samples of a subset that is made.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="Samples to show at most; of more, a fair draw.")] = LIMIT,
    export: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Write a folder that needs nothing else, instead of opening it.")
    ] = None,
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port of 127.0.0.1 to listen on.")] = 5055,
) -> None:
    """Look at the samples in a browser: pictures, charts that filter each other, search. On this machine alone."""
    with clear_errors():
        from importlib.util import find_spec

        from dqe_assets.orchestration.settings import load_settings

        if find_spec("embedding_atlas") is None:
            fail("the view is not installed; run: pip install '.[view]'")
        from dqe_assets.view.chosen import choose
        from dqe_assets.view.files import require_written

        settings = load_settings(sources_may_be_away=True)
        if subset is not None and subset not in settings.subset_names:
            there = ", ".join(settings.subset_names) or "none"
            fail(f"--subset {subset}: there is no such subset in dqe.yaml; there are: {there}")
        require_written()
        chosen = choose(settings.warehouse, where, subset, limit)
        if export is not None:
            _export(export, chosen, settings.opened_store)
            return
        _serve(chosen, settings.opened_store, port)


def _said(chosen: Chosen) -> str:
    if chosen.shown < chosen.total:
        return f"{chosen.shown:,} of {chosen.total:,} samples, a fair draw (--limit)"
    return f"{chosen.shown:,} sample{'' if chosen.shown == 1 else 's'}"


def _export(folder: Path, chosen: Chosen, store: Store) -> None:
    from dqe_assets.view.export import export_view

    with counting("samples") as progress:
        size = export_view(folder, chosen, store, progress)
    say(f"[b]{{}}[/b]: {_said(chosen)}, {size / 1e6:,.1f} MB", folder)
    if size > _LARGE:
        say("[yellow]A browser holds about 1 GB of samples: give --where, or a lower --limit.[/yellow]", to=errors)
    say(
        "Next: [b]{}[/b], then open http://127.0.0.1:8000",
        command("python -m http.server --bind 127.0.0.1 -d", str(folder)),
    )


def _serve(chosen: Chosen, store: Store, port: int) -> None:
    from dqe_assets.view.server import HOST, application, listening, serve

    address = f"http://{HOST}:{port}"
    with listening(port) as listener:
        app = application(chosen, store, address)
        say(f"[b]{{}}[/b]: {_said(chosen)}. Only this machine can open it. Ctrl-C ends it.", address)
        if console.is_terminal:
            typer.launch(address)
        serve(app, listener)
