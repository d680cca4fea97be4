"""``dqe engine``: the engines that data/dqe.yaml lists, started and stopped."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape

from dqe_assets.cli.terminal import clear_errors, console, errors, print_table, say_next

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
            console.print(f"GPU {gpu.index}, {escape(gpu.name)}: {used}", highlight=False)
        say_next("dqe materialize" if all(found.state == "up" for found in states) else "dqe engine up")


@engine.command()
def down(names: Names = None) -> None:
    """Stop engines, with all their processes."""
    with clear_errors():
        from dqe_resources.captioners import served_process as engines

        for one in _chosen(names):
            console.print(f"{one.name}: {'stopped' if engines.down(one) else 'was not running'}")
        say_next("dqe engine up")


def _up(one: ServedEngine) -> None:
    from dqe_resources.captioners import served_process as engines

    started = time.monotonic()
    try:
        with console.status(f"{one.name}: starting {escape(one.model)}") as waiting:
            new = engines.up(one, lambda line: waiting.update(f"{one.name}: [dim]{escape(line[-100:])}[/dim]"))
    except engines.NotHealthyError as failure:
        errors.print(failure.log, style="dim", markup=False, highlight=False, soft_wrap=True)
        raise
    how = f"up after {time.monotonic() - started:.1f} s" if new else "was up already"
    console.print(f"[green]✓[/green] {one.name}: {how}; log: {engines.log_path(one)}", soft_wrap=True)
    console.print("Its captioner in data/dqe.yaml:", style="dim")
    captioner = f"  - kind: openai\n    name: {one.name}\n    url: {one.address}\n    model: {one.served_name}"
    console.print(captioner, markup=False, highlight=False, soft_wrap=True)


def _chosen(names: list[str] | None) -> list[ServedEngine]:
    from dqe_assets.orchestration.settings import SettingsError, configuration_path, load_settings

    there = {one.name: one for one in load_settings().engines}
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
