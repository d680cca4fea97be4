-- A caption is right where its row is named by its image.
WITH rows AS (
    SELECT uid, CASE
        WHEN p.caption LIKE 'language_%' THEN 'caption: other language'
        WHEN p.caption <> 'right' THEN 'caption: ' || p.caption
        ELSE 'image: ' || p.image
    END AS planted
    FROM planted_truth p JOIN samples s USING (uid) WHERE s.status = 'ok'
)
SELECT filter, planted, count(*), count(*) FILTER (kept), count(*) FILTER (kept) / count(*)
FROM kept_by_filter JOIN rows USING (uid) GROUP BY filter, planted ORDER BY filter, planted
