SELECT h.uid, h.item,
    list_filter(h.concepts, lambda c: NOT coalesce(list_contains(p.concepts, c), false))
FROM stored_concept_hits h JOIN stored_raw_samples r USING (uid)
LEFT JOIN provisional_concepts p ON p.shard = r.shard AND p.item = h.item
ORDER BY r.shard, r."row", h.item
