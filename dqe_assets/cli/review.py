"""``dqe review``: what people decide about samples."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from dqe_assets.cli.terminal import (
    ExitCode,
    clear_errors,
    errors,
    fail,
    json_option,
    print_json,
    print_table,
    say,
    say_next,
)
from dqe_resources.printable import command

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import pyarrow as pa

    from dqe_assets.core.signals import Signal
    from dqe_assets.orchestration.settings import Settings

review = typer.Typer(no_args_is_help=True, help="Decisions of people: what to keep and to drop, tags and captions.")

By = Annotated[str | None, typer.Option("--by", metavar="NAME", help="Who decides; by default the name of the user.")]
Why = Annotated[str, typer.Option("--why", metavar="TEXT", help="The reason.")]

_LONGEST_BY, _LONGEST_WHY = 100, 1_000
_SHOWN = 10


@review.command("import")
def import_(
    file: Annotated[
        Path,
        typer.Argument(
            help="A table with the column uid (.csv, .tsv, .json, .jsonl, .ndjson, .parquet), as dqe view exports it, "
            "or a .txt with a uid in each line.",
        ),
    ],
    said: Annotated[
        str | None,
        typer.Option(
            "--as",
            metavar="drop|keep|tag:NAME|caption|none",
            help="What is decided of all samples of the file. caption takes the file's column caption, and "
            "caption:COLUMN another; none takes back all that was decided before. By default the file's column review "
            "says drop or keep of each.",
        ),
    ] = None,
    by: By = None,
    why: Why = "",
    *,
    skip_unknown: Annotated[
        bool, typer.Option("--skip-unknown", help="Leave out uids that no sample has, in place of refusing the file.")
    ] = False,
) -> None:
    """Take decisions from a file of uids. They are kept in a log that no run can lose; the latest one holds."""
    with clear_errors():
        from dqe_assets.orchestration.settings import load_settings
        from dqe_assets.reviews import imports, log

        what = imports.parse_said(said)
        settings = load_settings(sources_may_be_away=True)
        decided, empty = imports.read_decisions(file, what)
        rows, unknown, gone = imports.located(settings.opened_store, decided)
        if unknown and not skip_unknown:
            raise imports.ReviewError(
                f"{file}: no sample has {len(unknown):,} of its {len(decided):,} uids: "
                f"{imports.named(decided, unknown)}; nothing was decided. To leave them out: --skip-unknown"
            )
        for what_of, uids in (("no sample has", unknown), ("taken down are", gone)):
            if uids:
                say("[yellow]left out:[/yellow] {} {}", what_of, imports.named(decided, uids), to=errors)
        if empty:
            say(f"{empty:,} row{'' if empty == 1 else 's'} of the file decide nothing: column review is empty")
        if not len(rows):
            raise imports.ReviewError(f"{file}: there is nothing in it to decide")
        name, reason = _who(by, why)
        entry = log.append(rows, by=name, why=reason, source=file.name, said=str(what))
        shards = len(entry.shards)
        say(
            f"[b]{entry.number}[/b]: {{}}, {entry.rows:,} sample{'' if entry.rows == 1 else 's'} of {shards:,} "
            f"shard{'' if shards == 1 else 's'}, decided by {{}}",
            entry.said,
            entry.by,
        )
        say_next("dqe materialize", f"dqe review undo {entry.number}")


@review.command("list")
def list_(
    *,
    as_json: Annotated[
        bool,
        json_option(
            "imports, each with number, at, by, said, rows, shards, source, why, undoes, and is_undone; and missing."
        ),
    ] = False,
) -> None:
    """List the imports: what was decided, by whom, when and why, and which were taken back."""
    with clear_errors():
        import pyarrow as pa

        from dqe_assets.reviews import log

        found, missing = log.entries(), log.missing_numbers()
        if as_json:
            names = ("number", "at", "by", "said", "rows", "shards", "source", "why", "undoes", "is_undone")
            imports = [{name: getattr(one, name) for name in names} for one in found]
            print_json({"imports": imports, "missing": missing})
            return
        if found:
            print_table(pa.Table.from_pylist([_shown(one) for one in found]))
        if missing:
            numbers = ", ".join(map(str, missing))
            say(f"[yellow]not there:[/yellow] {numbers}; their files were removed from {{}}", log.log_folder())
        say(f"{len(found):,} import{'' if len(found) == 1 else 's'} in {{}}", log.log_folder())
        say_next(*(["dqe materialize", "dqe review undo NUMBER"] if found else ["dqe review sample --out sample.csv"]))


@review.command()
def undo(
    number: Annotated[int, typer.Argument(min=1, help="Number of the import, as dqe review list shows it.")],
    by: By = None,
    why: Why = "",
) -> None:
    """Take an import back: what held before holds again. It stays in the log, and can be undone too."""
    with clear_errors():
        from dqe_assets.reviews import log

        name, reason = _who(by, why)
        entry = log.undo(number, by=name, why=reason)
        say(f"[b]{entry.number}[/b]: import {number} is taken back, {entry.rows:,} decisions")
        say_next("dqe materialize", command("dqe review undo", str(entry.number)))


def _who(by: str | None, why: str) -> tuple[str, str]:
    """Who decides and why, checked."""
    import getpass

    from dqe_resources.errors import UsageError

    if by is None:
        try:
            by = getpass.getuser()
        except (OSError, KeyError):
            by = ""
    for option, text, longest in (("--by", by, _LONGEST_BY), ("--why", why, _LONGEST_WHY)):
        if len(text) > longest:
            raise UsageError(f"{option}: {len(text):,} characters; at most {longest:,}")
    if not by.strip():
        raise UsageError("who decides? Say it with --by NAME")
    # A name from the command line can hold bytes that are no text.
    name, reason = (text.strip().encode("utf-8", "replace").decode() for text in (by, why))
    return name, reason


def _shown(entry: Any) -> dict[str, Any]:
    return {
        "number": entry.number,
        "at": entry.at.strftime("%Y-%m-%d %H:%M"),
        "by": entry.by,
        "decided": entry.said,
        "samples": entry.rows,
        "file": entry.source,
        "why": entry.why,
        "holds": "no, taken back" if entry.is_undone else "yes",
    }


@review.command()
def sample(
    out: Annotated[
        Path, typer.Option("--out", metavar="FILE", help="Where to write the samples: .csv, .tsv or .parquet.")
    ],
    count: Annotated[int, typer.Option("--n", min=1, max=100_000, help="How many samples.")] = 200,
    how: Annotated[
        Literal["disagreement", "random", "filter-edge"],
        typer.Option(
            "--by",
            help="Where scorers, judge and preference disagree; at random, which stands for all samples; or near the "
            "thresholds of filters.",
        ),
    ] = "disagreement",
    seed: Annotated[int, typer.Option(min=0, help="Another seed draws other samples at random.")] = 0,
    *,
    as_json: Annotated[bool, json_option("file, and samples.")] = False,
) -> None:
    """Write a few samples that are worth a person's time, each with why. Fill in the column review, and import it."""
    with clear_errors():
        from dqe_assets.orchestration.settings import load_settings
        from dqe_assets.report import review_sample as drawing
        from dqe_assets.reviews import log
        from dqe_assets.reviews.decide import verdicts

        drawing.require_writable(out)
        settings = load_settings(sources_may_be_away=True)
        known = _signals(settings)
        with settings.warehouse.connect() as connection:
            measures = drawing.measure(connection, settings.opened_store, known)
            table = drawing.draw(
                connection,
                how,
                count,
                measures=drawing.scorers_of(measures, known),
                edges=drawing.edges_of(_masks(settings), measures) if how == "filter-edge" else [],
                decided=verdicts(log.decisions()),
                seed=seed,
            )
        drawing.write(table, out)
        if as_json:
            print_json({"file": out, "samples": len(table)})
            return
        shown = table.select(["image_name", "why"]).slice(0, _SHOWN)
        print_table(shown)
        if len(table) > _SHOWN:
            say(f"... and {len(table) - _SHOWN:,} more", style="dim")
        if len(table) < count:
            say(f"there are only {len(table):,} such samples")
        say(f"{len(table):,} sample{'' if len(table) == 1 else 's'} written to {{}}", out)
        say("Look at them, and write keep or drop into the column review: dqe get NAME writes an image to a file")
        say_next(command("dqe review import", str(out)))


