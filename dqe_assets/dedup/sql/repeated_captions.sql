WITH same AS (
    SELECT caption_source, uid, size FROM caption_duplicates WHERE kind = 'exact'
)
SELECT arg_max(c.caption, d.is_representative) AS text, d.caption_source, d.size AS captions,
    coalesce(max(same.size), 1) AS exact, list_slice(list(s.image_name ORDER BY s.image_name), 1, 5) AS examples
FROM caption_duplicates d
JOIN captions c USING (uid, caption_source)
JOIN samples s USING (uid)
LEFT JOIN same USING (uid, caption_source)
WHERE d.kind = 'near' GROUP BY d.caption_source, d.cluster, d.size ORDER BY captions DESC, d.caption_source, text
