WITH pairs AS (
    SELECT a.place AS shard, a.model, c.*, c.similarity - o.similarity AS gain
    FROM captions c JOIN all_captions a USING (uid, caption_source)
    LEFT JOIN captions o ON o.uid = c.uid AND o.caption_source = 'original'
)
SELECT shard, caption_source, count(caption), count(*) FILTER (finish_reason = 'error'), count(similarity),
    sum(similarity::DOUBLE), count(gain), sum(gain::DOUBLE), count(*) FILTER (gain > 0), count(tokens),
    sum(tokens)::BIGINT, count(*) FILTER (truncated), max(model)
FROM pairs GROUP BY shard, caption_source ORDER BY caption_source, shard
