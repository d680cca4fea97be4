"""``dqe engine``: the engines that data/dqe.yaml lists, started and stopped."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Annotated

import typer
from rich.text import Text

from dqe_assets.cli.terminal import clear_errors, console, errors, print_table, say, say_next
from dqe_resources.printable import printable

if TYPE_CHECKING:
    from dqe_resources.captioners.served_engine import ServedEngine

Names = Annotated[list[str] | None, typer.Argument(help="Names of engines; by default all of them.")]

engine = typer.Typer(no_args_is_help=True, help="The models that lmdeploy serves: start, watch and stop them.")


@engine.command()
def up(names: Names = None) -> None:
    """Start engines, and wait until they are healthy."""
    with clear_errors():
        for one in _chosen(names):
            _up(one)
        say_next("dqe engine status", "dqe materialize")


@engine.command()
def status(names: Names = None) -> None:
    """Show which engines are up, where, since when, and how much memory the GPUs have left."""
    with clear_errors():
        import pyarrow as pa

        from dqe_resources.captioners import served_process as engines

        states = [engines.status(server) for one in _chosen(names) for server in one.servers]
        rows = [
            {
                "engine": found.engine.name,
                "state": found.state,
                "model": ", ".join(found.models) or found.engine.served_name,
                "url": found.engine.address,
                "pid": str(found.running.pid) if found.running else None,
                "up_for": _duration(time.time() - found.running.since) if found.running else None,
            }
            for found in states
        ]
        print_table(pa.Table.from_pylist(rows))
        for gpu in engines.gpus():
            used = "memory unknown" if gpu.used is None else f"{gpu.used:,} of {gpu.total or 0:,} MiB used"
            say(f"GPU {gpu.index}, {{}}: {used}", gpu.name)
        are_up = all(found.state in {"up", "away"} for found in states)
        say_next("dqe materialize" if are_up else "dqe engine up")


@engine.command()
def down(names: Names = None) -> None:
    """Stop engines, with all their processes."""
    with clear_errors():
        from dqe_resources.captioners import served_process as engines

        for one in _chosen(names):
            was_running = "runs elsewhere, and is not stopped" if one.urls else "was not running"
            say("{}: {}", one.name, "stopped" if engines.all_down(one) else was_running)
        say_next("dqe engine up")


def _up(one: ServedEngine) -> None:
    from dqe_resources.captioners import served_process as engines

    started = time.monotonic()
    try:
        with console.status(Text(printable(f"{one.name}: starting {one.model}"))) as waiting:
            new = engines.all_up(one, lambda line: waiting.update(Text(printable(f"{one.name}: {line[-100:]}"))))
    except engines.NotHealthyError as failure:
        for line in failure.log.splitlines():
            say("{}", line, to=errors, style="dim")
        raise
    how = f"up after {time.monotonic() - started:.1f} s" if new else "was up already"
    for server in one.servers:
        where = "runs elsewhere" if one.urls else f"{how}; log: {engines.log_path(server)}"
        say("[green]✓[/green] {}: {}", server.name, where)
    say("Its captioner in data/dqe.yaml:", style="dim")
    for line in (
        "  - kind: openai",
        f"    name: {one.name}",
        f"    urls: [{', '.join(one.addresses)}]" if len(one.addresses) > 1 else f"    url: {one.addresses[0]}",
        f"    model: {one.served_name}",
    ):
        say("{}", line)


def _chosen(names: list[str] | None) -> list[ServedEngine]:
    from dqe_assets.orchestration.settings import SettingsError, configuration_path, load_settings

    there = {one.name: one for one in load_settings(sources_may_be_away=True).engines}
    if not there:
        raise SettingsError(f"{configuration_path()}: lists no engines; docs/gpu.md says how to add one")
    unknown = sorted(set(names or ()) - set(there))
    if unknown:
        raise SettingsError(f"{configuration_path()}: no engine {unknown[0]}; there are: {', '.join(there)}")
    return [there[name] for name in names or there]


def _duration(seconds: float) -> str:
    hours, rest = divmod(int(seconds), 3600)
    minutes, seconds = divmod(rest, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {seconds} s"
