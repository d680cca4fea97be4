"""Measures of images and captions that are in no store, by the functions that the assets are made by."""

from __future__ import annotations

from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from dqe_assets.api.frames import frame_of
from dqe_assets.api.given import file_of, given_images, given_texts, models_at_hand, refuse_failed, row_of
from dqe_assets.api.measure import KEYS, looked_at, measured, scored
from dqe_assets.api.progress import bar
from dqe_assets.api.rows import Rows
from dqe_assets.core.schema import ORIGINAL
from dqe_assets.score.tables import CAPTION_SCORES
from dqe_assets.score.text_quality import text_quality as of_texts
from dqe_resources.errors import UsageError
from dqe_resources.sources.guess_columns import Chosen

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from dqe_resources.sources.rows import SourceRow

_ROWS_AT_ONCE = 10_000
"""Rows measured at once, as many as a shard has by default: few of their images are in memory at once."""


def quality(dataset: Any, *, image: str | None = None, caption: str | None = None) -> Rows:
    """What can be said of every image and caption of a data set, without a store: a row for each of its rows, in order.

    The values are those of the assets ``raw_samples``, ``image_features``, ``caption_scores`` and ``text_quality``, bit
    for bit: the same functions give them, by the models that come inside packages. Nothing is fetched.

    Args:
        dataset: a folder of images with their captions, or of Parquet files or WebDataset tars, or such a file, as
            ``dqe init`` takes it; a pandas or Polars data frame, a ``datasets.Dataset``, or an Arrow table, with a
            column of images (bytes, paths, PIL images, or dictionaries with bytes or path).
        image: the column of images, where it cannot be told.
        caption: the column of captions, where it cannot be told.

    Returns:
        ``row`` (from 0); ``image_name``, the file; ``caption`` as found; ``status``, ``reason`` and ``detail``: what
        cannot be read, or is wrong, is a row with its reason, and null in what was not measured; then the columns of
        the assets, but no vectors. Of a folder also ``uid``, as it is in a store that ``dqe init`` began. Memory grows
        with these columns alone, some 500 bytes a row.

    Raises:
        UsageError: it cannot be told what the data is, or which column holds what.
        SourceError: a file that lists the data is damaged.
    """
    chosen = Chosen(image=image, caption=caption, option="{}='{}'")
    with models_at_hand():
        return Rows(_of_files(dataset, chosen) if isinstance(dataset, str | Path) else _of_frame(dataset, chosen))


def _of_files(path: str | Path, chosen: Chosen) -> pa.Table:
    from dqe_resources.sources.guess import guess, source_name

    place = Path(path).expanduser().absolute()
    if not place.exists():
        raise UsageError(f"there is nothing at {place}: give a folder or a file")
    found = guess(str(place), chosen)
    source = found.source.model_validate({"name": source_name(str(place)), **found.settings})
    shards = list(source.shards())
    with bar("quality", sum(shard.rows for shard in shards)) as advance:
        tables = [
            measured(source.name, source.key(shard.index), _told(source.rows(shard.index), advance)) for shard in shards
        ]
    return _numbered(pa.concat_tables(tables))


def _of_frame(dataset: Any, chosen: Chosen) -> pa.Table:
    frame = frame_of(dataset)
    columns = [name for name in frame.columns(chosen) if name is not None]
    names: list[str | None] = []

    def rows() -> Iterator[SourceRow]:
        for number, (picture, *said) in enumerate(frame.read(columns)):
            names.append(file_of(picture))
            yield row_of(number, picture, *said)

    with bar("quality", frame.rows) as advance:
        tables = [measured("data", "data", part) for part in _parts(_told(rows(), advance))]
    # A row is named by its number only here; the files are what a person knows.
    found = _numbered(pa.concat_tables(tables or [measured("data", "data", [])])).drop_columns("uid")
    place = found.column_names.index("image_name")
    return found.set_column(place, "image_name", pa.array(names, pa.string()))


def _numbered(table: pa.Table) -> pa.Table:
    return table.add_column(0, "row", pa.array(range(table.num_rows), pa.int32()))


def _told(rows: Iterable[SourceRow], advance: Callable[[int], object]) -> Iterator[SourceRow]:
    for row in rows:
        yield row
        advance(1)


def _parts(rows: Iterator[SourceRow]) -> Iterator[Iterable[SourceRow]]:
    """Runs of rows, each to be taken before the next."""
    while (first := next(rows, None)) is not None:
        yield chain([first], islice(rows, _ROWS_AT_ONCE - 1))


def score(images: Iterable[Any], captions: Iterable[str | None]) -> Rows:
    """How well each caption fits its image, by the scorer that comes inside packages, as ``caption_scores`` has it.

    Args:
        images: n images: bytes, paths, or PIL images.
        captions: n captions; None for none.

    Returns:
        n rows: ``similarity`` (cosine, -1 to 1; null without a caption), ``tokens``, ``truncated``, and of a caption
        too long for the encoder what other policies give. Cosines rank captions and images; those of another scorer
        are not comparable.

    Raises:
        RowError: an image cannot be read, or a caption is no text; says which row.
        UsageError: there are not as many captions as images.
    """
    pictures, texts = list(given_images(images)), given_texts(captions)
    if len(pictures) != len(texts):
        raise UsageError(f"{len(pictures):,} images and {len(texts):,} captions: expected as many of both")
    with models_at_hand(), bar("score", len(texts)) as advance:
        rows = _told((row_of(number, *pair) for number, pair in enumerate(zip(pictures, texts, strict=True))), advance)
        looked = (
            looked_at("data", "data", part, lambda batch: refuse_failed(batch, pictures)) for part in _parts(rows)
        )
        tables = [scored(raw, features) for raw, features in looked]
    return Rows(pa.concat_tables([CAPTION_SCORES.empty_table(), *tables]).drop_columns(KEYS))


def text_quality(captions: Iterable[str | None]) -> Rows:
    """What can be said of captions by their text alone, as the asset ``text_quality`` has it.

    Args:
        captions: n captions; None for none.

    Returns:
        n rows: ``language`` and its probability, ``words``, ``characters``, ``special_ratio``, ``digit_ratio``,
        ``repetition``, and the ``patterns`` found.

    Raises:
        RowError: a caption is no text; says which row.
    """
    texts = pa.array(given_texts(captions), pa.string())
    with models_at_hand():
        found = of_texts(pa.chunked_array([pa.repeat("", len(texts))]), {ORIGINAL: texts})
    return Rows(found.drop_columns(KEYS))
