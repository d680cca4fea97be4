"""Write docs/reference/ and the generated tables of the other pages, from the code that they are about.

Usage: python docs/make_reference.py (``make docs`` runs it)

A page asks for a table with a line ``<!-- assets: dedup -->`` or ``<!-- settings: duplicates -->``. What stands between
that line and ``<!-- end -->`` is written here, and tests/docs/test_reference.py fails while it is not current.
"""

from __future__ import annotations

import re
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    import pyarrow as pa

    from dqe_assets.core.stage import Stage
    from dqe_assets.orchestration.settings import Settings

DOCS = Path(__file__).parent
REFRESH = "make docs"

_NOTE = f"<!-- Written by docs/make_reference.py. To refresh it: {REFRESH} -->"
_GENERATED = re.compile(r"(<!-- assets: (.+?) -->\n).*?(<!-- end -->)", re.DOTALL)
_CODE = re.compile(r"(`+)(.+?)\1", re.DOTALL)


def main() -> None:
    """Write every page that is not current."""
    for path, text in pages().items():
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            path.parent.mkdir(exist_ok=True)
            path.write_text(text, encoding="utf-8")


def pages() -> dict[Path, str]:
    """The text that each page of the reference, and each page with a generated table, must have."""
    settings = everything_on()
    found = {
        DOCS / "reference" / "assets.md": assets_page(settings),
        DOCS / "reference" / "warehouse.md": warehouse_page(settings),
        DOCS / "reference" / "commands.md": commands_page(),
    }
    for path in sorted(DOCS.glob("*.md")):
        text = path.read_text(encoding="utf-8")
        found[path] = _GENERATED.sub(lambda match: f"{match[1]}\n{assets_of(settings, match[2])}\n\n{match[3]}", text)
    return found


def everything_on() -> Settings:
    """The settings of data/dqe.yaml, with the assets that are off there."""
    from dqe_assets.orchestration.settings import Settings

    values = yaml.safe_load((DOCS.parent / "data" / "dqe.yaml").read_text(encoding="utf-8"))
    server = {"url": "http://127.0.0.1:23333", "model": "model"}
    values["captioners"].append({"kind": "openai", "name": "server", **server})
    return Settings.model_validate(values | {"judging": {"judge": server}, "refining": {"captioner": "server"}})


def assets_page(settings: Settings) -> str:
    """Every asset, with the columns of its table."""
    parts = [
        _NOTE,
        "# Assets",
        (
            "Every asset, by its group in the UI. One that is made *for each shard* has a partition for each shard; "
            "one that is made *over all shards* has none. A table is in the store, as Parquet: "
            "`data/store/ASSET/SHARD.parquet`, and every column of it has a description in the UI too."
        ),
    ]
    every = assets(settings)
    groups = list(dict.fromkeys(stage.group for stage in every.values()))
    for group in groups:
        parts.append(f"## {group}")
        for name, stage in every.items():
            if stage.group == group:
                parts += [f"### `{name}`", _text(stage.description), _about(stage)]
                parts += [_columns(stage.schema)] if stage.schema is not None else []
    return "\n\n".join(parts) + "\n"


def assets_of(settings: Settings, group: str) -> str:
    """A table of the assets of a group, each in a sentence."""
    rows = [
        (f"[`{name}`](reference/assets.md#{_anchor(name)})", _made(stage), _text(stage.description.split("\n\n")[0]))
        for name, stage in assets(settings).items()
        if stage.group == group
    ]
    if not rows:
        raise ValueError(f"no asset has the group {group}")
    return _table(("asset", "made", "what it is"), rows)


def warehouse_page(settings: Settings) -> str:
    """Every table and view of the warehouse, with the comments of their columns."""
    import duckdb

    from dqe_assets.report.build_warehouse import MATERIALISATIONS, WarehouseInputs, build_warehouse

    parts = [
        _NOTE,
        "# The warehouse",
        (
            "Every table and view of `data/warehouse.duckdb`. The same comments are in the file itself: "
            "`dqe sql \"SELECT column_name, comment FROM duckdb_columns() WHERE table_name = 'samples'\"`."
        ),
    ]
    with duckdb.connect() as connection:
        build_warehouse(connection, WarehouseInputs({}, MATERIALISATIONS.empty_table(), [], "", settings.filters))
        described = connection.execute(
            "SELECT table_name, column_name, data_type, comment FROM duckdb_columns() "
            "WHERE NOT internal AND database_name <> 'temp' ORDER BY table_name, column_index"
        )
        columns = {name: [*rows] for name, rows in groupby(described.fetchall(), lambda row: row[0])}
        for title, listed in (
            (
                "Tables",
                "SELECT table_name, comment FROM duckdb_tables() WHERE NOT internal AND NOT temporary ORDER BY 1",
            ),
            ("Views", "SELECT view_name, comment FROM duckdb_views() WHERE NOT internal AND NOT temporary ORDER BY 1"),
        ):
            found = connection.execute(listed).fetchall()
            parts += [f"## {title}", _table(("name", "what it is"), [(f"[`{n}`](#{n})", _text(c)) for n, c in found])]
            for name, comment in found:
                rows = [(f"`{column}`", f"`{kind}`", _text(means)) for _, column, kind, means in columns[name]]
                parts += [f"### `{name}`", _text(comment), _table(("column", "type", "meaning"), rows)]
    return "\n\n".join(parts) + "\n"


