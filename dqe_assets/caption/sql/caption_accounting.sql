WITH busy AS (
    SELECT shard, caption_source, sum(round(seconds * 1e6)::BIGINT) / 1e6 AS busy_seconds
    FROM busy_times GROUP BY shard, caption_source
), taken AS (
    SELECT shard, caption_source, count(*) FILTER (finish_reason IN ('stop', 'length')) AS captions,
        count(*) FILTER (finish_reason = 'error') AS errors,
        sum(attempts)::BIGINT AS attempts, sum(prompt_tokens)::BIGINT AS prompt_tokens,
        sum(completion_tokens)::BIGINT AS completion_tokens, sum(seconds) AS request_seconds
    FROM caption_generation GROUP BY caption_source, shard
)
SELECT taken.*, busy_seconds, taken.captions / nullif(busy_seconds, 0), busy_seconds / 3600 * price_per_hour
FROM taken LEFT JOIN busy USING (caption_source, shard) LEFT JOIN captioner_infos ON name = caption_source
ORDER BY caption_source, shard
