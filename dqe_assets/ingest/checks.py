"""What must hold for raw samples."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc

from dqe_assets.core.checks import COMPLETE, unique
from dqe_assets.core.schema import has_image
from dqe_assets.core.work import Check, CheckResult, Work
from dqe_assets.ingest.fetch.reasons import TAKEN_DOWN
from dqe_assets.ingest.outcomes import by_reason_and_host, host_of

if TYPE_CHECKING:
    from dqe_assets.ingest.settings import IngestSettings


def rows_complete(work: Work, table: pa.Table, ingest: IngestSettings) -> CheckResult:
    """Rows in = rows out: as many as the source counts in the shard, at consecutive positions."""
    expected = ingest.source_of(work.partition or "").shard(work.partition or "").rows
    consecutive = table["row"].to_pylist() == list(range(expected))
    return CheckResult(
        consecutive,
        f"{expected:,} rows in the source, {table.num_rows:,} rows out",
        {"rows_in": expected, "rows_out": table.num_rows},
    )


def success_rate(work: Work, table: pa.Table, ingest: IngestSettings) -> CheckResult:
    """Enough rows have an image, of those not taken down; says what became of the others, by reason and host."""
    minimum = ingest.source_of(work.partition or "").min_success_rate
    ok = pc.sum(has_image(table)).as_py() or 0
    wanted = table.num_rows - (pc.sum(pc.equal(table["reason"], TAKEN_DOWN)).as_py() or 0)
    share = ok / wanted if wanted else 1.0
    reasons = {
        item["values"]: item["counts"]
        for item in pc.value_counts(table["reason"]).to_pylist()
        if item["values"] != "ok"
    }
    listed = by_reason_and_host(zip(table["reason"].to_pylist(), map(host_of, table["url"].to_pylist()), strict=True))
    return CheckResult(
        share >= minimum,
        f"{ok:,} of {wanted:,} rows have an image ({share:.1%}, at least {minimum:.0%} required)"
        + (f"; the others: {listed}" if listed else ""),
        {"success_rate": round(share, 4), "required": minimum, **{f"reason_{key}": n for key, n in reasons.items()}},
    )


def nothing_left_out(work: Work, _: pa.Table, ingest: IngestSettings) -> CheckResult:
    """The source takes all that it has as rows, but for what nobody takes for data."""
    left_out = ingest.source_of(work.partition or "").shard(work.partition or "").left_out
    return CheckResult(
        not left_out.of_concern,
        f"left out of the source: {left_out}" if left_out else "nothing is left out of the source",
        {"left_out": dict(left_out.counts)},
    )


def has_captions(work: Work, table: pa.Table, ingest: IngestSettings) -> CheckResult:
    """Some row has a caption."""
    captions = table.num_rows - table["caption"].null_count
    places = ingest.source_of(work.partition or "").caption_places
    return CheckResult(
        captions > 0,
        f"{captions:,} of {table.num_rows:,} rows have a caption" + ("" if captions else f"; looked for: {places}"),
        {"captions": captions},
    )


RAW_SAMPLES_CHECKS = (
    unique("uid"),
    Check(COMPLETE, "Rows in = rows out: as many as the source has in this shard.", rows_complete),
    Check("success_rate", "Enough rows have an image (min_success_rate of the source).", success_rate),
    Check("left_out", "The source takes all that it has as rows.", nothing_left_out, blocking=False),
    Check("captions", "Some row has a caption.", has_captions, blocking=False),
)
