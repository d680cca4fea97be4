"""The ``dqe`` command."""

from __future__ import annotations

import csv
import os
import shutil
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

if TYPE_CHECKING:
    from collections.abc import Iterator

    import pyarrow as pa

    from dqe_assets.progress import Step
    from dqe_assets.runner import Outcome
    from dqe_assets.settings import Settings

_LEFT = frozenset({"string", "bool", "timestamp[us, tz=UTC]"})

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Know, improve and choose image-caption data.",
)
console = Console()
errors = Console(stderr=True)

AssetNames = Annotated[list[str] | None, typer.Argument(help="Names of assets; all by default.")]
ShardKeys = Annotated[list[str] | None, typer.Option("--shard", help="A shard; may be repeated. All by default.")]
Force = Annotated[bool, typer.Option("--force", help="Make again what is current.")]
Limit = Annotated[int, typer.Option(min=1, max=1000, help="How many.")]


@app.command()
def demo() -> None:
    """Take the embedded sample through every stage and print its quality report."""
    with _clear_errors():
        from dqe_assets import runner

        settings = _settings()
        samples = [source for source in settings.sources if source.kind == "sample"]
        if not samples:
            _fail("data/dqe.yaml lists no source of kind sample; add: - kind: sample")
        with runner.instance() as current, _progress():
            runner.sync(settings, current)
            shards = [source.key(shard.index) for source in samples for shard in source.shards()]
            outcome = runner.materialize(settings, current, shards=shards)
        _stop_if_failed(outcome)
        _print_report(settings)
        _print_outcome(outcome)
        _next("make ui", "dqe gallery", 'dqe search "a cat"', 'dqe sql "SELECT * FROM worst_captions LIMIT 10"')


@app.command()
def sync() -> None:
    """Register the shards of every source as partitions."""
    with _clear_errors():
        from dqe_assets import runner

        with runner.instance() as current:
            plan = runner.sync(_settings(), current)
        console.print(f"{plan.total} shards; {len(plan.add)} added, {len(plan.remove)} removed")
        _next("dqe materialize")


@app.command()
def materialize(assets: AssetNames = None, shard: ShardKeys = None, *, force: Force = False) -> None:
    """Make what is missing or no longer current."""
    with _clear_errors():
        from dqe_assets import runner

        settings = _settings()
        with runner.instance() as current, _progress():
            runner.sync(settings, current)
            outcome = runner.materialize(settings, current, assets=assets or (), shards=shard or (), force=force)
        _stop_if_failed(outcome)
        _print_outcome(outcome)
        _next("dqe report")


@app.command()
def status() -> None:
    """Say what is current, stale, missing or failed, for each asset."""
    with _clear_errors():
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
        _next("dqe sync" if not shards else "dqe materialize" if stale else "dqe report")


@app.command()
def report() -> None:
    """Print the quality report."""
    with _clear_errors():
        _print_report(_settings())
        _next('dqe sql "SELECT * FROM worst_captions LIMIT 10"')


@app.command()
def sql(query: Annotated[str, typer.Argument(help="A query; tables and views: dqe sql 'SHOW TABLES'.")]) -> None:
    """Query the warehouse: read-only, with no access to files or the network. Piped, the result is CSV."""
    with _clear_errors():
        result = _settings().warehouse.query(query)
        if console.is_terminal:
            _print_table(result)
            console.print(f"{result.num_rows:,} rows", style="dim")
        else:
            _print_csv(result)


@app.command()
def search(
    text: Annotated[str | None, typer.Argument(help="What to look for.")] = None,
    image: Annotated[Path | None, typer.Option(help="An image to look for instead.")] = None,
    where: Annotated[
        list[str] | None, typer.Option(help="A condition: source=sample, similarity_original>=0.3 ...")
    ] = None,
    using: Annotated[
        str, typer.Option("--in", help="What to search: image, original, or a captioner's name.")
    ] = "image",
    limit: Limit = 10,
) -> None:
    """Find the samples nearest in meaning to a text or an image."""
    with _clear_errors():
        from dqe_assets.index.search import search_collection

        if (text is None) == (image is None):
            _fail('give a text (dqe search "a cat") or --image FILE, one of the two')
        hits = search_collection(_settings(), text=text, image=image, where=where or [], using=using, limit=limit)
        table = Table("score", "image_name", "caption", "source")
        for hit in hits:
            payload = hit.payload
            caption = payload.get("caption_" + (using if using != "image" else "original"), "")
            table.add_row(
                *map(escape, (f"{hit.score:.3f}", str(payload["image_name"]), str(caption), str(payload["source"])))
            )
        console.print(table)
        if hits:
            _next(f"dqe get {hits[0].payload['image_name']}")
        else:
            console.print("Nothing found: no sample fulfils the condition.")


