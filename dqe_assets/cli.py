"""The ``dqe`` command."""

from __future__ import annotations

import csv
import shlex
import sys
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape
from rich.table import Table

from dqe_assets.caption.commands import engine
from dqe_assets.concepts.commands import concepts
from dqe_assets.filtering.commands import filter_pool, reshard
from dqe_assets.index.commands import search
from dqe_assets.publish.commands import publish
from dqe_assets.terminal import clear_errors, console, errors, fail, print_table, progress_bars, say_next, shown

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pyarrow as pa

    from dqe_assets.report.warehouse import Section
    from dqe_assets.runner import Outcome
    from dqe_assets.settings import Settings

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Know, improve and choose image-caption data.",
)
app.add_typer(engine, name="engine")

AssetNames = Annotated[list[str] | None, typer.Argument(help="Names of assets; all by default.")]
ShardKeys = Annotated[list[str] | None, typer.Option("--shard", help="A shard; may be repeated. All by default.")]
Force = Annotated[bool, typer.Option("--force", help="Make again what is current.")]
Limit = Annotated[int, typer.Option(min=1, max=1000, help="How many.")]


@app.command()
def demo() -> None:
    """Take the embedded sample through every stage and print its quality report."""
    with clear_errors():
        from dqe_assets import runner

        settings = _settings()
        samples = [source for source in settings.sources if source.kind == "sample"]
        if not samples:
            fail("data/dqe.yaml lists no source of kind sample; add: - kind: sample")
        with runner.instance() as current, progress_bars():
            runner.sync(settings, current)
            shards = [source.key(shard.index) for source in samples for shard in source.shards()]
            outcome = runner.materialize(settings, current, shards=shards)
        _stop_if_failed(outcome)
        _print_report(settings)
        _print_outcome(outcome)
        say_next("make ui", "dqe gallery", 'dqe search "a cat"', 'dqe sql "SELECT * FROM worst_captions LIMIT 10"')


@app.command()
def sync() -> None:
    """Register the shards of every source as partitions."""
    with clear_errors():
        from dqe_assets import runner

        with runner.instance() as current, progress_bars():
            plan = runner.sync(_settings(), current)
        console.print(f"{plan.total} shards; {len(plan.add)} added, {len(plan.remove)} removed")
        say_next("dqe materialize")


@app.command()
def materialize(assets: AssetNames = None, shard: ShardKeys = None, *, force: Force = False) -> None:
    """Make what is missing or no longer current."""
    with clear_errors():
        from dqe_assets import runner

        settings = _settings()
        with runner.instance() as current, progress_bars():
            runner.sync(settings, current)
            outcome = runner.materialize(settings, current, assets=assets or (), shards=shard or (), force=force)
        _stop_if_failed(outcome)
        _print_outcome(outcome)
        say_next("dqe report")


@app.command()
def status() -> None:
    """Say what is current, stale, missing or failed, for each asset."""
    with clear_errors():
        from collections import Counter

        from dqe_assets import graph, runner
        from dqe_assets.stage import registered_shards

        settings = _settings()
        with runner.instance() as current:
            shards = registered_shards(current)
        table = Table("asset", "current", "stale", "missing", "failed", title=f"{len(shards)} shards")
        stale = False
        for stage in graph.stages(settings):
            keys: list[str | None] = [*shards] if stage.partitioned else [None]
            states = Counter(runner.state(settings, stage, key, shards) for key in keys)
            stale |= states["current"] < len(keys)
            table.add_row(stage.name, *(str(states[name] or "-") for name in ("current", "stale", "missing", "failed")))
        console.print(table)
        if not stale:
            console.print("All is current.")
        say_next("dqe sync" if not shards else "dqe materialize" if stale else "dqe report")


@app.command()
def report() -> None:
    """Print the quality report."""
    with clear_errors():
        _print_report(_settings())
        say_next('dqe sql "SELECT * FROM worst_captions LIMIT 10"')


@app.command()
def sql(query: Annotated[str, typer.Argument(help="A query; tables and views: dqe sql 'SHOW TABLES'.")]) -> None:
    """Query the warehouse: read-only, with no access to files or the network. Piped, the result is CSV."""
    with clear_errors():
        result = _settings().warehouse.query(query)
        if console.is_terminal:
            print_table(result)
            console.print(f"{result.num_rows:,} rows", style="dim")
        else:
            _print_csv(result)


app.command()(search)


@app.command()
def get(image_name: Annotated[str, typer.Argument(help="The source's own name of the row.")]) -> None:
    """Show a sample at a glance: its record, its captions, and which of them is the best."""
    with clear_errors():
        from dqe_assets.report.explain import glance

        _print_sections(glance(_settings(), image_name))
        say_next(f"dqe explain {shown(shlex.quote(image_name))}")


@app.command()
def explain(image_name: Annotated[str, typer.Argument(help="The source's own name of the row.")]) -> None:
    """Show how every number of a sample came to be: measured, chosen, filtered, and by which code, from what, when."""
    with clear_errors():
        from dqe_assets.report.explain import explanation

        _print_sections(explanation(_settings(), image_name))
        say_next(f"dqe search --like {shown(shlex.quote(image_name))}")


@app.command()
def gallery() -> None:
    """Say where the gallery is, and open it in a browser."""
    with clear_errors():
        from dqe_assets.report.assets import gallery_path

        path = gallery_path()
        if not path.exists():
            fail(f"{path}: not there; run: dqe materialize sample_gallery")
        console.print(str(path), soft_wrap=True)
        if console.is_terminal:
            typer.launch(path.as_uri())


@app.command()
def recommend(
    samples_seen: Annotated[
        str | None, typer.Option(help="Samples seen in training, such as 32M,128M; by default those of data/dqe.yaml.")
    ] = None,
) -> None:
    """Say which pools of data to train on for a compute, and how sure that is."""
    with clear_errors():
        from dqe_assets import runner
        from dqe_assets.scaling.assets import pool_utilities
        from dqe_assets.scaling.recommend import answer, fitted_pools, parse_budgets
        from dqe_assets.schemas import POOL_UTILITIES

        settings = _settings()
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


app.command()(concepts)


def _settings() -> Settings:
    from dqe_assets.settings import load_settings

    return load_settings()


def _stop_if_failed(outcome: Outcome) -> None:
    for failure in outcome.failures:
        errors.print(f"[red]failed:[/red] {escape(failure)}", soft_wrap=True, highlight=False)
    if outcome.failures:
        errors.print("What is finished is kept. Mend what failed and run the same command again.")
        raise typer.Exit(1)


def _print_outcome(outcome: Outcome) -> None:
    made = f"{len(outcome.made)} partitions made or checked, {outcome.current} were current"
    console.print(f"[green]All is current[/green] ({made}).")


def _print_report(settings: Settings) -> None:
    from dqe_assets.report.warehouse import quality_report

    with settings.warehouse.connect() as connection:
        _print_sections(quality_report(connection))


def _print_sections(sections: Sequence[Section]) -> None:
    for section in sections:
        console.print(f"\n[b]{shown(section.title)}[/b]")
        if section.description:
            console.print(shown(section.description), style="dim")
        print_table(section.table)
    console.print()


def _print_csv(data: pa.Table) -> None:
    writer = csv.writer(sys.stdout)
    writer.writerow(data.column_names)
    writer.writerows(zip(*(column.to_pylist() for column in data.columns), strict=True))


app.command("filter")(filter_pool)
app.command()(reshard)
app.command()(publish)

if __name__ == "__main__":
    app()
