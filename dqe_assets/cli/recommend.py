"""``dqe recommend``."""

from __future__ import annotations

from typing import Annotated

import typer

from dqe_assets.cli.terminal import clear_errors, errors, json_option, print_json, say, say_next


def recommend(
    samples_seen: Annotated[
        str | None, typer.Option(help="Samples seen in training, such as 32M,128M; by default those of data/dqe.yaml.")
    ] = None,
    *,
    as_json: Annotated[
        bool,
        json_option(
            "is_current, warnings, and metrics, each with metric, source, is_made_up, answer (sentences) and "
            "recommendations (the columns of the table filter_recommendation)."
        ),
    ] = False,
) -> None:
    """Recommend which pools of data to train on for a given compute, and say how sure that is."""
    with clear_errors():
        from dqe_assets.orchestration import graph, runner
        from dqe_assets.orchestration.settings import load_settings
        from dqe_assets.scaling.recommendation import answer, fitted_pools, parse_budgets
        from dqe_assets.scaling.recommendation import recommend as recommended
        from dqe_assets.scaling.tables import MEASURED_MIXTURES, POOL_UTILITIES

        settings = load_settings(sources_may_be_away=True)
        budgets = parse_budgets(samples_seen) if samples_seen else settings.scaling.samples_seen
        table = settings.opened_store.read("pool_utilities", None, POOL_UTILITIES)
        mixtures = settings.opened_store.read("measured_mixtures", None, MEASURED_MIXTURES)
        read = [one for one in graph.stages(settings) if one.name in {"pool_utilities", "measured_mixtures"}]
        is_current = all(runner.state(settings, one, None, ()) == "current" for one in read)
        if not is_current:
            say(
                "[yellow]Measurements or settings have changed since; run:[/yellow] dqe materialize pool_utilities "
                "measured_mixtures",
                to=errors,
            )
        metrics = list(fitted_pools(table, mixtures))
        warnings = sorted({text for text in table["warning"].to_pylist() if text})
        if as_json:
            found = [
                {
                    "metric": fitted.metric,
                    "source": fitted.source,
                    "is_made_up": fitted.is_made_up,
                    "answer": answer(fitted, budgets),
                    "recommendations": recommended(fitted, budgets),
                }
                for fitted in metrics
            ]
            print_json({"is_current": is_current, "warnings": warnings, "metrics": found})
            return
        for fitted in metrics:
            say("[b]{}[/b], from {}", fitted.metric, fitted.source, wrap=True)
            for line in answer(fitted, budgets):
                say("- {}", line, wrap=True)
        for warning in warnings:
            say("[yellow]warning:[/yellow] {}", warning, wrap=True)
        if any(fitted.is_made_up for fitted in metrics):
            say(
                "[yellow]These numbers are made up[/yellow]: give your own training curves as scaling.measurements in "
                "data/dqe.yaml (docs/scaling.md)",
                wrap=True,
            )
        say_next("dqe ui", 'dqe sql "FROM best_filters"')
