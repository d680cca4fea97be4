WITH written AS (
    SELECT caption_source AS name, sum(captions)::BIGINT AS captions, sum(errors)::BIGINT AS errors,
        sum(sum_similarity) / nullif(sum(scored), 0) AS mean_similarity,
        sum(sum_gain) / nullif(sum(compared), 0) AS mean_gain, sum(better) / nullif(sum(compared), 0) AS share_better,
        sum(sum_tokens) / nullif(sum(measured), 0) AS mean_tokens,
        sum(truncated) / nullif(sum(measured), 0) AS truncated_share, max(model) AS model
    FROM captions_by_shard WHERE caption_source NOT IN ('original', 'reviewed') GROUP BY caption_source
)
SELECT coalesce(i.name, w.name) AS captioner, i.kind, coalesce(i.model, w.model),
    coalesce(w.captions, 0), coalesce(w.errors, 0), w.mean_similarity, w.mean_gain, w.share_better,
    NOT i.shares_backbone_with_scorer, w.mean_tokens,
    w.truncated_share, scorer.scorer, i.price_per_hour
FROM captioner_infos i FULL JOIN written w ON i.name = w.name CROSS JOIN scorer
ORDER BY captioner
