WITH judged AS (
    SELECT uid, caption_source, overall, similarity, caption
    FROM caption_judgements JOIN captions USING (uid, caption_source)
    WHERE overall IS NOT NULL AND similarity IS NOT NULL
)
SELECT j.uid, m.shard, m.image_name, j.caption_source AS judge_prefers, j.caption AS judge_caption,
    s.caption_source AS scorer_prefers, s.caption AS scorer_caption,
    j.overall - s.overall AS overall_gap, s.similarity - j.similarity AS similarity_gap,
    overall_gap * similarity_gap AS disagreement
FROM judged j JOIN judged s ON s.uid = j.uid AND s.overall < j.overall AND s.similarity > j.similarity
JOIN samples m ON m.uid = j.uid
ORDER BY disagreement DESC, j.uid, judge_prefers, scorer_prefers
