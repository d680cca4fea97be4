"""The metadata of these assets in the UI: figures, and what the thresholds are chosen by."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pyarrow.compute as pc

from dqe_assets.contamination import plots
from dqe_assets.contamination.planted import figures
from dqe_assets.contamination.tables import KINDS
from dqe_assets.contamination.variants import WHOLE
from dqe_assets.core.metadata import Metadata, markdown_table, picture, preview

if TYPE_CHECKING:
    import pyarrow as pa

    from dqe_assets.contamination.settings import ContaminationRules
    from dqe_assets.core.work import Work


def reference_features(_: Work, table: pa.Table) -> Metadata:
    """How many pictures and texts the set has, and the first faults."""
    rows = table.filter(pc.equal(table["variant"], WHOLE))
    faults = rows.filter(pc.is_valid(rows["fault"]))
    return {
        "rows": rows.num_rows,
        "pictures": rows.num_rows - rows["perceptual_hash"].null_count,
        "texts": pc.sum(pc.list_value_length(rows["texts"])).as_py() or 0,
        **({"faults": preview(faults, ["reference", "fault"])} if faults.num_rows else {}),
    }


def contamination(_: Work, table: pa.Table) -> Metadata:
    """How many samples were found in each set, and in which way."""
    counts = table.group_by(["reference_set", "kind"]).aggregate([("uid", "count")]).to_pylist()
    found = {(row["reference_set"], row["kind"]): row["uid_count"] for row in counts}
    rows = [
        [name, *(found.get((name, kind), 0) for kind in KINDS)]
        for name in sorted(pc.unique(table["reference_set"]).to_pylist())
    ]
    return {
        "samples": pc.count_distinct(table["uid"]).as_py(),
        "found": markdown_table(["reference set", *KINDS], rows),
        "first": preview(table, ["kind", "reference_set", "reference", "similarity", "reference_text"]),
    }


def planted_copies(_: Work, table: pa.Table, rules: ContaminationRules) -> Metadata:
    """Precision and recall of planted copies, and a plot by which the thresholds are chosen."""
    found = [
        [row[name] for name in ("copy", "found_by", "copies", "recall", "precision")] for row in figures(table, rules)
    ]
    return {
        "found": markdown_table(["copy", "found by", "copies", "recall", "precision"], found),
        "thresholds": picture(
            plots.planted_copies(table, rules), "how near copies are to their pictures and to others"
        ),
    }
