"""The ``dqe`` command: one file for each command, or for a few related ones."""

from __future__ import annotations

from typing import Annotated

import typer

from dqe_assets.cli.captions import captions
from dqe_assets.cli.compress import compress
from dqe_assets.cli.concepts import concepts
from dqe_assets.cli.engine import engine
from dqe_assets.cli.filter import filter_pool, reshard
from dqe_assets.cli.init import init
from dqe_assets.cli.materialize import demo, materialize, sync
from dqe_assets.cli.mcp import mcp
from dqe_assets.cli.plan import plan
from dqe_assets.cli.publish import publish
from dqe_assets.cli.recommend import recommend
from dqe_assets.cli.report import explain, gallery, get, report, sql
from dqe_assets.cli.review import review
from dqe_assets.cli.schema import schema
from dqe_assets.cli.search import search
from dqe_assets.cli.status import status
from dqe_assets.cli.study import study
from dqe_assets.cli.summary import summary
from dqe_assets.cli.takedown import takedown
from dqe_assets.cli.ui import ui
from dqe_assets.cli.verify import verify
from dqe_assets.cli.view import view

EXIT_CODES = (
    "Exit codes: 0 done; 1 something failed, or is not there yet; 2 the command line or dqe.yaml is wrong; "
    "130 stopped by Ctrl-C, 143 by SIGTERM."
)

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    epilog=EXIT_CODES,
    help="Know, improve and choose image-caption data.",
)


def _print_version(asked: bool) -> None:
    if asked:
        from importlib.metadata import version

        typer.echo(version("data-quality-engine"))
        raise typer.Exit


@app.callback()
def main(
    *,
    _version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Options of ``dqe`` itself."""


for _command in (
    demo,
    init,
    sync,
    plan,
    materialize,
    status,
    ui,
    report,
    sql,
    search,
    get,
    explain,
    gallery,
    view,
    takedown,
    recommend,
    concepts,
):
    app.command()(_command)
app.command("filter")(filter_pool)
app.command()(reshard)
app.command()(compress)
app.command()(publish)
app.command()(verify)
app.command()(summary)
app.command()(study)
app.command()(mcp)
app.add_typer(review, name="review")
app.add_typer(captions, name="captions")
app.add_typer(engine, name="engine")
app.command()(schema)
