"""Whether filters and scores work on these data: how far they agree with what people decided."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from dqe_assets.filtering.expression import parse
from dqe_assets.filtering.filter_steps import fitted_filters, samples_of
from dqe_assets.filtering.select import leaf_masks
from dqe_assets.reviews.agreement import Estimate, auc_and_precision, precision_and_recall, proportion

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import duckdb
    from numpy.typing import NDArray

    from dqe_assets.core.signals import Signal
    from dqe_resources.store import Store

ALL, AT_RANDOM = "all decided", "drawn at random"

FILTERS = pa.schema(
    [
        *((name, pa.string()) for name in ("filter", "samples")),
        *((name, pa.int64()) for name in ("kept_passed", "kept_stopped", "dropped_passed", "dropped_stopped")),
        *((f"{name}{end}", pa.float64()) for name in ("precision", "recall") for end in ("", "_low", "_high")),
    ]
)
"""For each filter and group of samples: how many of what people keep and drop it lets through and stops; its precision
and recall."""

SCORES = pa.schema(
    [
        *((name, pa.string()) for name in ("score", "samples")),
        *((name, pa.int64()) for name in ("kept", "dropped", "unknown")),
        *((f"{name}{end}", pa.float64()) for name in ("auc", "average_precision") for end in ("", "_low", "_high")),
        ("by_chance", pa.float64()),
    ]
)
"""For each score and group of samples: how many have it, how many not; its figures; the average precision of chance."""


def filter_masks_of(
    store: Store, facts: Mapping[str, Any], signals: Mapping[str, Signal], decided: pa.Table
) -> dict[str, NDArray[np.bool_]]:
    """What each filter makes of samples, as if nobody had decided about them.

    A shard is in memory at a time.

    Args:
        store: the store.
        facts: what the manifest of ``filter_masks`` says, with the thresholds that were found of all samples.
        signals: the signals, by name.
        decided: ``uid`` and ``shard``, [n].

    Returns:
        Whether it lets each through, bool [n], by the filter's name. A sample without an image passes none.

    Raises:
        PoolError, StorageError: the store cannot be read.
    """
    fitted = fitted_filters(store, facts, signals)
    expressions = {one["filter"]: parse(one["expression"]) for one in facts["filters"]}
    found = {name: np.zeros(len(decided), bool) for name in expressions}
    uids = decided["uid"].combine_chunks()
    for shard in sorted({*decided["shard"].to_pylist()} & {*facts["shards"]}):
        mine = uids.filter(pc.equal(decided["shard"].combine_chunks(), shard))
        table = samples_of(store, shard, mine, fitted, signals)
        at = pc.index_in(table["uid"], value_set=uids).to_numpy()
        masks = leaf_masks(fitted, table)
        for name, expression in expressions.items():
            found[name][at] = expression.mask(masks)
    return found


def with_measures(connection: duckdb.DuckDBPyConnection, decided: pa.Table, measures: Sequence[str]) -> pa.Table:
    """What people decided, with the measures of each sample that has an image, after ``review_sample.measure``.

    Args:
        connection: to the warehouse.
        decided: ``uid``, ``shard``, ``is_kept``, ``drawn_by`` and ``weight``.
        measures: the measures.

    Returns:
        The same columns and the measures, float64; what has no image, or is not in the warehouse, is left out.
    """
    connection.register("decided", decided)
    columns = "".join(f', m."{name}"' for name in measures)
    query = f"SELECT d.*{columns} FROM decided d JOIN measured m USING (uid) ORDER BY uid"  # noqa: S608
    return connection.sql(query).to_arrow_table()


def agreement(
    decided: pa.Table, passes: Mapping[str, NDArray[np.bool_]], measures: Sequence[str]
) -> tuple[pa.Table, pa.Table]:
    """How far filters and scores agree with people.

    Args:
        decided: what ``with_measures`` gives, [n].
        passes: which of them each filter lets through, bool [n].
        measures: the scores.

    Returns:
        Tables of ``FILTERS`` and ``SCORES``: of all samples that people decided about, each counted once; and of those
        that were drawn at random, each counted as often as it stands for samples.
    """
    is_kept = decided["is_kept"].to_numpy()
    weight = pc.fill_null(decided["weight"], 1.0).to_numpy()
    drawn = pc.fill_null(pc.equal(decided["drawn_by"], "random"), fill_value=False).to_numpy()
    filters, scores = [], []
    for group, rows, weights in (
        (ALL, np.ones(len(decided), bool), np.ones(len(decided))),
        (AT_RANDOM, drawn, weight),
    ):
        if not rows.any():
            continue
        for name, mask in passes.items():
            both = precision_and_recall(mask[rows], is_kept[rows], weights[rows])
            filters.append(
                {
                    "filter": name,
                    "samples": group,
                    "kept_passed": int((rows & mask & is_kept).sum()),
                    "kept_stopped": int((rows & ~mask & is_kept).sum()),
                    "dropped_passed": int((rows & mask & ~is_kept).sum()),
                    "dropped_stopped": int((rows & ~mask & ~is_kept).sum()),
                    **_ends("precision", both[0]),
                    **_ends("recall", both[1]),
                }
            )
        for name in measures:
            values = pc.fill_null(decided[name], np.nan).to_numpy()
            has = rows & np.isfinite(values)
            if not has.any():
                continue
            both = auc_and_precision(values[has], is_kept[has], weights[has])
            scores.append(
                {
                    "score": name,
                    "samples": group,
                    "kept": int((has & is_kept).sum()),
                    "dropped": int((has & ~is_kept).sum()),
                    "unknown": int((rows & ~has).sum()),
                    **_ends("auc", both[0]),
                    **_ends("average_precision", both[1]),
                    "by_chance": float(weights[has & is_kept].sum() / weights[has].sum()),
                }
            )
    return pa.Table.from_pylist(filters, FILTERS), pa.Table.from_pylist(scores, SCORES)


def notes(decided: pa.Table, left_out: int) -> list[str]:
    """What these figures can say, and what they cannot.

    Args:
        decided: what ``with_measures`` gives.
        left_out: how many decided samples have no image.
    """
    total, kept = len(decided), pc.sum(decided["is_kept"]).as_py() or 0
    drawn = decided.filter(pc.fill_null(pc.equal(decided["drawn_by"], "random"), fill_value=False))
    said = [f"people decided about {total:,} samples with an image: {kept:,} are kept, {total - kept:,} dropped"]
    if left_out:
        said.append(f"{left_out:,} more have no image, and are left out")
    if not kept or kept == total:
        said.append("people decided one way only: nothing can be said of how well a score tells apart")
    if not len(drawn):
        said.append(
            "none of them was drawn at random: the figures hold for the samples that people looked at, and say nothing "
            "of the others; for that: dqe review sample --by random"
        )
    else:
        share = proportion(drawn["is_kept"].to_numpy(), pc.fill_null(drawn["weight"], 1.0).to_numpy())
        said.append(
            f"{len(drawn):,} of them were drawn at random and stand for all samples: people would keep "
            f"{share.value:.0%} of these ({share.low:.0%} to {share.high:.0%}), if what was drawn and not decided "
            "is no different"
        )
    near = pc.sum(pc.fill_null(pc.not_equal(decided["drawn_by"], "random"), fill_value=False)).as_py() or 0
    if near:
        said.append(
            f"{near:,} were chosen because measures disagree about them, or are near a threshold: of all decided, "
            "filters and scores do worse than they do on the data"
        )
    return said


def _ends(name: str, estimate: Estimate) -> dict[str, float | None]:
    values = (None if np.isnan(one) else one for one in estimate)
    return dict(zip((name, f"{name}_low", f"{name}_high"), values, strict=True))
