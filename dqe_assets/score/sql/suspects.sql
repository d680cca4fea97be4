-- What begins with a dollar is from signal_views.py.
WITH repeated AS (
    SELECT d.uid, d.caption_source, r.repeated FROM caption_duplicates d
    JOIN (
        SELECT caption_source, d.cluster, count(DISTINCT coalesce(s.cluster, s.uid)) AS repeated
        FROM caption_duplicates d JOIN samples s USING (uid) WHERE kind = 'exact' GROUP BY ALL
    ) r USING (caption_source, cluster) WHERE d.kind = 'exact'
), pairs AS (
    SELECT c.uid, s.shard, s.image_name, c.caption_source, c.caption, c.similarity, s.width, s.height,
        t.words, t.repetition, t.patterns, t.language, t.language_probability, g.flags, n.flagged, i.text_area, d.repeated,
        CASE WHEN c.caption_source = 'original' THEN i.masked_similarity END AS masked_similarity,
        CASE WHEN c.similarity IS NOT NULL THEN percent_rank() OVER (
            PARTITION BY s.source, c.caption_source ORDER BY c.similarity NULLS LAST
        ) END AS rank,
        CASE WHEN c.caption_source = 'original' AND i.masked_similarity IS NOT NULL THEN percent_rank() OVER (
            PARTITION BY s.source, c.caption_source ORDER BY i.masked_similarity NULLS LAST
        ) END AS masked_rank,
        CASE WHEN c.vqa IS NOT NULL THEN percent_rank() OVER (
            PARTITION BY s.source, c.caption_source ORDER BY c.vqa NULLS LAST
        ) END AS vqa_rank,
        CASE WHEN s.sharpness IS NOT NULL THEN percent_rank() OVER (
            PARTITION BY s.source, c.caption_source ORDER BY s.sharpness NULLS LAST
        ) END AS blur_rank
    FROM captions c
    JOIN samples s USING (uid)
    LEFT JOIN text_quality t USING (uid, caption_source)
    LEFT JOIN image_text i USING (uid)
    LEFT JOIN caption_generation g USING (uid, caption_source)
    LEFT JOIN grounding n USING (uid, caption_source)
    LEFT JOIN repeated d USING (uid, caption_source)
    WHERE s.status = 'ok' AND c.caption IS NOT NULL
), judged AS (
    SELECT *, $objections AS reasons FROM pairs
), counted AS (
    SELECT *, $signals AS signals,
        list_has_any(reasons, [$scores]) AS scores_low
    FROM judged
)
SELECT uid, shard, image_name, caption_source, caption, similarity, masked_similarity, signals, reasons
FROM counted
WHERE signals >= $alone OR (scores_low AND signals >= 2) OR list_has_any(reasons, [$decisive])
ORDER BY signals DESC, similarity, uid, caption_source
