"""The first files of a data folder: dqe.yaml, and the schema that editors check it with."""

from __future__ import annotations

from importlib.resources import files
from typing import TYPE_CHECKING, Any

from dqe_assets.cli.terminal import say_written

if TYPE_CHECKING:
    from pathlib import Path

    from dqe_resources.sources.protocol import Source

_DEFAULT = "dqe.yaml"
_SOURCES = "sources:"


def default_settings() -> str:
    """The dqe.yaml that comes with the platform: the embedded sample, and examples of what can be set, as comments."""
    return files("dqe_assets.cli").joinpath(_DEFAULT).read_text(encoding="utf-8")


def with_source(source: Source, settings: dict[str, Any]) -> str:
    """``default_settings`` with one source in place of those that it lists."""
    lines = default_settings().splitlines(keepends=True)
    first = lines.index(f"{_SOURCES}\n") + 1
    last = next(place for place in range(first, len(lines)) if not lines[place].strip())
    return "".join([*lines[:first], source_lines(source, settings), *lines[last:]])


def source_lines(source: Source, settings: dict[str, Any]) -> str:
    """A source as it stands in dqe.yaml, with the settings that it could have as comments.

    Args:
        source: the source.
        settings: those of its settings that are to be written.
    """
    import yaml

    written = {"kind": source.kind, "name": source.name, **settings}
    (first, *more) = yaml.safe_dump(written, sort_keys=False, allow_unicode=True, width=10_000).splitlines()
    lines = [f"  - {first}", *(f"    {line}" for line in more)]
    for name, field in type(source).model_fields.items():
        if name not in written:
            value = yaml.safe_dump(field.get_default(call_default_factory=True), default_flow_style=True).split("\n")[0]
            lines.append(f"    # {name}: {value}  # {field.description}")
    return "\n".join(lines) + "\n"


def write_settings(path: Path, text: str) -> None:
    """Write dqe.yaml and, next to it, the schema that its first line names; say so."""
    from dqe_assets.cli.settings_schema import SCHEMA_FILE, settings_schema_text
    from dqe_resources.store import replace_file

    path.parent.mkdir(parents=True, exist_ok=True)
    replace_file(path.with_name(SCHEMA_FILE), lambda target: target.write(settings_schema_text().encode()))
    replace_file(path, lambda target: target.write(text.encode()))
    say_written(path)
