"""``dqe report``, ``sql``, ``get``, ``explain`` and ``gallery``."""

from __future__ import annotations

import csv
import os
import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dqe_assets.cli.terminal import (
    ExitCode,
    as_typed,
    clear_errors,
    console,
    errors,
    fail,
    json_option,
    print_json,
    print_table,
    print_upright,
    say,
    say_next,
)
from dqe_resources.printable import command

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pyarrow as pa

    from dqe_assets.orchestration.settings import Settings
    from dqe_assets.report.quality import Section
    from dqe_assets.report.summary import Summary
    from dqe_resources.warehouse import Warehouse

_ROWS_AT_ONCE = 10_000
_SECTIONS = "sections, each with title, description, and rows by the columns' names"
Json = Annotated[bool, json_option(f"{_SECTIONS}.")]
ImageName = Annotated[str, typer.Argument(help="The source's own name of the row, or its uid.")]


def report(
    *,
    full: Annotated[bool, typer.Option("--full", help="Show all tables, also those with nothing in them.")] = False,
    as_json: Annotated[
        bool,
        json_option(
            f"{_SECTIONS}; and summary, with rows, sources, shards, readable, redundant, scorer, fits, problems, lines."
        ),
    ] = False,
) -> None:
    """Print the quality report: a summary in ten lines, and tables."""
    with clear_errors():
        from dqe_assets.orchestration.answers import report_of
        from dqe_assets.orchestration.settings import load_settings

        settings = load_settings(sources_may_be_away=True)
        found, sections = report_of(settings, everything=full)
        if as_json:
            print_json({"sections": [_as_json(one) for one in sections], "summary": found.to_json()})
            return
        _say_if_old(settings)
        _print_summary(found)
        print_sections([one for one in sections if full or not one.says_nothing])
        say_next('dqe sql "SELECT * FROM worst_captions LIMIT 10"')


def sql(
    query: Annotated[str, typer.Argument(help="A query; tables and views: dqe sql 'SHOW TABLES'.")],
    timeout: Annotated[float | None, typer.Option(help="Seconds that it may run; by default as dqe.yaml says.")] = None,
    memory: Annotated[
        str | None, typer.Option(help="Memory that it may take, such as 500MB; by default as dqe.yaml says.")
    ] = None,
) -> None:
    """Query the warehouse: read-only, with no access to files or the network. Piped, the result is CSV."""
    with clear_errors():
        from dqe_assets.orchestration.settings import load_settings
        from dqe_resources.warehouse import UnstoppableQueryError

        warehouse = _limited(load_settings(sources_may_be_away=True).warehouse, timeout, memory)
        try:
            result = warehouse.query(query)
        except UnstoppableQueryError as error:
            say("[red]error:[/red] {}", error, to=errors)
            # Its thread would keep the process.
            os._exit(ExitCode.FAILED)
        if console.is_terminal:
            print_table(result)
            say("{} rows", f"{result.num_rows:,}", style="dim")
        else:
            _print_csv(result)


def _limited(warehouse: Warehouse, timeout: float | None, memory: str | None) -> Warehouse:
    from pydantic import ValidationError

    from dqe_resources.errors import UsageError

    given = {"--timeout": ("statement_timeout", timeout), "--memory": ("memory_limit", memory)}
    values = warehouse.model_dump() | {name: value for name, value in given.values() if value is not None}
    try:
        return type(warehouse).model_validate(values)
    except ValidationError as error:
        fault = error.errors()[0]
        option = next(option for option, (name, _) in given.items() if name in fault["loc"])
        raise UsageError(f"{option} {fault['input']}: {fault['msg']}") from error


def get(image_name: ImageName, *, as_json: Json = False) -> None:
    """Show a sample at a glance: its record, its captions, and which of them is the best."""
    with clear_errors():
        from dqe_assets.orchestration.graph import relations
        from dqe_assets.orchestration.settings import load_settings
        from dqe_assets.report.explain import glance

        settings = load_settings(sources_may_be_away=True)
        sections = glance(settings.warehouse, relations(settings), image_name)
        _show(sections, command("dqe explain", image_name), as_json=as_json)


def explain(image_name: ImageName, *, as_json: Json = False) -> None:
    """Show the origin of every number of a sample: how it was measured and chosen, by which code, from what, when."""
    with clear_errors():
        from dqe_assets.orchestration.answers import explanation_of
        from dqe_assets.orchestration.settings import load_settings

        sections = explanation_of(load_settings(sources_may_be_away=True), image_name)
        _show(sections, command("dqe search --like", image_name), as_json=as_json)


def gallery() -> None:
    """Print the path of the gallery, and open it in a browser."""
    with clear_errors():
        from dqe_assets.report.assets import gallery_path

        path = gallery_path()
        if not path.exists():
            fail(f"{path}: not there; run: dqe materialize", ExitCode.FAILED)
        say("{}", path)
        if console.is_terminal:
            typer.launch(path.as_uri())


def print_summary(settings: Settings) -> None:
    """Print the summary of the quality report."""
    from dqe_assets.orchestration.answers import report_of

    _print_summary(report_of(settings)[0])


def _print_summary(found: Summary) -> None:
    say("")
    for line in found.lines:
        is_command = line.startswith(" ")
        say("[b]{}[/b]" if is_command else "{}", as_typed(line) if is_command else line, wrap=not is_command)
    say("")


def print_sections(sections: Sequence[Section]) -> None:
    """Print tables with their titles."""
    for section in sections:
        say("\n[b]{}[/b]", section.title)
        if section.description:
            say("{}", section.description, style="dim", wrap=True)
        (print_upright if section.upright else print_table)(section.table)
    say("")


def _say_if_old(settings: Settings) -> None:
    """Say so if the warehouse does not hold what the store holds now, or if that is not known."""
    from dqe_assets.core.partitions import registered_shards
    from dqe_assets.orchestration import graph, runner
    from dqe_assets.orchestration.instance import InstanceError, instance

    try:
        with instance() as current:
            shards = registered_shards(current)
    except InstanceError as error:
        say("[yellow]It is not known whether the warehouse is current:[/yellow] {}", error, to=errors)
        return
    (warehouse,) = (stage for stage in graph.stages(settings) if stage.name == "warehouse")
    if runner.state(settings, warehouse, None, shards) != "current":
        say("[yellow]The warehouse is not current; run:[/yellow] dqe materialize")


def _show(sections: Sequence[Section], next_command: str, *, as_json: bool) -> None:
    if as_json:
        print_json({"sections": [_as_json(one) for one in sections]})
        return
    print_sections(sections)
    say_next(next_command)


def _as_json(section: Section) -> dict[str, Any]:
    return {"title": section.title, "description": section.description, "rows": section.table}


def _print_csv(data: pa.Table) -> None:
    writer = csv.writer(sys.stdout)
    writer.writerow(data.column_names)
    # A batch at a time: a value of Python's takes many times the space of one of Arrow's.
    for batch in data.to_batches(max_chunksize=_ROWS_AT_ONCE):
        writer.writerows(zip(*(column.to_pylist() for column in batch.columns), strict=True))
