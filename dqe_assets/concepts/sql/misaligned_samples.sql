WITH misaligned AS (SELECT caption_source, unnest(misaligned_uids) AS uid FROM stored_misalignment)
SELECT m.uid, s.shard, s.image_name, m.caption_source, c.caption, t.concepts, i.concepts, c.similarity
FROM misaligned m JOIN samples s USING (uid)
LEFT JOIN captions c ON c.uid = m.uid AND c.caption_source = m.caption_source
LEFT JOIN concept_hits t ON t.uid = m.uid AND t.item = m.caption_source
LEFT JOIN concept_hits i ON i.uid = m.uid AND i.item = 'image'
ORDER BY c.similarity, m.uid, m.caption_source
