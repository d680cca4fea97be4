"""Views and report sections of fetching: which images could not be read, why, from which hosts, and the time taken."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dqe_assets.core.relations import (
    GalleryPlots,
    Problem,
    Read,
    Relations,
    ReportSection,
    Table,
    Temporary,
    View,
    columns,
    meaning,
    sql_file,
)
from dqe_assets.ingest.plots import status_bars
from dqe_assets.ingest.tables import RAW_SAMPLES

if TYPE_CHECKING:
    import duckdb

    from dqe_assets.core.relations import Drawing

HOST_OF_URL = r"""
nullif(trim(regexp_extract(
    lower(url), '^\s*[a-z][a-z0-9+.-]*://(?:[^/?#]*@)?(\[[^\]/?#]*\]|[^/:?#]*)', 1
), '[]'), '')
"""
"""SQL of the host that ``url`` names, in lower case, without port; null where it names none."""

FETCHED = {
    "host": ("VARCHAR", "host that the URL names; null where it names none"),
    **columns(RAW_SAMPLES, attempts="SMALLINT", http_status="SMALLINT", final_url="VARCHAR", seconds="FLOAT"),
    "fetched_at": ("TIMESTAMP", f"{meaning(RAW_SAMPLES, 'fetched_at')}, UTC"),
}
"""SQL type and meaning of the columns that say how a row was fetched."""

_SECONDS = {
    "median_seconds": "half of the rows took less time, waiting for their turn not counted [seconds]",
    "retries": "requests beyond the first of each row",
}


def _outcomes(connection: duckdb.DuckDBPyConnection, _: int) -> list[Drawing]:
    reasons = connection.execute("SELECT reason, count(*) FROM samples GROUP BY reason ORDER BY reason").fetchall()
    return [("Images that could be read, and why others could not", lambda theme: status_bars(dict(reasons), theme))]


RELATIONS = Relations(
    reads=(
        Read(
            "raw_samples",
            RAW_SAMPLES,
            "uid source shard row image_name url caption original_captions format bytes width height status reason "
            "detail attempts http_status final_url seconds fetched_at source_metadata truth",
        ),
    ),
    temporary=(Temporary("samples_with_host", f"SELECT *, {HOST_OF_URL} AS host FROM stored_raw_samples"),),  # noqa: S608
    tables=(
        Table(
            "failures",
            "Every sample whose image could not be read, and why",
            columns(
                RAW_SAMPLES,
                uid="VARCHAR",
                source="VARCHAR",
                shard="VARCHAR",
                image_name="VARCHAR",
                url="VARCHAR",
                reason="VARCHAR",
                detail="VARCHAR",
            )
            | FETCHED,
            """
            SELECT uid, source, shard, image_name, url, reason, detail,
                host, attempts, http_status, final_url, seconds, fetched_at
            FROM samples_with_host WHERE status <> 'ok' ORDER BY shard, "row"
            """,
            by_shard=True,
        ),
    ),
    views=(
        View(
            "failure_reasons",
            "Why images could not be read, the most frequent reason first",
            """
            SELECT reason, count(*) AS samples, count(*) / (SELECT count(*) FROM samples) AS share,
                min(image_name) AS example
            FROM failures GROUP BY reason ORDER BY samples DESC, reason
            """,
            {
                "samples": "samples",
                "share": "share of all samples [0 to 1]",
                "example": "name of one such image",
            },
        ),
        View(
            "failures_by_host",
            "Why images could not be read, for each shard, reason and host, the most frequent first",
            """
            SELECT f.shard, f.source, f.reason, f.host, count(*) AS "rows", count(*) / any_value(s."rows") AS share,
                median(f.seconds) AS median_seconds, coalesce(sum(f.attempts - 1), 0)::BIGINT AS retries,
                min(f.url) AS example_url
            FROM failures f JOIN shards s USING (source, shard)
            GROUP BY f.shard, f.source, f.reason, f.host ORDER BY "rows" DESC, f.shard, f.reason, f.host
            """,
            _SECONDS
            | {
                "rows": "samples of the shard that failed with that reason at that host",
                "share": "of all samples of the shard [0 to 1]",
                "example_url": "URL of one of them",
            },
        ),
        View(
            "hosts",
            "The hosts that images are fetched from, those first where most failed",
            sql_file(__file__, "hosts"),
            _SECONDS
            | {
                "rows": "samples with a URL at that host",
                "ok": "samples with a readable image",
                "failed": "samples without",
                "success_rate": "ok / rows [0 to 1]",
                "p95_seconds": "19 of 20 rows took less time [seconds]",
                "most_frequent_reason": "why most of those that failed did; null if none did",
            },
        ),
    ),
    report_sections=(
        ReportSection("Failures", "Why images could not be read.", "SELECT * FROM failure_reasons", order=20),
    ),
    problems=(
        Problem(
            "rows have no readable image",
            """
            SELECT (SELECT count(*) FROM failures), (SELECT count(*) FROM samples),
                (SELECT 'most: ' || first(reason) FROM failure_reasons)
            """,
            "SELECT * FROM failure_reasons",
        ),
    ),
    gallery_plots=(GalleryPlots(_outcomes, order=30),),
)
