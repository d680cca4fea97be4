"""What the warehouse says of fetching: which reasons, which hosts, how many of each shard, and how long."""

from __future__ import annotations

from dqe_assets.core.relations import View, columns, meaning
from dqe_assets.ingest.tables import RAW_SAMPLES

HOST_OF = r"""
CREATE OR REPLACE TEMP MACRO host_of(url) AS nullif(trim(regexp_extract(
    lower(url), '^\s*[a-z][a-z0-9+.-]*://(?:[^/?#]*@)?(\[[^\]/?#]*\]|[^/:?#]*)', 1
), '[]'), '')
"""
"""Defines ``host_of(url)``: the host that a URL names, in lower case, without port; null where it names none."""

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

INGEST_VIEWS = (
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
        """
        WITH counted AS (
            SELECT host, reason, count(*) AS n FROM failures WHERE host IS NOT NULL GROUP BY host, reason
        ), reasons AS (
            SELECT host, arg_max(reason, (n, reason)) AS reason FROM counted GROUP BY host
        )
        SELECT s.host, count(*) AS "rows", count(*) FILTER (status = 'ok') AS ok,
            count(*) FILTER (status <> 'ok') AS failed, count(*) FILTER (status = 'ok') / count(*) AS success_rate,
            median(seconds) AS median_seconds, quantile_cont(seconds, 0.95) AS p95_seconds,
            coalesce(sum(attempts - 1), 0)::BIGINT AS retries, any_value(r.reason) AS most_frequent_reason
        FROM samples s LEFT JOIN reasons r USING (host)
        WHERE s.host IS NOT NULL GROUP BY s.host ORDER BY failed DESC, s.host
        """,
        _SECONDS
        | {
            "rows": "samples with a URL at that host",
            "p95_seconds": "19 of 20 rows took less time [seconds]",
            "most_frequent_reason": "why most of those that failed did; null if none did",
        },
    ),
)