def commands_page() -> str:
    """Every command of ``dqe``, with its arguments and options."""
    import typer

    from dqe_assets.cli.app import app

    parts = [
        _NOTE,
        "# Commands",
        "`dqe COMMAND --help` says the same. In a checkout that `make` has installed, the command is `.venv/bin/dqe`.",
    ]
    command = typer.main.get_command(app)
    for name, found in _commands(command, "dqe"):
        usage = (
            f"    {name} {' '.join(found.collect_usage_pieces(found.make_context(name, [], resilient_parsing=True)))}"
        )
        parts += [f"## `{name}`", _text(found.help or ""), usage]
        records = [
            param.get_help_record(found.make_context(name, [], resilient_parsing=True)) for param in found.params
        ]
        rows = [(f"`{record[0]}`", _text(record[1])) for record in records if record]
        parts += [_table(("argument or option", "what it is"), rows)] if rows else []
    return "\n\n".join(parts) + "\n"


def _commands(command: Any, name: str) -> Iterator[tuple[str, Any]]:
    """The commands of a group and of the groups in it."""
    for child, found in getattr(command, "commands", {}).items():
        if hasattr(found, "commands"):
            yield from _commands(found, f"{name} {child}")
        else:
            yield f"{name} {child}", found


def assets(settings: Settings) -> dict[str, Stage]:
    """The stages by asset; one stands for all captioners, one for all subsets."""
    from dqe_assets.orchestration.graph import stages

    found: dict[str, Stage] = {}
    for stage in stages(settings):
        found.setdefault(_generic(stage.name), stage)
    return found


def _generic(asset: str) -> str:
    prefix, slash, _ = asset.partition("/")
    return f"{prefix}/NAME" if slash else asset


def _made(stage: Stage) -> str:
    return "for each shard" if stage.partitioned else "over all shards"


def _about(stage: Stage) -> str:
    reads = dict.fromkeys(_generic(name) for name in (*stage.inputs, *stage.unpartitioned_inputs))
    parts = [f"Made {_made(stage)}", f"kinds: {', '.join(f'`{kind}`' for kind in sorted(stage.kinds))}"]
    parts += [f"reads: {', '.join(f'[`{name}`](#{_anchor(name)})' for name in reads)}"] if reads else []
    checks = ", ".join(f"`{check.name}`" for check in stage.checks)
    return "\n".join(f"- {part}" for part in (*parts, f"checks: {checks}"))


def _columns(schema: pa.Schema) -> str:
    rows = []
    for field in schema:
        metadata = {key.decode(): value.decode() for key, value in field.metadata.items()}
        rows.append((f"`{field.name}`", f"`{_type(field.type)}`", metadata.get("unit", ""), metadata["description"]))
    return _table(("column", "type", "unit", "meaning"), [(a, b, _text(c), _text(d)) for a, b, c, d in rows])


def _type(arrow: pa.DataType) -> str:
    return re.sub(r"<(?:item|element): ", "<", str(arrow)).replace("halffloat", "float16")


def _table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *([cell.replace("|", "\\|") for cell in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |".replace("|  |", "| |") for line in lines)


def _text(text: str) -> str:
    """A docstring or a comment as Markdown: code stays code, and all else is plain text on one line a paragraph."""
    paragraphs = [" ".join(paragraph.split()) for paragraph in text.strip().split("\n\n")]
    return "\n\n".join(_plain(paragraph) for paragraph in paragraphs)


def _plain(text: str) -> str:
    parts, end = [], 0
    for found in _CODE.finditer(text):
        parts += [_escaped(text[end : found.start()]), f"`{found[2]}`"]
        end = found.end()
    return "".join([*parts, _escaped(text[end:])])


def _escaped(text: str) -> str:
    return re.sub(r"([*<])", r"\\\1", text)


def _anchor(heading: str) -> str:
    """The anchor that GitHub and MkDocs make of a heading of one word."""
    return re.sub(r"[^\w-]", "", heading.lower())


if __name__ == "__main__":
    main()
