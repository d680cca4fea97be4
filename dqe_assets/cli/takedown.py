"""``dqe takedown``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from dqe_assets.cli.terminal import ExitCode, clear_errors, say, say_next

if TYPE_CHECKING:
    from dqe_assets.orchestration.settings import Settings


def takedown(
    check: Annotated[
        str | None,
        typer.Option(
            "--check",
            metavar="URL|HOST|UID|HASH",
            help="Say where anything is left of it, and of its copies that were taken down.",
        ),
    ] = None,
) -> None:
    """Say how much is listed under takedowns, and how many rows that hits; or what is left of one entry.

    With --check, the exit code is 0 if nothing is left, and 1 if something is.
    """
    with clear_errors():
        from dqe_assets.orchestration.settings import load_settings

        settings = load_settings(sources_may_be_away=True)
        if check is None:
            _print_counts(settings)
        else:
            _check(settings, check)


def _print_counts(settings: Settings) -> None:
    from dqe_assets.orchestration.takedowns import counts

    found = counts(settings)
    listed = ", ".join(f"{count:,} of kind {kind}" for kind, count in found.entries.items() if count)
    total = sum(found.entries.values())
    say("{}", f"{total:,} entr{'y' if total == 1 else 'ies'}" + (f": {listed}" if listed else ""))
    copies = f", {found.copies:,} of them as copies" if found.copies else ""
    say(f"{found.rows:,} row{'' if found.rows == 1 else 's'} taken down{copies}")
    if found.to_do:
        say(f"{found.to_do:,} more, or to be fetched again: the next run does that")
    say_next(*(["dqe materialize"] if found.to_do else ["dqe takedown --check URL"]))


def _check(settings: Settings, text: str) -> None:
    from dqe_assets.ingest.takedowns.entries import entry_of
    from dqe_assets.orchestration.takedowns import left_of
    from dqe_resources.errors import UsageError

    try:
        kind, value = entry_of(text)
    except ValueError as error:
        raise UsageError(f"--check {text}: {error}") from error
    left = left_of(settings, kind, value)
    for place in left.places:
        say("[red]left:[/red] {}", place)
    for line in left.lists:
        say("{}", line, style="dim")
    if left.places:
        raise typer.Exit(ExitCode.FAILED)
    say("[green]Nothing is left[/green] of {}.", text)
