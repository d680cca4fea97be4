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
        CASE WHEN c.caption_source = 'original' THEN i.masked_similarity END AS masked_similarity, c.vqa, s.sharpness,
        l.similarity_limit, l.masked_limit, l.vqa_limit, l.sharpness_limit
    FROM captions c
    JOIN samples s USING (uid)
    LEFT JOIN (SELECT * RENAME (caption_source AS of) FROM score_limits) l ON l.source = s.source AND l.of = c.caption_source
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
