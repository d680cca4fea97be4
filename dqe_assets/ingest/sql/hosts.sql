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
