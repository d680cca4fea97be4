"""``dqe plan``: what a backfill will take, before it is started."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Annotated

import typer

from dqe_assets.cli.terminal import clear_errors, errors, json_option, print_json, print_table, say, say_next

if TYPE_CHECKING:
    import pyarrow as pa

    from dqe_assets.orchestration.draw import Estimate, SourcePlan

_SMALLER = (0.01, 0.1, 0.5, 1.0)


def plan(
    source: Annotated[str | None, typer.Option(help="One source; by default all of dqe.yaml.")] = None,
    *,
    draw: Annotated[int, typer.Option(min=4, help="Rows of each source that are tried.")] = 100,
    as_json: Annotated[bool, json_option("sources, each with source, rows, drawn, stages")] = False,
) -> None:
    """Say what everything by shard will take, from a timed draw: hours, GPU hours, tokens, money, with intervals.

    The draw is made in a folder that is thrown away: images are fetched, and models asked and paid, for so many rows.
    """
    with clear_errors():
        from dataclasses import asdict

        from dqe_assets.orchestration.draw import plan_source
        from dqe_assets.orchestration.settings import load_settings
        from dqe_resources.errors import UsageError

        settings = load_settings()
        names = [one.name for one in settings.sources]
        if source is not None and source not in names:
            raise UsageError(f"there is no source '{source}'; there are: {', '.join(names)}")
        found = []
        for one in settings.sources:
            if source in (None, one.name):
                found.append(plan_source(settings, one, draw, lambda stage: say("measuring {}", stage, to=errors)))
                if not as_json:
                    _show(found[-1])
        if as_json:
            print_json({"sources": [asdict(one) for one in found]})
            return
        say_next("dqe materialize")


def _show(found: SourcePlan) -> None:
    say("")
    say(
        "[b]{}[/b]: {} rows, by a draw of {}; 95 % intervals; one step at a time, without what is made over all shards",
        found.source,
        f"{found.rows:,}",
        found.drawn,
        wrap=True,
    )
    print_table(_stages(found))
    for one in found.stages:
        if one.error:
            say("[yellow]not measured:[/yellow] {}: {}", one.stage, one.error, wrap=True)
    print_table(_choices(found))


def _stages(found: SourcePlan) -> pa.Table:
    """What each stage takes for the whole source."""
    import pyarrow as pa

    records = [
        {
            "stage": one.stage,
            "seconds_each": f"{one.seconds.mean:.4f}",
            "start": f"{one.start_seconds:.1f} s",
            "a_shard": f"{one.shard_seconds.mean:.2f} s",
            "hours": _with_interval(one.hours(found.rows, found.shards)),
            "gpu_hours": _with_interval(one.gpu_seconds and one.gpu_seconds.times(found.rows / 3600)),
            "tokens": _with_interval(one.tokens and one.tokens.times(found.rows), "{:,.0f}"),
            "cost": _with_interval(one.cost and one.cost.times(found.rows)),
        }
        for one in found.stages
        if not one.error
    ]
    return pa.Table.from_pylist(records)


def _choices(found: SourcePlan) -> pa.Table:
    """What parts of the source would take, with all captioners and with one of them alone."""
    import pyarrow as pa

    from dqe_assets.orchestration.draw import NOTHING

    captioners = [one.captioner for one in found.stages if one.captioner]
    choices: list[tuple[str, set[str]]] = [("all captioners", set(captioners))]
    choices += [(f"{name} alone", {name}) for name in captioners if len(captioners) > 1]
    choices += [("without captioners", set())] if captioners else []
    records = []
    for what, kept in choices:
        stages = [one for one in found.stages if one.captioner is None or one.captioner in kept]
        for share in _SMALLER:
            size = found.rows * share
            hours = [one.hours(size, math.ceil(found.shards * share)) for one in stages]
            tokens = [one.tokens.times(size) for one in stages if one.tokens]
            costs = [one.cost.times(size) for one in stages if one.cost]
            records.append(
                {
                    "choice": what,
                    "share": f"{share:.0%}",
                    "rows": f"{size:,.0f}",
                    "hours": _with_interval(sum(hours, NOTHING)),
                    "tokens": _with_interval(sum(tokens, NOTHING) if tokens else None, "{:,.0f}"),
                    "cost": _with_interval(sum(costs, NOTHING) if costs else None),
                }
            )
    return pa.Table.from_pylist(records)


def _with_interval(one: Estimate | None, form: str = "{:.3g}") -> str | None:
    return None if one is None else f"{form.format(one.mean)} ({form.format(one.low)} to {form.format(one.high)})"
