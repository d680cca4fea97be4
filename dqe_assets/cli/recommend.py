"""``dqe recommend``."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.markup import escape

from dqe_assets.cli.terminal import clear_errors, console, errors, say_next


def recommend(
    samples_seen: Annotated[
        str | None, typer.Option(help="Samples seen in training, such as 32M,128M; by default those of data/dqe.yaml.")
    ] = None,
) -> None:
    """Say which pools of data to train on for a compute, and how sure that is."""
    with clear_errors():
        from dqe_assets.orchestration import runner
        from dqe_assets.orchestration.settings import load_settings
        from dqe_assets.scaling.assets import pool_utilities
        from dqe_assets.scaling.recommend import answer, fitted_pools, parse_budgets
        from dqe_assets.scaling.tables import POOL_UTILITIES

        settings = load_settings()
        budgets = parse_budgets(samples_seen) if samples_seen else settings.scaling.samples_seen
        table = settings.opened_store.read(pool_utilities.name, None, POOL_UTILITIES)
        if runner.state(settings, pool_utilities, None, ()) != "current":
            errors.print("[yellow]Measurements or settings have changed since:[/yellow] dqe materialize pool_utilities")
        for fitted in fitted_pools(table):
            console.print(f"[b]{escape(fitted.metric)}[/b], from {escape(fitted.source)}", highlight=False)
            for line in answer(fitted, budgets):
                console.print(f"- {escape(line)}", highlight=False)
        for warning in sorted({text for text in table["warning"].to_pylist() if text}):
            console.print(f"[yellow]warning:[/yellow] {escape(warning)}", highlight=False)
        if any(fitted.is_made_up for fitted in fitted_pools(table)):
            console.print(
                "[yellow]These numbers are made up[/yellow]: name your own training curves as scaling.measurements in "
                "data/dqe.yaml (docs/scaling.md)",
                highlight=False,
            )
        say_next("make ui", 'dqe sql "FROM best_filters"')
