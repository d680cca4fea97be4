"""``dqe status``."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Annotated

import typer

from dqe_assets.cli.materialize import say_outside
from dqe_assets.cli.terminal import (
    ExitCode,
    clear_errors,
    counting,
    errors,
    json_option,
    print_json,
    print_table,
    say,
    say_next,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dqe_assets.core.stage import Stage
    from dqe_assets.orchestration.settings import Settings

STATES = ("current", "stale", "missing", "failed")
FAULTS = ("torn", "unknown")
"""States in which something is wrong: a file of the store cannot be read, or the source of raw samples."""


def status(
    *,
    verify: Annotated[bool, typer.Option("--verify", help="Read every file of the store to its end first.")] = False,
    workers: Annotated[bool, typer.Option("--workers", help="Show instead what each worker works on now.")] = False,
    as_json: Annotated[
        bool,
        json_option(
            "shards and runs (how many), is_current, torn (what cannot be read, a line for each file), unread (why a "
            f"source cannot be read, by its name), and assets, each with asset and how many are "
            f"{', '.join((*STATES, *FAULTS))}. With --workers: workers, each with host, pid, given_by, asset, "
            "partition, seconds, done, total and attempt."
        ),
    ] = False,
) -> None:
    """Show for each asset what is current, stale, missing, failed or torn."""
    with clear_errors():
        if workers:
            _say_workers(as_json=as_json)
            return
        import pyarrow as pa

        from dqe_assets.core.partitions import registered_shards
        from dqe_assets.orchestration import graph
        from dqe_assets.orchestration.instance import instance
        from dqe_assets.orchestration.settings import load_settings
        from dqe_assets.orchestration.sync import plan_sync, unread_in_words

        settings = load_settings(sources_may_be_away=True)
        # A list that cannot be read makes nothing known of any shard.
        settings.ingest.matcher(settings.opened_store)
        stages = graph.stages(settings)
        with instance(settings.concurrency) as current:
            shards = registered_shards(current)
            if verify:
                _read_through(settings, stages, shards)
            settings = settings.as_it_is_now()
            unread = dict(plan_sync(settings, current).unread)
        torn: list[str] = []
        rows = [_row(settings, stage, shards, unread, torn) for stage in stages]
        is_current = not any(row[name] for row in rows for name in (*STATES[1:], *FAULTS))
        runs = len(settings.training.keys)
        if as_json:
            found = {"shards": len(shards), "runs": runs, "is_current": is_current, "torn": torn, "unread": unread}
            print_json({**found, "assets": rows})
        else:
            say(f"{len(shards)} shards" + (f", {runs} training runs" if runs else ""))
            shown = ["asset", *STATES, *(name for name in FAULTS if any(row[name] for row in rows))]
            print_table(pa.Table.from_pylist([{name: row[name] or None for name in shown} for row in rows]))
            for fault in (*torn, *unread_in_words(unread)):
                say("[red]wrong:[/red] {}", fault, to=errors)
            say_outside(settings)
            if is_current:
                say("All is current.")
            say_next("dqe report" if is_current else "dqe materialize")
        if torn or unread:
            raise typer.Exit(ExitCode.FAILED)


def _say_workers(*, as_json: bool) -> None:
    import time

    import pyarrow as pa

    from dqe_resources.cluster.board import at_work

    rows = [
        {
            "host": one.host,
            "pid": one.pid,
            "given_by": f"{one.given_by[0]} {one.given_by[1]}",
            "asset": one.asset,
            "partition": one.partition,
            "seconds": round(time.time() - one.since),
            "done": one.done,
            "total": one.total,
            "attempt": one.attempt,
        }
        for one in at_work()
    ]
    if as_json:
        print_json({"workers": rows})
        return
    if rows:
        print_table(pa.Table.from_pylist(rows))
    else:
        say("No worker works now.")
    say_next("dqe status")


def _row(
    settings: Settings, stage: Stage, shards: Sequence[str], unread: dict[str, str], torn: list[str]
) -> dict[str, str | int]:
    """How many partitions of an asset are in each state; adds what is torn, and which source cannot be read."""
    from dqe_assets.orchestration import runner
    from dqe_resources.sources.protocol import SourceError, source_of

    counts: Counter[str] = Counter()
    for key in runner.keys(settings, stage, shards):
        source = source_of(key or "")
        if stage.name == "raw_samples" and source in unread:
            state = "unknown"
        else:
            try:
                state = runner.state(settings, stage, key, shards)
            except SourceError as error:
                state, unread[source] = "unknown", str(error)
        counts[state] += 1
        if state == "torn":
            torn.append(runner.fault(settings, stage.name, key))
    return {"asset": stage.name, **{name: counts[name] for name in (*STATES, *FAULTS)}}


def _read_through(settings: Settings, stages: Sequence[Stage], shards: Sequence[str]) -> None:
    """Find damage within the files of the store, which otherwise shows when that part is read."""
    from contextlib import suppress

    from dqe_assets.orchestration import runner
    from dqe_resources.store import StorageError

    partitions = [(one.name, key) for one in stages for key in runner.keys(settings, one, shards)]
    with counting("files") as progress:
        for done, (name, key) in enumerate(partitions, 1):
            with suppress(StorageError):
                settings.opened_store.require_whole([(name, key, None)])
            progress(done, len(partitions))
