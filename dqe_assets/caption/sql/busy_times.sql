WITH times AS (
    SELECT shard, caption_source, epoch_us(finished_at) AS finish, finish - round(seconds * 1e6)::BIGINT AS start
    FROM caption_generation WHERE seconds IS NOT NULL
), marked AS (
    SELECT *, start > max(finish) OVER (
        PARTITION BY shard, caption_source ORDER BY start, finish ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING
    ) AS is_after_pause
    FROM times
), numbered AS (
    SELECT *, count(*) FILTER (is_after_pause) OVER (
        PARTITION BY shard, caption_source ORDER BY start, finish ROWS UNBOUNDED PRECEDING
    ) AS number
    FROM marked
)
SELECT shard, caption_source, make_timestamp(max(finish)), (max(finish) - min(start)) / 1e6
FROM numbered GROUP BY shard, caption_source, number ORDER BY caption_source, shard, number
