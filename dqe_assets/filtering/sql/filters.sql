WITH steps AS (
    SELECT filter, any_value(expression) AS expression FROM filter_steps GROUP BY filter
), planted AS (
    SELECT uid, true AS known, caption = 'right' AND image NOT IN ('tiny', 'extreme_aspect') AS good FROM planted_truth
)
SELECT filter, any_value(expression), count(*), count(*) FILTER (kept), count(*) FILTER (kept) / count(*),
    avg(original_similarity) FILTER (kept), avg(original_similarity) FILTER (NOT kept),
    avg(best_similarity) FILTER (kept), count(*) FILTER (kept AND is_duplicate),
    count(*) FILTER (kept AND good) / nullif(count(*) FILTER (kept AND known), 0),
    count(*) FILTER (kept AND good) / nullif(count(*) FILTER (good), 0)
FROM kept_by_filter JOIN steps USING (filter) JOIN samples USING (uid) LEFT JOIN planted USING (uid)
WHERE status = 'ok' AND review IS DISTINCT FROM 'drop' GROUP BY filter ORDER BY filter
