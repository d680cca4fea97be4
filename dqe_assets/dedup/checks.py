"""What must hold of every table of clusters."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pyarrow.compute as pc

from dqe_assets.core.work import Check, CheckResult

if TYPE_CHECKING:
    import pyarrow as pa

    from dqe_assets.core.work import Work


def one_representative(*cluster: str) -> Check:
    """Each cluster, which these columns tell from others, has one sample to keep, and the size it states."""

    def one_each(_: Work, table: pa.Table) -> CheckResult:
        clusters = table.group_by(list(cluster)).aggregate(
            [("is_representative", "sum"), ("uid", "count"), ("size", "max"), ("size", "min")]
        )
        kept = pc.equal(clusters["is_representative_sum"], 1)
        sized = pc.and_(
            pc.equal(clusters["uid_count"], clusters["size_max"]), pc.equal(clusters["size_max"], clusters["size_min"])
        )
        wrong = clusters.num_rows - (pc.sum(pc.and_(kept, sized)).as_py() or 0)
        return CheckResult(
            wrong == 0,
            f"{clusters.num_rows:,} clusters, {wrong} without exactly one representative or of another size than said",
            {"clusters": clusters.num_rows, "wrong": wrong},
        )

    return Check("one_representative", "Each cluster has one sample to keep, and the size it states.", one_each)
