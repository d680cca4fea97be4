"""Write docs/reference/ and the generated tables of the other pages, from the code that they are about.

Usage: python docs/make_reference.py (``make docs`` runs it)

A page asks for a table with a line ``<!-- assets: dedup -->`` or ``<!-- settings: duplicates -->``. What stands between
that line and ``<!-- end -->`` is written here, and tests/docs/test_reference.py fails while it is not current.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from functools import cache
from itertools import groupby
from pathlib import Path
from tempfile import TemporaryDirectory
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
_GENERATED = re.compile(r"(<!-- (assets|settings): (.+?) -->\n).*?(<!-- end -->)", re.DOTALL)
_NO_BOUND = 10**9
_KEY_HEADER = ("key", "value", "default", "what it is")
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
        DOCS / "reference" / "settings.md": settings_page(),
        DOCS / "reference" / "commands.md": commands_page(),
    }
    for path in sorted(DOCS.glob("*.md")):
        text = path.read_text(encoding="utf-8")
        found[path] = _GENERATED.sub(lambda match: f"{match[1]}\n{_generated(match, settings)}\n\n{match[4]}", text)
    return found


def _generated(match: re.Match[str], settings: Settings) -> str:
    if match[2] == "assets":
        return assets_of(settings, match[3])
    return settings_of([name.strip() for name in match[3].split(",")], level=3)


def everything_on() -> Settings:
    """The settings of data/dqe.yaml, with the assets that are off there."""
    from dqe_assets.orchestration.settings import Settings

    values = yaml.safe_load((DOCS.parent / "data" / "dqe.yaml").read_text(encoding="utf-8"))
    server = {"url": "http://127.0.0.1:23333", "model": "model"}
    values["captioners"].append({"kind": "openai", "name": "server", **server})
    model = {"name": "b32", "architecture": "ViT-B-32-quickgelu", "weights": "openai"}
    on = {
        "scorers": [
            {"kind": "open_clip", "name": "dfn", "preset": "dfn_public"},
            {"kind": "vqa", "name": "truth", **server},
        ],
        "grounding": {},
        "targets": [{"name": "sample", "source": "sample"}],
        "judging": {"judge": server},
        "refining": {"captioner": "server"},
        "compression": {},
        "mixtures": [{"name": "blend", "parts": [{"subset": "best"}]}],
        "reference_sets": [{"kind": "sample", "name": "held_out"}],
        "caption_mixes": [{"name": "mixed", "captioner": "server"}],
        "training": {"runs": [{"subsets": ["all"], "scale": "small"}]},
        "evaluation": {"models": [model]},
    }
    with TemporaryDirectory() as folder:
        table = Path(folder) / "safety.csv"
        table.write_text("uid,nsfw\n0,0.1\n", encoding="utf-8")
        return Settings.model_validate(values | on | {"signals": [{"name": "safety", "path": str(table)}]})


def assets_page(settings: Settings) -> str:
    """Every asset, with the columns of its table."""
    parts = [
        _NOTE,
        "# Assets",
        (
            "Every asset, by its group in the UI. One that is made *for each shard* has a partition for each shard; "
            "one that is made *for each training run*, one for each of these; all others have none. A table is in the "
            "store, as Parquet: `data/store/ASSET/PARTITION.parquet`, and every column of it has a description in "
            "the UI too."
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

    from dqe_assets.orchestration.graph import relations
    from dqe_assets.report.build_warehouse import WarehouseInputs, build_warehouse
    from dqe_assets.report.tables import MATERIALISATIONS

    parts = [
        _NOTE,
        "# The warehouse",
        (
            "Every table and view of `data/warehouse.duckdb`. The same comments are in the file itself: "
            "`dqe sql \"SELECT column_name, comment FROM duckdb_columns() WHERE table_name = 'samples'\"`."
        ),
    ]
    # Each signal is a column of samples, and the reader has others.
    settings = settings.model_copy(update={"signals": []})
    with duckdb.connect() as connection:
        build_warehouse(
            connection, WarehouseInputs(relations(settings), {}, MATERIALISATIONS.empty_table(), [], scorer="")
        )
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


def settings_page() -> str:
    """Every key of data/dqe.yaml."""
    schema = _settings_schema()
    keys, properties = _Keys(schema["$defs"]), schema["properties"]
    rows = [(f"[`{name}`](#{_anchor(name)})", keys.meaning(one)) for name, one in properties.items()]
    parts = [
        _NOTE,
        "# Settings",
        (
            "Every key of `data/dqe.yaml`. Only `sources` is required. A wrong key, type or value is refused when the "
            "file is loaded, with what is allowed. A relative path counts from the folder of dqe.yaml. Every top-level "
            "key can be set in the environment too: `DQE_STORE=s3://bucket/store`, `DQE_SCORER='{kind: label_space}'`."
        ),
        _table(("key", "what it is"), rows),
        settings_of(list(properties), level=2),
    ]
    return "\n\n".join(parts) + "\n"


def settings_of(names: Sequence[str], level: int) -> str:
    """The keys below these keys of data/dqe.yaml, each with a heading of a level."""
    schema = _settings_schema()
    unknown = {*names} - {*schema["properties"]}
    if unknown:
        raise ValueError(f"dqe.yaml has no key {min(unknown)}")
    return "\n\n".join(
        part for name in names for part in _Keys(schema["$defs"]).section(name, schema["properties"][name], level)
    )


@cache
def _settings_schema() -> dict[str, Any]:
    from dqe_assets.orchestration.settings import Settings

    return Settings.model_json_schema()


@dataclass(frozen=True)
class _Keys:
    """Turns the JSON Schema of settings into Markdown.

    Attributes:
        defined: the schemas that others refer to.
    """

    defined: dict[str, Any]

    def section(self, path: str, schema: dict[str, Any], level: int) -> Iterator[str]:
        """A key of data/dqe.yaml: what it is, and what is below it."""
        yield f"{'#' * level} `{path}`"
        inner, kinds = self._inner(schema), self._kinds(schema)
        if not kinds and not inner.get("properties"):
            yield _table(_KEY_HEADER, [self._row(path, schema, required=False)])
            return
        yield f"{'A list. ' if self._is_list(schema) else ''}{self.meaning(schema)}"
        if kinds:
            yield from self._of_kinds(path, kinds)
        else:
            yield from self._table_of(path, inner["properties"], inner)

    def _of_kinds(self, path: str, kinds: dict[str, dict[str, Any]]) -> Iterator[str]:
        """Keys that all kinds have, and then for each kind those that are its own or have another meaning there."""
        every = [found["properties"] for found in kinds.values()]
        shared = [name for name in every[0] if name != "kind" and all(name in one for one in every)]
        common = {name: max((one[name] for one in every), key=[one[name] for one in every].count) for name in shared}
        if len(kinds) > 1 and common:
            yield "Keys of every kind:"
            yield from self._table_of(path, common, next(iter(kinds.values())))
        for kind, found in kinds.items():
            own = {name: one for name, one in found["properties"].items() if name != "kind"}
            if len(kinds) > 1:
                own = {name: one for name, one in own.items() if common.get(name) != one}
            yield f"**`kind: {kind}`**: {_text(found['description']).splitlines()[0]}"
            if own:
                yield from self._table_of(path, own, found)

    def _table_of(self, path: str, properties: dict[str, Any], owner: dict[str, Any]) -> Iterator[str]:
        """A table of keys, and after it what has kinds of its own, and what is a list of keys."""
        flat = [*self._flat("", properties, owner)]
        yield _table(_KEY_HEADER, [self._row(name, one, required=required) for name, one, required in flat])
        for name, one, _ in flat:
            if self._kinds(one):
                yield f"The kinds of `{path}.{name}`:"
                yield from self._of_kinds(f"{path}.{name}", self._kinds(one))
            elif self._is_list(one) and (inner := self._inner(one)).get("properties"):
                yield f"The keys of each of `{path}.{name}`:"
                yield from self._table_of(f"{path}.{name}", inner["properties"], inner)

    def _flat(
        self, prefix: str, properties: dict[str, Any], owner: dict[str, Any]
    ) -> Iterator[tuple[str, dict[str, Any], bool]]:
        """The keys, those of a key that has keys itself with its name before theirs."""
        for name, one in properties.items():
            inner = self._inner(one)
            if inner.get("properties") and not self._kinds(one) and not self._is_list(one):
                yield from self._flat(f"{prefix}{name}.", inner["properties"], inner)
            else:
                yield f"{prefix}{name}", one, name in owner.get("required", ())

    def meaning(self, schema: dict[str, Any]) -> str:
        """What a key is; pydantic leaves out what the schema that it refers to says in the same words."""
        return _text(schema.get("description") or self._followed(schema)["description"])

    def _row(self, name: str, schema: dict[str, Any], *, required: bool) -> tuple[str, str, str, str]:
        default = f"`{json.dumps(schema['default'], ensure_ascii=False)}`" if "default" in schema else ""
        return f"`{name}`", self._type(schema), "required" if required else default, self.meaning(schema)

    def _type(self, schema: dict[str, Any]) -> str:  # noqa: PLR0911 - one for each form of type
        """What a value can be, in words."""
        schema = self._followed(schema)
        if "anyOf" in schema:
            choices = dict.fromkeys(self._type(one) for one in schema["anyOf"])
            return (", " if all(one.startswith("`") for one in choices) else "; or ").join(choices)
        if "enum" in schema:
            # A bare off is false in YAML: the schema allows both, and nobody need write false.
            return ", ".join(f"`{one}`" for one in schema["enum"] if one is not False)
        if "const" in schema:
            return f"`{schema['const']}`"
        if self._kinds(schema) or schema.get("properties"):
            return "keys: see below"
        match schema.get("type"):
            case "array" if "prefixItems" in schema:
                return f"[{', '.join(map(self._type, schema['prefixItems']))}]"
            case "array":
                return f"list of {self._type(schema['items'])}"
            case "object":
                values = schema.get("additionalProperties") or next(
                    iter(schema.get("patternProperties", {}).values()), {}
                )
                return f"names, each with {self._type(values)}" if isinstance(values, dict) and values else "any keys"
            case "integer" | "number" as kind:
                return ("whole number" if kind == "integer" else "number") + _bounds(schema)
            case kind:
                return {"boolean": "true or false", "null": "null", "string": "text"}.get(str(kind), "anything")

    def _followed(self, schema: dict[str, Any]) -> dict[str, Any]:
        return self.defined[schema["$ref"].rpartition("/")[2]] if "$ref" in schema else schema

    def _inner(self, schema: dict[str, Any]) -> dict[str, Any]:
        """What a key holds, without a list around it, and if it is there."""
        schema = self._followed(schema)
        for one in schema.get("anyOf", ()):
            if one.get("type") != "null":
                return self._inner(one)
        return self._inner(schema["items"]) if self._is_list(schema) else schema

    def _is_list(self, schema: dict[str, Any]) -> bool:
        return self._followed(schema).get("type") == "array" and "items" in schema

    def _kinds(self, schema: dict[str, Any]) -> dict[str, dict[str, Any]]:
        """The kinds of component that a key can hold."""
        found = self._inner(schema) if "oneOf" not in schema else schema
        mapping = found.get("discriminator", {}).get("mapping", {})
        return {kind: self._followed({"$ref": reference}) for kind, reference in mapping.items()}


def _bounds(schema: dict[str, Any]) -> str:
    low, high = schema.get("minimum"), schema.get("maximum")
    high = None if high is not None and high >= _NO_BOUND else high
    above, below = schema.get("exclusiveMinimum"), schema.get("exclusiveMaximum")
    if low is not None and high is not None:
        return f", {low:,} to {high:,}"
    words = {"at least": low, "above": above, "at most": high, "below": below}
    said = [f"{word} {bound:,}" for word, bound in words.items() if bound is not None]
    return f", {' and '.join(said)}" if said else ""


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
    for name, found in [("dqe", command), *_commands(command, "dqe")]:
        context = found.make_context(name, [], resilient_parsing=True)
        usage = f"    {name} {' '.join(found.collect_usage_pieces(context))}"
        parts += [f"## `{name}`", *filter(None, [_text(found.help or "")]), usage]
        records = [record for param in found.get_params(context) if (record := param.get_help_record(context))]
        rows = [(f"`{option}`", _text(meaning)) for option, meaning in records if not option.startswith("--help")]
        parts += [_table(("argument or option", "what it is"), rows)] if rows else []
        parts += [_text(found.epilog)] if found.epilog else []
    return "\n\n".join(parts) + "\n"


def _commands(command: Any, name: str) -> Iterator[tuple[str, Any]]:
    """The commands of a group and of the groups in it."""
    for child, found in getattr(command, "commands", {}).items():
        if hasattr(found, "commands"):
            yield from _commands(found, f"{name} {child}")
        else:
            yield f"{name} {child}", found


def assets(settings: Settings) -> dict[str, Stage]:
    """The stages by asset; one stands for all captioners, one for all subsets, and so on."""
    from dqe_assets.orchestration.graph import stages

    found: dict[str, Stage] = {}
    for stage in stages(settings):
        found.setdefault(_generic(stage.name), stage)
    return found


def _generic(asset: str) -> str:
    prefix, slash, _ = asset.partition("/")
    return f"{prefix}/NAME" if slash else asset


def _made(stage: Stage) -> str:
    if stage.of_runs:
        return "for each training run"
    if stage.run_inputs and not stage.inputs:
        return "over all training runs"
    return "for each shard" if stage.partitioned else "over all shards"


def _about(stage: Stage) -> str:
    reads = dict.fromkeys(_generic(name) for name in (*stage.inputs, *stage.run_inputs, *stage.unpartitioned_inputs))
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
