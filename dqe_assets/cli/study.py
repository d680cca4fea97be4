"""``dqe study``: what the papers found, tried here."""

from __future__ import annotations

import math
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dqe_assets.cli.terminal import as_typed, clear_errors, counting, errors, say, say_written
from dqe_resources.printable import quoted

if TYPE_CHECKING:
    from collections.abc import Callable

    from dqe_assets.study.run import Progress


def study(
    minutes: Annotated[
        float,
        typer.Option(
            min=0.1,
            help="How much is made: what all findings take about so many minutes for on two fast cores, and twice as "
            "long on slow ones. Under ten, little is learnt.",
        ),
    ] = 15.0,
    seeds: Annotated[int, typer.Option(min=1, max=100, help="How many worlds, each with models of its own.")] = 3,
    first_seed: Annotated[int, typer.Option(min=0, max=10_000, help="The first of the seeds.")] = 0,
    findings: Annotated[str | None, typer.Option(help="Numbers of findings, such as 2,3; by default all.")] = None,
    out: Annotated[Path, typer.Option(metavar="DIR", help="The folder for all that is made.")] = Path("data/study"),
) -> None:
    """Try on made worlds what the papers found, by real training, and write a page of what holds here.

    Needs no GPU and no download, but the extras study and training. Killed, the same command goes on. The same options
    give the same figures.
    """
    with clear_errors():
        from dqe_assets.study.page import write_page
        from dqe_assets.study.plan import Size, Study, chosen
        from dqe_assets.study.results import results_of
        from dqe_assets.study.run import run

        wanted = tuple(range(first_seed, first_seed + seeds))
        planned = Study(out.absolute(), Size.of(minutes, seeds), wanted, chosen(findings))
        with counting("per cent of the study") as bar:
            run(planned, partial(_tell, bar))
        results = results_of(planned)
        page, document = write_page(planned, results)
        for one in results:
            say("[b]{}[/b]: {} ({})", one.finding.name, one.verdict, one.reason, wrap=True)
        say_written(page)
        say_written(document)
        say(
            "Next: open {}, or see how it was made: {}",
            page,
            as_typed(f"DQE_DATA={quoted(str(planned.seed_folder(first_seed)))} dqe ui"),
        )


def _tell(bar: Callable[[int, int], None], progress: Progress, job: str, step: str) -> None:
    bar(round(100 * progress.share), 100)
    if not step:
        left = progress.seconds_left
        soon = f"; about {math.ceil(left / 60)} min left" if left else ""
        say("[green]✓[/green] {}  [dim]{} % done{}[/dim]", job, round(100 * progress.share), soon, to=errors)
