"""Samples beside what they were found to be in a reference set, for the gallery."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

import numpy as np
import pyarrow.compute as pc

from dqe_assets.contamination.tables import KINDS, REFERENCE_FEATURES
from dqe_assets.contamination.variants import WHOLE
from dqe_assets.core.relations import Group, Member, literal

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    import duckdb

    from dqe_resources.store import Store

REFERENCE_PREFIX = "reference_features/"
"""What the assets of reference sets are called before the set's name."""

_IN_WORDS = {
    "exact": "the same picture",
    "perceptual": "looks the same",
    "semantic": "shows the same",
    "caption": "caption has its text",
    "image_text": "shows its text",
}

_ORDER = f"[{', '.join(map(literal, KINDS))}]"
# By the surest of the ways that a pair was found in. Each way in turn, what is least alike first: there are mistakes.
_PAIRS = f"""
    WITH pairs AS (
        SELECT uid, reference_set, reference_row, any_value(reference) AS reference,
            min(list_position({_ORDER}, kind)) AS surest, arg_min(similarity, list_position({_ORDER}, kind)) AS alike,
            list(kind ORDER BY list_position({_ORDER}, kind)) AS kinds,
            list(similarity ORDER BY list_position({_ORDER}, kind)) AS similarities,
            max(reference_text) AS reference_text
        FROM contamination GROUP BY uid, reference_set, reference_row
    )
    SELECT uid, reference_set, reference_row, reference, kinds, similarities, reference_text
    FROM pairs ORDER BY row_number() OVER (PARTITION BY surest ORDER BY alike, uid, reference_set), surest
    LIMIT ?
"""  # noqa: S608 - of our own words


def pairs(connection: duckdb.DuckDBPyConnection, limit: int) -> Iterable[Group]:
    """Samples of the warehouse, each beside a row of a reference set, of every kind in turn."""
    found = connection.execute(_PAIRS, [limit]).fetchall()
    for uid, name, row, reference, kinds, similarities, text in found:
        ways = zip(kinds, similarities, strict=True)
        yield Group(
            ", ".join(f"{_IN_WORDS[kind]} {similarity:.2f}" for kind, similarity in ways),
            (
                Member(uid, False, "sample"),
                Member(f"{REFERENCE_PREFIX}{name}/{row}", True, name, reference, text),
            ),
        )


def reference_pictures(store: Store, names: Sequence[str]) -> dict[str, bytes]:
    """The pictures of rows of reference sets, small, by what ``pairs`` calls them; those without one are left out."""
    rows: dict[str, dict[int, str]] = defaultdict(dict)
    for name in names:
        if name.startswith(REFERENCE_PREFIX):
            asset, _, row = name.rpartition("/")
            rows[asset][int(row)] = name
    found: dict[str, bytes] = {}
    for asset, wanted in rows.items():
        table = store.read(asset, None, REFERENCE_FEATURES, ["reference_row", "variant"])
        is_whole = pc.equal(table["variant"], WHOLE).to_numpy()
        positions = np.flatnonzero(is_whole & np.isin(table["reference_row"].to_numpy(), list(wanted)))
        images = store.read_rows(asset, None, REFERENCE_FEATURES, positions.tolist(), ["reference_row", "image"])
        found |= {wanted[row["reference_row"]]: row["image"]["bytes"] for row in images.to_pylist() if row["image"]}
    return found