@app.command()
def get(image_name: Annotated[str, typer.Argument(help="The source's own name of the row.")]) -> None:
    """Show all that is known of a sample."""
    with _clear_errors():
        from dqe_assets.report.explain import sample_sections

        sections = sample_sections(_settings().warehouse, image_name)
        for section in sections:
            console.print(f"\n[b]{escape(section.title)}[/b]")
            _print_table(section.table)


@app.command()
def gallery() -> None:
    """Say where the gallery is, and open it in a browser."""
    with _clear_errors():
        from dqe_assets.report.assets import gallery_path

        path = gallery_path()
        if not path.exists():
            _fail(f"{path}: not there; run: dqe materialize sample_gallery")
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
    with _clear_errors():
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
        _next("make ui", 'dqe sql "FROM best_filters"')


def _settings() -> Settings:
    from dqe_assets.settings import load_settings

    return load_settings()


def _fail(message: str) -> None:
    errors.print(f"[red]error:[/red] {escape(message)}", soft_wrap=True, highlight=False)
    raise typer.Exit(2)


@contextmanager
def _clear_errors() -> Iterator[None]:
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


@contextmanager
def _progress() -> Iterator[None]:
    """A bar for what runs, a line for what has ended."""
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        ProgressColumn,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )
    from rich.text import Text

    from dqe_assets import progress

    class RateColumn(ProgressColumn):
        def render(self, task: Any) -> Text:
            return Text(f"{task.speed:,.0f}/s" if task.speed else "")

    columns = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=20),
        MofNCompleteColumn(),
        RateColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}", style="dim"),
    )
    with Progress(*columns, console=console, transient=True) as bars:
        tasks: dict[tuple[str, str | None], Any] = {}

        def show(step: Step) -> None:
            key = (step.asset, step.partition)
            name = f"{step.asset:<28} {step.partition or 'all shards'}"
            if key not in tasks:
                tasks[key] = bars.add_task(name, total=None, note="")
            if step.outcome is None:
                bars.update(tasks[key], completed=step.done, total=step.total or None, note=step.note)
                return
            bars.remove_task(tasks.pop(key))
            failed = step.outcome.startswith("failed")
            mark, style = ("✗", "red") if failed else ("✓", "green")
            bars.console.print(f"[{style}]{mark}[/{style}] {name}  [dim]{escape(step.outcome)}[/dim]", highlight=False)

        with progress.listen(show):
            yield


def _next(*commands: str) -> None:
    """The last line of every command: what to do next, as it is to be typed here."""
    program = Path(sys.argv[0])
    typed = "dqe" if shutil.which("dqe") == str(program) or program.suffix == ".py" else os.path.relpath(program)
    console.print(
        "Next: " + ", ".join(f"[b]{command.replace('dqe', typed, 1)}[/b]" for command in commands), soft_wrap=True
    )


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
        sections = quality_report(connection)
    for section in sections:
        console.print(f"\n[b]{escape(section.title)}[/b]")
        if section.description:
            console.print(escape(section.description), style="dim")
        _print_table(section.table)
    console.print()


def _print_table(data: pa.Table) -> None:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 0, 0, 1))
    for name, kind in zip(data.column_names, data.schema.types, strict=True):
        # With spaces, a heading wraps between words where the terminal is narrow.
        table.add_column(name.replace("_", " "), justify="left" if str(kind) in _LEFT else "right", overflow="fold")
    for row in zip(*(column.to_pylist() for column in data.columns), strict=True):
        table.add_row(*(_cell(value) for value in row))
    console.print(table)


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.3f}"
    return escape(f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value))


def _print_csv(data: pa.Table) -> None:
    writer = csv.writer(sys.stdout)
    writer.writerow(data.column_names)
    writer.writerows(zip(*(column.to_pylist() for column in data.columns), strict=True))


if __name__ == "__main__":
    app()
