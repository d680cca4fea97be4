"""``dqe demo``, ``sync``, ``materialize`` and ``status``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape
from rich.table import Table

from dqe_assets.cli.terminal import clear_errors, console, errors, fail, progress_bars, say_next

if TYPE_CHECKING:
    from dqe_assets.orchestration.runner import Outcome

from dqe_assets.cli.report import print_report

AssetNames = Annotated[list[str] | None, typer.Argument(help="Names of assets; all by default.")]


ShardKeys = Annotated[list[str] | None, typer.Option("--shard", help="A shard; may be repeated. All by default.")]


Force = Annotated[bool, typer.Option("--force", help="Make again what is current.")]


def demo() -> None:
    """Take the embedded sample through every stage and print its quality report."""
    with clear_errors():
        from dqe_assets.orchestration import runner
        from dqe_assets.orchestration.instance import instance
        from dqe_assets.orchestration.settings import load_settings

        settings = load_settings()
        samples = [source for source in settings.sources if source.kind == "sample"]
        if not samples:
            fail("data/dqe.yaml lists no source of kind sample; add: - kind: sample")
        with instance(settings.concurrency) as current, progress_bars():
            runner.sync(settings, current)
            shards = [source.key(shard.index) for source in samples for shard in source.shards()]
            outcome = runner.materialize(settings, current, shards=shards)
        _stop_if_failed(outcome)
        print_report(settings)
        _print_outcome(outcome)
        say_next("make ui", "dqe gallery", 'dqe search "a cat"', 'dqe sql "SELECT * FROM worst_captions LIMIT 10"')


def sync() -> None:
    """Register the shards of every source as partitions."""
    with clear_errors():
        from dqe_assets.orchestration import runner
        from dqe_assets.orchestration.instance import instance
        from dqe_assets.orchestration.settings import load_settings

        settings = load_settings()
        with instance(settings.concurrency) as current, progress_bars():
            plan = runner.sync(settings, current)
        console.print(f"{plan.total} shards; {len(plan.add)} added, {len(plan.remove)} removed")
        say_next("dqe materialize")


def materialize(assets: AssetNames = None, shard: ShardKeys = None, *, force: Force = False) -> None:
    """Make what is missing or no longer current."""
    with clear_errors():
        from dqe_assets.orchestration import runner
        from dqe_assets.orchestration.instance import instance
        from dqe_assets.orchestration.settings import load_settings

        settings = load_settings()
        with instance(settings.concurrency) as current, progress_bars():
            runner.sync(settings, current)
            outcome = runner.materialize(settings, current, assets=assets or (), shards=shard or (), force=force)
        _stop_if_failed(outcome)
        _print_outcome(outcome)
        say_next("dqe report")


def status() -> None:
    """Say what is current, stale, missing or failed, for each asset."""
    with clear_errors():
        from collections import Counter

        from dqe_assets.core.partitions import registered_shards
        from dqe_assets.orchestration import graph, runner
        from dqe_assets.orchestration.instance import instance
        from dqe_assets.orchestration.settings import load_settings

        settings = load_settings()
        with instance(settings.concurrency) as current:
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


def _stop_if_failed(outcome: Outcome) -> None:
    for failure in outcome.failures:
        errors.print(f"[red]failed:[/red] {escape(failure)}", soft_wrap=True, highlight=False)
    if outcome.failures:
        errors.print("What is finished is kept. Mend what failed and run the same command again.")
        raise typer.Exit(1)


def _print_outcome(outcome: Outcome) -> None:
    made = f"{len(outcome.made)} partitions made or checked, {outcome.current} were current"
    console.print(f"[green]All is current[/green] ({made}).")
