"""The map of the collection: what the samples are about, over all shards."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from dqe_assets.core.checks import finite, unique
from dqe_assets.core.stage import stage
from dqe_assets.core.work import Check, CheckResult, Work, facts_of, with_facts
from dqe_assets.search import metadata, topics
from dqe_assets.search.kept_map import INPUTS, KeptMap, draw, kept_map
from dqe_assets.search.tables import COLLECTION_MAP
from dqe_assets.search.views import RELATIONS

if TYPE_CHECKING:
    import pyarrow as pa
    from numpy.typing import NDArray

    from dqe_assets.search.kept_map import Drawn

_ANEW_BELOW = 2_000
"""So few samples are laid out in seconds: then the map is the same whatever came when."""

_ANEW_WHEN_GROWN = 1.5
_LEAST_PLACED = 2 / 3
_SETTLED_FROM = 0.05
"""Share of the map that is put among the rest before all of it settles."""


def _topics_numbered(_: Work, table: pa.Table) -> CheckResult:
    sizes = np.bincount(table["topic"].to_numpy())
    names = table.group_by(["topic", "topic_name"]).aggregate([]).num_rows
    passed = bool((sizes > 0).all() and (np.diff(sizes) <= 0).all() and names == len(sizes))
    return CheckResult(
        passed,
        f"{len(sizes)} topics with {names} names, {int((sizes == 0).sum())} empty",
        {"topics": len(sizes), "names": names},
    )


def _all_mapped(_: Work, table: pa.Table, samples: int) -> CheckResult:
    embedded = facts_of(table)["embedded"]
    expected = min(embedded, samples)
    return CheckResult(
        table.num_rows == expected,
        f"{table.num_rows:,} samples are on the map, {expected:,} of {embedded:,} with an image should be",
        {"mapped": table.num_rows, "expected": expected, "embedded": embedded},
    )


@stage(
    kinds={"parquet", "faiss"},
    relations=RELATIONS,
    code_version="4",
    schema=COLLECTION_MAP,
    resources={"samples": "map.samples", "topics_wanted": "map.topics"},
    inputs=INPUTS,
    partitioned=False,
    # An earlier map goes into it.
    content=lambda table: [table["x"].to_pylist(), table["y"].to_pylist()],
    checks=[
        unique("uid"),
        finite("x"),
        finite("y"),
        Check("rows_complete", "Every sample with an image is on the map, or as many as are configured.", _all_mapped),
        Check("topics_numbered", "Topics are numbered by size, each has samples and one name.", _topics_numbered),
    ],
    metadata=metadata.collection_map,
)
def collection_map(work: Work, samples: int, topics_wanted: int | None) -> pa.Table:
    """A map of what the images show: a place and a topic for each sample, topics named by words of their captions.

    Made from the vectors of the images, whatever their captions claim, so that a caption that does not belong stands
    out. Of a large store a sample is mapped. Of 2,000 samples or more, those that are on the map already stay where
    they are, and the others are put among them; once those are 5 % of the map, all of it settles. All are laid out anew
    with `--force`, if more than a third are new, and when the store has grown by half since the last time.
    """
    kept = KeptMap() if work.force else kept_map()
    drawn = draw(work, samples, kept.drawn)
    places = _places(kept, drawn)
    vectors = drawn.vectors
    stayed, unsettled = 0 if places is None else int(np.isfinite(places[:, 0]).sum()), 0
    if places is not None and kept.unsettled + len(places) - stayed <= _SETTLED_FROM * len(places):
        unsettled = kept.unsettled + len(places) - stayed
        places = topics.put_among(vectors, places)
    table = topics.collection_map(drawn.samples, vectors, topics_wanted, places)
    made = np.stack([table["x"].to_numpy(), table["y"].to_numpy()], axis=1)
    laid_out = drawn.total if places is None else kept.laid_out
    KeptMap(drawn, made, laid_out, unsettled).write()
    facts = {
        "embedded": drawn.total,
        "laid_out_of": laid_out,
        "stayed": stayed,
        "neighbours_kept": topics.neighbours_kept(vectors, made),
    }
    return with_facts(table, facts)


def _places(kept: KeptMap, drawn: Drawn) -> NDArray[np.float32] | None:
    """The places of an earlier map that samples keep; None if all are to be laid out anew."""
    grown = drawn.total / max(1, kept.laid_out)
    if drawn.samples.num_rows < _ANEW_BELOW or not 1 / _ANEW_WHEN_GROWN <= grown <= _ANEW_WHEN_GROWN:
        return None
    places = kept.places_of(drawn)
    return places if np.isfinite(places[:, 0]).mean() >= _LEAST_PLACED else None
