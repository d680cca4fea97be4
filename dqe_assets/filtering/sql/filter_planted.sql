-- A caption is right where its row is named by its image.
WITH rows AS (
    SELECT uid, CASE
        WHEN truth.caption LIKE 'language_%' THEN 'caption: other language'
        WHEN truth.caption <> 'right' THEN 'caption: ' || truth.caption
        ELSE 'image: ' || truth.image
    END AS planted
    FROM stored_raw_samples WHERE status = 'ok' AND truth IS NOT NULL
)
SELECT filter, planted, count(*), count(*) FILTER (kept), count(*) FILTER (kept) / count(*)
FROM kept_by_filter JOIN rows USING (uid) GROUP BY filter, planted ORDER BY filter, planted
