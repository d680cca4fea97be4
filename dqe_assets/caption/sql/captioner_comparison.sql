WITH busy AS ($busy), quality AS (
    SELECT caption_source, count(caption) AS captions, avg(similarity) AS mean_similarity
    FROM captions GROUP BY caption_source
), made AS (
    SELECT caption_source, count(*) FILTER (finish_reason = 'error') AS errors,
        avg(completion_tokens) AS mean_completion_tokens, count(*) FILTER (len(flags) > 0) AS flagged
    FROM caption_generation GROUP BY caption_source
), flagged AS (
    SELECT caption_source, string_agg(flag || ' ' || n, ', ' ORDER BY n DESC, flag) AS flags
    FROM (
        SELECT caption_source, flag, count(*) AS n
        FROM (SELECT caption_source, unnest(flags) AS flag FROM caption_generation)
        GROUP BY caption_source, flag
    )
    GROUP BY caption_source
), pairs AS (
    SELECT source_a AS caption_source, source_b AS other, a_above_70 AS wins, b_above_70 AS losses, n
    FROM caption_preference
    UNION ALL
    SELECT source_b, source_a, b_above_70, a_above_70, n FROM caption_preference
), preferred AS (
    SELECT caption_source,
        sum(wins) FILTER (other = 'original') / nullif(sum(n) FILTER (other = 'original'), 0) AS wins,
        sum(losses) FILTER (other = 'original') / nullif(sum(n) FILTER (other = 'original'), 0) AS losses,
        string_agg(other || ' ' || wins || ':' || losses, ', ' ORDER BY other <> 'original', other)
            AS preference
    FROM pairs WHERE n > 0 GROUP BY caption_source
)
SELECT q.caption_source, c.model, q.captions, made.errors, busy_seconds / nullif(q.captions, 0),
    1000 * busy_seconds / 3600 * c.price_per_hour / nullif(q.captions, 0), made.mean_completion_tokens,
    q.mean_similarity, c.independent, preferred.wins, preferred.losses, preferred.preference,
    made.flagged, flagged.flags
FROM quality q
LEFT JOIN captioners c ON c.name = q.caption_source
LEFT JOIN made USING (caption_source)
LEFT JOIN busy USING (caption_source)
LEFT JOIN flagged USING (caption_source)
LEFT JOIN preferred USING (caption_source)
ORDER BY q.caption_source <> 'original', q.caption_source
