"""``dqe demo``, ``sync`` and ``materialize``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from dqe_assets.cli.completion import asset_names, run_keys, shard_keys
from dqe_assets.cli.report import print_summary
from dqe_assets.cli.terminal import (
    ExitCode,
    clear_errors,
    errors,
    fail,
    progress_bars,
    progress_by_shard,
    say,
    say_next,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dqe_assets.orchestration.runner import Outcome
    from dqe_assets.orchestration.settings import Settings
    from dqe_assets.orchestration.sync import SyncPlan

AssetNames = Annotated[
    list[str] | None, typer.Argument(help="Names of assets; by default all of them.", autocompletion=asset_names)
]
ShardKeys = Annotated[
    list[str] | None,
    typer.Option("--shard", help="A shard; may be repeated. By default all shards.", autocompletion=shard_keys),
]
RunKeys = Annotated[
    list[str] | None,
    typer.Option("--run", help="A training run; may be repeated. By default all of them.", autocompletion=run_keys),
]
Workers = Annotated[
    int | None,
    typer.Option(
        "--workers", min=1, help="Make so many shards at once, each in a process of its own. Short for the key cluster."
    ),
]
Force = Annotated[bool, typer.Option("--force", help="Also make again what is current.")]


def demo() -> None:
    """Take the embedded sample through every stage and print the summary of its quality report.

    If there is no dqe.yaml yet, the one that comes with the platform is written first.
    """
    with clear_errors():
        from dqe_assets.cli.data_folder import default_settings, write_settings
        from dqe_assets.orchestration import runner
        from dqe_assets.orchestration.instance import instance
        from dqe_assets.orchestration.settings import configuration_path, load_settings
        from dqe_resources.sources.sample_images import require_packages

        if not configuration_path().exists():
            write_settings(configuration_path(), default_settings())
        settings = load_settings(sources_may_be_away=True)
        samples = [source for source in settings.sources if source.kind == "sample"]
        if not samples:
            fail(f"{configuration_path()} lists no source of kind sample; add: - kind: sample")
        require_packages()
        # Those of several shards at once do not fit into a line for each shard.
        shown = progress_bars if settings.cluster else progress_by_shard
        with instance(settings.concurrency) as current, shown():
            plan = runner.sync(settings, current)
            _say_removed(plan)
            shards = [source.key(shard.index) for source in samples for shard in source.shards()]
            outcome = runner.materialize(settings, current, shards=shards)
        _say_torn(outcome)
        stop_if_failed(_failures(settings, plan, outcome))
        print_summary(settings)
        _print_outcome(outcome, is_all=len(samples) == len(settings.sources))
        say_next("dqe ui", "dqe report", "dqe gallery", 'dqe search "a cat"')


def sync() -> None:
    """Register new shards and training runs, and remove shards that no source has any more with all made of them."""
    with clear_errors():
        from dqe_assets.orchestration import runner
        from dqe_assets.orchestration.instance import instance
        from dqe_assets.orchestration.settings import load_settings

        settings = load_settings(sources_may_be_away=True)
        with instance(settings.concurrency) as current, progress_bars():
            plan = runner.sync(settings, current)
            _say_removed(plan)
        for what, one in (("shards", plan.shards), ("training runs", plan.runs)):
            if what == "shards" or one.total or one.remove:
                say(f"{one.total} {what}; {len(one.add)} added, {len(one.remove)} removed")
        _say_remarks(plan)
        stop_if_failed(plan.failures)
        say_next("dqe materialize")


def materialize(
    assets: AssetNames = None,
    shard: ShardKeys = None,
    run: RunKeys = None,
    *,
    workers: Workers = None,
    force: Force = False,
) -> None:
    """Make what is missing, torn or no longer current."""
    with clear_errors():
        from dqe_assets.orchestration import runner
        from dqe_assets.orchestration.instance import instance
        from dqe_assets.orchestration.settings import load_settings
        from dqe_resources.cluster import LocalCluster

        settings = load_settings(sources_may_be_away=True)
        if workers:
            settings = settings.model_copy(update={"cluster": LocalCluster(workers=workers)})
        with instance(settings.concurrency) as current, progress_bars():
            plan = runner.sync(settings, current)
            _say_removed(plan)
            outcome = runner.materialize(
                settings, current, assets=assets or (), shards=shard or (), runs=run or (), force=force
            )
        _say_remarks(plan)
        _say_torn(outcome)
        if not outcome.away:
            _say_taken_down(settings, outcome)
        stop_if_failed(_failures(settings, plan, outcome))
        is_all = not (assets or shard or run)
        _print_outcome(outcome, is_all=is_all)
        say_next(*(["dqe report"] if is_all else ["dqe materialize", "dqe status"]))


def _say_removed(plan: SyncPlan) -> None:
    for line in plan.removed_in_words:
        say("{}", line)


def _say_remarks(plan: SyncPlan) -> None:
    """Say what the sources leave out, and which of them have no captions."""
    for name, left_out in plan.left_out.items():
        say("source {}: left out: {}", name, left_out)
    for name, places in plan.uncaptioned.items():
        say("source {}: no row has a caption; looked for: {}", name, places)


def _say_torn(outcome: Outcome) -> None:
    for fault in outcome.torn.values():
        say("[yellow]to be made again:[/yellow] {}", fault, to=errors)


def _say_taken_down(settings: Settings, outcome: Outcome) -> None:
    for name in outcome.removed:
        say("removed {}: it had something of what is taken down", name)
    say_outside(settings)


def say_outside(settings: Settings) -> None:
    """Warn of published folders, and of subsets, that have what is taken down."""
    from dqe_assets.orchestration.takedowns import outside

    for line in outside(settings):
        say("[yellow]warning:[/yellow] {}", line, to=errors)


def _failures(settings: Settings, plan: SyncPlan, outcome: Outcome) -> list[str]:
    from dqe_assets.orchestration.runner import ended_in_words
    from dqe_assets.orchestration.sync import unread_in_words

    ended = ended_in_words(outcome, settings)
    unread = unread_in_words({**outcome.unread, **plan.unread})
    return [*ended, *outcome.failures, *unread, *([plan.not_removed] if plan.not_removed else [])]


def stop_if_failed(failures: Sequence[str]) -> None:
    """Print what went wrong, if anything did, and exit."""
    for failure in failures:
        say("[red]failed:[/red] {}", failure, to=errors)
    if failures:
        say("What is finished is kept. Fix what failed and run the same command again.", to=errors)
        raise typer.Exit(ExitCode.FAILED)


def _print_outcome(outcome: Outcome, *, is_all: bool) -> None:
    """Say what was made.

    Args:
        outcome: of the command.
        is_all: whether it was asked for all assets and shards, and not for some of them.
    """
    made, current = len(outcome.made), outcome.current
    said = f"{made:,} partition{'' if made == 1 else 's'} made, {current:,} {'was' if current == 1 else 'were'} current"
    say(f"[green]All is current[/green] ({said})." if is_all else f"{said}.")