@review.command()
def agreement(
    *,
    as_json: Annotated[
        bool,
        json_option(
            "notes; filters, each with precision and recall; scores, each with auc and average_precision; all with "
            "_low and _high."
        ),
    ] = False,
) -> None:
    """Say how far each filter and score agrees with what people decided, with 95 % intervals."""
    with clear_errors():
        from dqe_assets.orchestration.settings import load_settings
        from dqe_assets.report import review_agreement, review_sample
        from dqe_assets.reviews import log
        from dqe_assets.reviews.decide import verdicts

        settings = load_settings(sources_may_be_away=True)
        decided = verdicts(log.decisions())
        if not len(decided):
            fail("people have decided about no sample yet; run: dqe review sample --out sample.csv", ExitCode.FAILED)
        known = _signals(settings)
        with settings.warehouse.connect() as connection:
            measures = review_sample.measure(connection, settings.opened_store, known)
            measured = review_agreement.with_measures(connection, decided, measures)
        passes = review_agreement.filter_masks_of(settings.opened_store, _masks(settings), known, measured)
        filters, scores = review_agreement.agreement(measured, passes, measures)
        notes = review_agreement.notes(measured, len(decided) - len(measured))
        if as_json:
            print_json({"notes": notes, "filters": filters, "scores": scores})
            return
        for table, figures in ((filters, ("precision", "recall")), (scores, ("auc", "average_precision"))):
            if len(table):
                print_table(_with_intervals(table, figures))
        for note in notes:
            say("{}", note, wrap=True)
        say_next("dqe review sample --by random --out sample.csv")


def _signals(settings: Settings) -> dict[str, Signal]:
    from dqe_assets.orchestration.graph import signals

    return {name: one for name, one in signals(settings).items() if one.item is None}


def _masks(settings: Settings) -> Mapping[str, Any]:
    """What the manifest of ``filter_masks`` says."""
    from dqe_assets.filtering.assets import MASKS

    stored = settings.opened_store.get(MASKS, None)
    if stored is None:
        fail(f"{MASKS} is not there yet; run: dqe materialize", ExitCode.FAILED)
    return stored.stamp.facts


def _with_intervals(table: pa.Table, figures: Sequence[str]) -> pa.Table:
    """A table for people: each figure with its interval in one cell."""
    import pyarrow as pa

    from dqe_assets.core.metadata import with_interval

    rows = [
        {
            **{name: value for name, value in row.items() if not name.startswith(tuple(figures))},
            **{name: with_interval(row, name) if row[name] is not None else "nothing to say" for name in figures},
        }
        for row in table.to_pylist()
    ]
    return pa.Table.from_pylist(rows)
