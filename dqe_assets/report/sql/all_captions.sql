-- The original caption of every sample, every captioner's, and the refined and the reviewed one where there is one.
SELECT shard AS place, uid, 'original' AS caption_source, caption, NULL::VARCHAR AS finish_reason,
    NULL::VARCHAR AS error, NULL::VARCHAR AS model
FROM stored_raw_samples
UNION ALL BY NAME
SELECT r.shard AS place, uid, c.caption_source, c.caption, c.finish_reason, c.error, c.model
FROM stored_synthetic_captions c JOIN stored_raw_samples r USING (uid)
UNION ALL BY NAME
SELECT shard AS place, uid, caption_source, caption, finish_reason, error, model FROM final_refined
UNION ALL BY NAME
SELECT shard AS place, uid, caption_source, caption, finish_reason, error, model FROM reviewed_captions
