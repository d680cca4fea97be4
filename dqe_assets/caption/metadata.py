"""The metadata of these assets in the UI: figures, a preview, and plots."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from dqe_assets.caption.accounting import account
from dqe_assets.caption.flags import FLAGS
from dqe_assets.caption.kept import can_find_names, names_kept
from dqe_assets.caption.tables import SYNTHETIC_CAPTIONS
from dqe_assets.caption.texts import source_captions
from dqe_assets.core.metadata import PREVIEW_ROWS, Metadata, markdown_table, preview, value_counts
from dqe_assets.core.schema import ORIGINAL, SYNTHETIC_CAPTIONS_PREFIX
from dqe_resources.store import StorageError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from dqe_assets.core.work import Work
    from dqe_resources.captioners.protocol import Captioner

_NAMED_IN = 2_000
"""Samples of a shard in which names are looked for: to find them takes a second or two for a thousand."""


def synthetic_captions_of(captioners: Sequence[Captioner]) -> Callable[[Work, pa.Table, Captioner], Metadata]:
    """Makes the metadata of captions, which compares them with the stored ones of these captioners."""

    def synthetic_captions(work: Work, table: pa.Table, captioner: Captioner) -> Metadata:
        kept = _kept(work, table) if ORIGINAL in captioner.captions_read.values() else {}
        return {**_one(table, captioner), **kept, "captioners": markdown_table(*_captioners_compared(work, captioners))}

    return synthetic_captions


def _one(table: pa.Table, captioner: Captioner) -> Metadata:
    """How each caption ended, what is wrong with some, what they took, a preview."""
    words = [len(caption.split()) for caption in table["caption"].to_pylist() if caption]
    taken = account(table)
    cost = taken.cost(captioner.price_per_hour)
    return {
        "captions": len(words),
        "mean_words": round(float(np.mean(words)), 1) if words else None,
        "model": captioner.model_id,
        "prompt": next((name for name in table["prompt"].to_pylist() if name), None),
        "prompt_tokens": taken.prompt_tokens,
        "completion_tokens": taken.completion_tokens,
        "seconds_per_caption": taken.seconds_per_caption and round(taken.seconds_per_caption, 4),
        "cost": None if cost is None else round(cost, 4),
        "finish_reasons": markdown_table(
            ["finish reason", "captions"], sorted(value_counts(table["finish_reason"]).items())
        ),
        "flags": markdown_table(["flag", "captions", "meaning"], [[f, n, FLAGS[f]] for f, n in taken.flags.items()]),
        "errors": markdown_table(
            ["error", "samples"], list(value_counts(table["error"].drop_null()).items())[:PREVIEW_ROWS]
        ),
        "preview": preview(table.filter(pc.is_valid(table["caption"])), ["caption", "finish_reason", "flags"]),
    }


def _kept(work: Work, table: pa.Table) -> Metadata:
    """The share of the originals' names that captions made of them keep, and those most often lost."""
    if not can_find_names():
        return {"names_kept": "not measured: names are found by spaCy: pip install '.[nouns]'"}
    captions = table["caption"].slice(0, _NAMED_IN).to_pylist()
    found = names_kept(source_captions(work, ORIGINAL).slice(0, _NAMED_IN).to_pylist(), captions)
    return {
        "names_in_originals": found.names,
        "names_kept": found.share and round(found.share, 4),
        "names_lost": markdown_table(["name", "captions without it"], list(found.lost.items())[:PREVIEW_ROWS]),
    }


def _captioners_compared(work: Work, captioners: Sequence[Captioner]) -> tuple[list[str], list[list[Any]]]:
    """The stored captions of every captioner for the same shard; how well they fit is measured later."""
    rows = []
    columns = ["caption", "finish_reason", "flags", "prompt_tokens", "completion_tokens", "seconds", "finished_at"]
    for captioner in captioners:
        asset = f"{SYNTHETIC_CAPTIONS_PREFIX}{captioner.name}"
        try:
            taken = account(work.store.read(asset, work.partition, SYNTHETIC_CAPTIONS, columns))
        except StorageError:
            # Not made yet, or by an earlier version.
            continue
        flags = ", ".join(f"{flag} {count}" for flag, count in taken.flags.items())
        cost = taken.cost(captioner.price_per_hour)
        rows.append(
            [captioner.name, captioner.model_id, taken.captions, taken.errors, taken.seconds_per_caption, cost, flags]
        )
    return ["captioner", "model", "captions", "errors", "seconds a caption", "cost", "flags"], rows
