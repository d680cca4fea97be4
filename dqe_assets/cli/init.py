"""``dqe init``: writes the settings for your own data."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from dqe_assets.cli.terminal import clear_errors, console, fail, progress_bars, say, say_next

if TYPE_CHECKING:
    from pathlib import Path

    from dqe_resources.sources.protocol import Source

What = Annotated[
    str,
    typer.Argument(
        metavar="WHAT",
        help="A folder of images; a Parquet file, a list of URLs (.csv, .tsv, .jsonl) or a WebDataset tar, a folder of "
        "them or a pattern in quotes; or owner/name of a dataset on the Hugging Face hub.",
    ),
]
Name = Annotated[str | None, typer.Option(help="Name of the source; by default from WHAT.")]
Caption = Annotated[str | None, typer.Option("--caption-column", help="Column of the caption.")]
Image = Annotated[str | None, typer.Option("--image-column", help="Column of the image.")]
Url = Annotated[str | None, typer.Option("--url-column", help="Column of the image's URL.")]
Key = Annotated[str | None, typer.Option("--key-column", help="Column with a name for each row that never changes.")]
Split = Annotated[str | None, typer.Option(help="Split of a Hugging Face dataset.")]
Force = Annotated[bool, typer.Option("--force", help="Overwrite the dqe.yaml that is there.")]


def init(
    what: What,
    name: Name = None,
    caption: Caption = None,
    image: Image = None,
    url: Url = None,
    key: Key = None,
    split: Split = None,
    *,
    force: Force = False,
) -> None:
    """Write dqe.yaml for your own data: look at the data, guess its columns, and say what was found."""
    with clear_errors():
        import yaml
        from pydantic import ValidationError

        from dqe_assets.cli.data_folder import source_lines, with_source, write_settings
        from dqe_assets.orchestration.settings import Settings, configuration_path
        from dqe_resources.configurable import in_words
        from dqe_resources.errors import UsageError
        from dqe_resources.sources.guess import guess, source_name
        from dqe_resources.sources.guess_columns import Chosen

        path = configuration_path()
        with console.status("looking at the data"):
            found = guess(what, Chosen(image=image, url=url, caption=caption, key=key, split=split))
        settings = _from_folder(found.settings, path.parent)
        try:
            source = found.source.model_validate({"name": name or source_name(what), **settings})
        except ValidationError as error:
            raise UsageError(f"--name {name}: {in_words(error.errors()[0])}") from error
        if path.exists() and not force:
            say("As one of the sources in dqe.yaml it would be:", style="dim")
            for line in source_lines(source, settings).splitlines():
                say("{}", line)
            fail(f"{path} exists already; add the source to it, or overwrite it with --force")
        for fact in found.facts:
            say("{}", fact)
        if found.is_seen:
            _print_size(source)
        text = with_source(source, settings)
        Settings.model_validate(yaml.safe_load(text))
        write_settings(path, text)
        say_next("dqe materialize")


def _print_size(source: Source) -> None:
    """Say how many rows and shards there are and what is left out: every file is looked at, but no image."""
    from dqe_resources.sources.left_out import LeftOut

    with progress_bars():
        found = list(source.shards())
    rows, left_out = [shard.rows for shard in found], LeftOut()
    for shard in found:
        left_out.update(shard.left_out)
    shards = f"{len(rows):,} shard{'s' if len(rows) > 1 else ''}"
    say(f"source {{}}, kind {source.kind}: {sum(rows):,} rows in {shards}", source.name)
    if left_out:
        say("left out: {}", left_out)


def _from_folder(settings: dict[str, Any], folder: Path) -> dict[str, Any]:
    """The settings with a path below the data folder as dqe.yaml counts it: from there."""
    path = settings.get("path", "")
    prefix = f"{folder}/"
    return settings | {"path": path.removeprefix(prefix)} if path.startswith(prefix) else settings
