"""The third stage: what models say of the images, an asset for each captioner."""

from __future__ import annotations

import contextlib
import inspect
from dataclasses import replace
from typing import TYPE_CHECKING

import pyarrow as pa

from dqe_assets.caption import metadata
from dqe_assets.caption.prompts import prompt_of
from dqe_assets.caption.synthetic import synthetic_captions
from dqe_assets.caption.tables import SYNTHETIC_CAPTIONS
from dqe_assets.caption.texts import source_captions
from dqe_assets.core.checks import complete, covered, unique
from dqe_assets.core.pictured import pictured
from dqe_assets.core.schema import ORIGINAL, SYNTHETIC_CAPTIONS_PREFIX
from dqe_assets.core.stage import CAPTIONER_PREFIX, Stage, stage
from dqe_resources.captioners.protocol import PromptedCaptioner
from dqe_resources.store import StorageError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from dqe_assets.core.work import Work
    from dqe_resources.captioners.protocol import Captioner

ROWS_AT_ONCE = 16
"""Rows of an input that are read at once, in addition to the row group that they are in."""

_SETTINGS = "\n\nAttributes:"


def captions_of(captioner: Captioner, captioners: Sequence[Captioner]) -> Stage:
    """The asset ``synthetic_captions/<name>`` of one of these captioners."""
    others = [
        f"{SYNTHETIC_CAPTIONS_PREFIX}{source}" for source in captioner.captions_read.values() if source != ORIGINAL
    ]

    def prompt_hash(_: Work) -> str | None:
        prompt = prompt_of(captioner)
        return prompt.hash if prompt else None

    @stage(
        name=f"{SYNTHETIC_CAPTIONS_PREFIX}{captioner.name}",
        kinds={"parquet", captioner.kind},
        code_version="2",
        schema=SYNTHETIC_CAPTIONS,
        inputs=dict.fromkeys(("raw_samples", captioner.asset, *others)),
        resources={"captioner": f"{CAPTIONER_PREFIX}{captioner.name}"},
        checks=[
            unique("uid"),
            complete(),
            covered(["caption"], "a caption", minimum=captioner.min_coverage, asset=captioner.asset),
        ],
        metadata=metadata.synthetic_captions_of(captioners),
        pool=captioner.pool,
        signature=prompt_hash,
    )
    def synthetic(work: Work, captioner: Captioner) -> pa.Table:
        """What one captioner says of each image, how it was asked, and what is wrong with it.

        The text is kept as generated, next to the straightforward caption made from it. A shard that was interrupted
        goes on with the missing captions.
        """
        return synthetic_captions(
            work.read("raw_samples", ["uid"])["uid"].combine_chunks(),
            pictured(work, captioner.asset).to_numpy(),
            _batches(work, captioner),
            captioner,
            prompt=prompt_of(captioner),
            known=known_rows(work, SYNTHETIC_CAPTIONS) if isinstance(captioner, PromptedCaptioner) else None,
            keep=work.checkpoint.append,
            track=work.track,
        )

    about = (inspect.getdoc(type(captioner)) or "").partition(_SETTINGS)[0]
    return replace(synthetic, description=f"{synthetic.description}\n\n{about}".strip())


def _batches(work: Work, captioner: Captioner) -> Iterator[pa.RecordBatch]:
    """What a captioner reads of all samples: the columns of its asset, and the captions of other sources."""
    others = {
        name: source_captions(work, source, column=captioner.read_column)
        for name, source in captioner.captions_read.items()
    }
    first = 0
    for batch in work.batches(captioner.asset, captioner.columns, ROWS_AT_ONCE):
        found = {name: texts.slice(first, batch.num_rows) for name, texts in others.items()}
        yield pa.record_batch({**dict(zip(batch.schema.names, batch.columns, strict=True)), **found})
        first += batch.num_rows


def known_rows(work: Work, schema: pa.Schema) -> pa.Table:
    """Rows that an interrupted run, or one that failed a check, made from the same inputs in the same way.

    Args:
        work: the work.
        schema: the columns of them.
    """
    known = [work.checkpoint.rows(schema)]
    with contextlib.suppress(StorageError):
        stored = work.store.get(work.asset, work.partition)
        if stored and stored.stamp.failed_checks and stored.stamp.fingerprint == work.version:
            known.append(work.read(work.asset, schema.names))
    return pa.concat_tables(known)
