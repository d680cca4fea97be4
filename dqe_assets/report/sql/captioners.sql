WITH pairs AS (
    SELECT c.*, c.similarity - o.similarity AS gain
    FROM captions c LEFT JOIN captions o ON o.uid = c.uid AND o.caption_source = 'original'
    WHERE c.caption_source <> 'original'
), written AS (
    SELECT caption_source AS name, count(caption) AS captions,
        count(*) FILTER (finish_reason = 'error') AS errors, avg(similarity) AS mean_similarity,
        avg(gain) AS mean_gain, avg((gain > 0)::INTEGER) AS share_better, avg(tokens) AS mean_tokens,
        avg(truncated::INTEGER) AS truncated_share
    FROM pairs GROUP BY caption_source
), models AS (
    SELECT caption_source AS name, max(model) AS model FROM all_captions WHERE model IS NOT NULL GROUP BY ALL
)
SELECT coalesce(i.name, w.name) AS captioner, i.kind, coalesce(i.model, models.model),
    coalesce(w.captions, 0), coalesce(w.errors, 0), w.mean_similarity, w.mean_gain, w.share_better,
    NOT i.shares_backbone_with_scorer, w.mean_tokens,
    w.truncated_share, scorer.scorer, i.price_per_hour
FROM captioner_infos i FULL JOIN written w ON i.name = w.name
LEFT JOIN models ON models.name = coalesce(i.name, w.name) CROSS JOIN scorer
ORDER BY captioner
