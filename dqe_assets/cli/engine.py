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

        states = [engines.status(one) for one in _chosen(names)]
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
        say_next("dqe materialize" if all(found.state == "up" for found in states) else "dqe engine up")


@engine.command()
def down(names: Names = None) -> None:
    """Stop engines, with all their processes."""
    with clear_errors():
        from dqe_resources.captioners import served_process as engines

        for one in _chosen(names):
            say("{}: {}", one.name, "stopped" if engines.down(one) else "was not running")
        say_next("dqe engine up")


def _up(one: ServedEngine) -> None:
    from dqe_resources.captioners import served_process as engines

    started = time.monotonic()
    try:
        with console.status(Text(printable(f"{one.name}: starting {one.model}"))) as waiting:
            new = engines.up(one, lambda line: waiting.update(Text(printable(f"{one.name}: {line[-100:]}"))))
    except engines.NotHealthyError as failure:
        for line in failure.log.splitlines():
            say("{}", line, to=errors, style="dim")
        raise
    how = f"up after {time.monotonic() - started:.1f} s" if new else "was up already"
    say("[green]✓[/green] {}: {}; log: {}", one.name, how, engines.log_path(one))
    say("Its captioner in data/dqe.yaml:", style="dim")
    for line in (
        "  - kind: openai",
        f"    name: {one.name}",
        f"    url: {one.address}",
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
