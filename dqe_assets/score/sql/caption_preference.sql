WITH pairs AS (
    SELECT source_a, source_b, scorer, count(probability_a) AS n,
        count(*) FILTER (probability_a > 0.7::FLOAT) AS a_above_70,
        count(*) FILTER (probability_b > 0.7::FLOAT) AS b_above_70,
        count(*) FILTER (probability_a > 0.8::FLOAT) AS a_above_80,
        count(*) FILTER (probability_b > 0.8::FLOAT) AS b_above_80,
        count(*) FILTER (probability_a > 0.9::FLOAT) AS a_above_90,
        count(*) FILTER (probability_b > 0.9::FLOAT) AS b_above_90,
        avg(probability_a), avg(probability_b), bool_and(independent) AS independent
    FROM stored_caption_preference GROUP BY source_a, source_b, scorer
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
