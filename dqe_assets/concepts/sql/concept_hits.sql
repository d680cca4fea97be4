WITH provisional AS (
    SELECT shard, item, list(concept) AS concepts FROM (
        SELECT unnest(provisional_shards) AS shard, item, concept FROM stored_concept_frequency
    ) GROUP BY shard, item
)
SELECT h.uid, h.item,
    list_filter(h.concepts, lambda c: NOT coalesce(list_contains(p.concepts, c), false))
FROM stored_concept_hits h JOIN stored_raw_samples r USING (uid)
LEFT JOIN provisional p ON p.shard = r.shard AND p.item = h.item
ORDER BY r.shard, r."row", h.item
