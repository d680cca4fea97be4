"""Rows of a source measured by the functions that the assets are made by, in no store."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, NoReturn

import pyarrow as pa
import pyarrow.compute as pc

from dqe_assets.caption.normalise import normalise_captions
from dqe_assets.core.schema import ORIGINAL, has_image
from dqe_assets.features.extract import image_features
from dqe_assets.features.tables import IMAGE_FEATURES
from dqe_assets.ingest.raw import is_fetched, raw_samples
from dqe_assets.ingest.settings import ImageLimits
from dqe_assets.ingest.tables import RAW_SAMPLES
from dqe_assets.score import alignment
from dqe_assets.score.text_quality import text_quality
from dqe_resources.models.image_model import ImageModel
from dqe_resources.scorers.label_space import LabelSpace

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from dqe_resources.sources.rows import SourceRow

KEYS = ["uid", "caption_source"]
"""What tables of captions are keyed by."""

_OF_RAW = [
    *("uid", "image_name", "caption", "status", "reason", "detail", "sha256", "format", "bytes"),
    *("width", "height", "exif_orientation"),
]
_VECTORS = ["embedding", "label_ids", "label_probabilities"]


def looked_at(
    source: str, shard: str, rows: Iterable[SourceRow], check: Callable[[pa.Table], None] = lambda _: None
) -> tuple[pa.Table, pa.Table]:
    """Rows read and decoded, and their images measured: ``RAW_SAMPLES`` without images, and ``IMAGE_FEATURES``.

    Args:
        source: name of the source.
        shard: partition key, as a store would have it.
        rows: n rows, few of whose images are in memory at once.
        check: is given each batch of both, and may raise.
    """
    raw = [RAW_SAMPLES.empty_table().drop_columns("image")]
    features = [IMAGE_FEATURES.empty_table()]
    given = map(_unfetched, rows)
    for batch in raw_samples(lambda: given, source=source, shard=shard, limits=ImageLimits(), fetch=_fetch):
        table = pa.Table.from_batches([batch])
        raw.append(table.drop_columns("image"))
        features.append(image_features(table.select(["uid", "image"]), ImageModel()))
        check(raw[-1].append_column("fault", features[-1]["fault"]))
    return pa.concat_tables(raw), pa.concat_tables(features)


def scored(raw: pa.Table, features: pa.Table) -> pa.Table:
    """The original captions of what ``looked_at`` gives, as ``CAPTION_SCORES``, by the scorer inside packages."""
    scorer = LabelSpace()
    samples = features.select(scorer.columns).combine_chunks().to_batches(alignment.ROWS_AT_ONCE)
    texts = {ORIGINAL: normalise_captions(raw["caption"])}
    embeddings = alignment.joint_embeddings(raw["uid"], samples, has_image(raw).to_numpy(), texts, scorer)
    return alignment.caption_scores(embeddings, [ORIGINAL], scorer.long_captions)


def measured(source: str, shard: str, rows: Iterable[SourceRow]) -> pa.Table:
    """All that ``dqe_assets.quality`` says of n rows, by uid; the arguments are those of ``looked_at``."""
    raw, features = looked_at(source, shard, rows)
    texts = text_quality(raw["uid"], {ORIGINAL: raw["caption"].combine_chunks()})
    best = pc.list_element(features["label_probabilities"], 0).cast(pa.float32())
    table = raw.select(_OF_RAW)
    for other in (
        features.drop_columns(["uid", *_VECTORS]).append_column("top_label_probability", best),
        scored(raw, features).drop_columns(KEYS),
        texts.drop_columns(KEYS),
    ):
        for name in other.column_names:
            table = table.append_column(other.schema.field(name), other[name])
    return table


def _unfetched(row: SourceRow) -> SourceRow:
    if not is_fetched(row):
        return row
    return replace(
        row, fault="the source has only a URL of its image, and nothing is fetched here: dqe materialize does"
    )


def _fetch(_: object) -> NoReturn:
    raise AssertionError("no row is left to be fetched")
