"""``dqe search``: the samples nearest in meaning to a text, an image or another sample."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dqe_assets.cli.terminal import clear_errors, json_option, print_json, print_table, say, say_next, say_written
from dqe_resources.printable import command

if TYPE_CHECKING:
    import pyarrow as pa

SNIPPET = 120
"""Characters of a caption that are shown."""

SHOWN = 50
"""Hits that are shown; a file gets all."""

Text = Annotated[str | None, typer.Argument(help="What to look for.")]
Image = Annotated[Path | None, typer.Option(help="An image to look for instead.")]
Like = Annotated[str | None, typer.Option(metavar="UID_OR_NAME", help="Look for samples like this one.")]
Where = Annotated[
    list[str] | None,
    typer.Option(
        help="A condition: source=sample, language=en, similarity_original>=0.3, or on a signal; may be repeated."
    ),
]
Using = Annotated[str, typer.Option("--in", help="What to search: image, original, or a captioner's name.")]
Limit = Annotated[int, typer.Option(min=1, max=100_000, help="How many samples to find.")]
Unique = Annotated[bool, typer.Option("--unique", help="Leave out redundant duplicates.")]
Json = Annotated[
    bool,
    json_option(
        "hits, each with uid, score, image_name, caption, caption_source, similarity, language, source, shard, url, "
        "width and height."
    ),
]
Save = Annotated[Path | None, typer.Option(metavar="FILE.parquet", help="Write what is found to a Parquet file.")]


def search(
    text: Text = None,
    image: Image = None,
    like: Like = None,
    where: Where = None,
    *,
    using: Using = "image",
    limit: Limit = 10,
    save: Save = None,
    unique: Unique = False,
    as_json: Json = False,
) -> None:
    """Find the samples nearest in meaning to a text, an image, or another sample."""
    with clear_errors():
        from dqe_assets.orchestration.settings import load_settings
        from dqe_assets.search.query import Query, hits_table, search_collection

        query = Query(text, image, like)
        hits = search_collection(
            load_settings(sources_may_be_away=True), query, where=where or [], using=using, limit=limit, unique=unique
        )
        found = hits_table(hits, using)
        if save is not None:
            _save(found, save)
        if as_json:
            print_json({"hits": found})
            return
        if hits:
            print_table(_shown(found))
        else:
            say("Nothing found: no sample meets the conditions.")
        if len(hits) > SHOWN:
            say("and {} more", f"{len(hits) - SHOWN:,}")
        if save is not None:
            say_written(save, f"{found.num_rows:,} samples")
        if hits:
            say_next(command("dqe get", found["image_name"][0].as_py()), command("dqe search --like", hits[0].uid))


def _shown(found: pa.Table) -> pa.Table:
    """The first hits, with the beginnings of their captions."""
    import pyarrow as pa

    first = found.slice(0, SHOWN).select(["score", "image_name", "caption", "source"])
    captions = pa.array([snippet(caption) for caption in first["caption"].to_pylist()], pa.string())
    return first.set_column(2, "caption", captions)


def snippet(text: str | None) -> str:
    """The beginning of a text on one line, cut between words."""
    line = " ".join((text or "").split())
    if len(line) <= SNIPPET:
        return line
    cut = line.rfind(" ", SNIPPET // 2, SNIPPET)
    return f"{line[: cut if cut > 0 else SNIPPET]}…"


def _save(found: pa.Table, path: Path) -> None:
    import pyarrow.parquet as pq

    from dqe_resources.store import replace_file

    replace_file(path, lambda target: pq.write_table(found, target, write_page_checksum=True))
