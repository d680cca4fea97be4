"""The ``dqe`` command: one file for each command or few that belong together."""

from __future__ import annotations

import typer

from dqe_assets.cli.concepts import concepts
from dqe_assets.cli.engine import engine
from dqe_assets.cli.filter import filter_pool, reshard
from dqe_assets.cli.materialize import demo, materialize, status, sync
from dqe_assets.cli.publish import publish
from dqe_assets.cli.recommend import recommend
from dqe_assets.cli.report import explain, gallery, get, report, sql
from dqe_assets.cli.search import search
from dqe_assets.cli.ui import ui

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Know, improve and choose image-caption data.",
)
for _command in (demo, sync, materialize, status, ui, report, sql, search, get, explain, gallery, recommend, concepts):
    app.command()(_command)
app.command("filter")(filter_pool)
app.command()(reshard)
app.command()(publish)
app.add_typer(engine, name="engine")
