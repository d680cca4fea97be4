WITH pairs AS (
    SELECT source_a, source_b, scorer, coalesce(sum(samples) FILTER (level_a IS NOT NULL), 0)::BIGINT AS n,
        coalesce(sum(samples) FILTER (level_a >= 1), 0)::BIGINT AS a_above_70,
        coalesce(sum(samples) FILTER (level_b >= 1), 0)::BIGINT AS b_above_70,
        coalesce(sum(samples) FILTER (level_a >= 2), 0)::BIGINT AS a_above_80,
        coalesce(sum(samples) FILTER (level_b >= 2), 0)::BIGINT AS b_above_80,
        coalesce(sum(samples) FILTER (level_a >= 3), 0)::BIGINT AS a_above_90,
        coalesce(sum(samples) FILTER (level_b >= 3), 0)::BIGINT AS b_above_90,
        sum(sum_a) / nullif(n, 0), sum(sum_b) / nullif(n, 0), bool_and(independent) AS independent
    FROM preference_levels WHERE against IS NULL GROUP BY source_a, source_b, scorer
), shared AS (
    SELECT name, name || coalesce(' (' || nullif(backbones, '') || ')', '') AS described
    FROM captioner_infos WHERE shares_backbone_with_scorer
)
SELECT pairs.* EXCLUDE (scorer), scorer,
    CASE WHEN NOT independent THEN
        'This preference proves nothing: the scorer ' || scorer || ' shares an image backbone with '
        || coalesce(
            (SELECT string_agg(described, ' and ' ORDER BY described) FROM shared
             WHERE shared.name IN (source_a, source_b)),
            'one of the captioners'
        )
        || ', so it marks its own work'
    END
FROM pairs ORDER BY source_a, source_b
