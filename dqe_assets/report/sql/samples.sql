WITH original AS (
    SELECT uid, similarity FROM captions WHERE caption_source = 'original'
)
SELECT r.uid, r.source, r.shard, r.row, r.image_name, r.url, r.caption, r.format, r.bytes, r.width, r.height,
    r.width::DOUBLE * r.height / 1e6, r.status, r.reason,
    r.host, r.attempts, r.http_status, r.final_url, r.seconds, r.fetched_at,
    r.source_metadata,
    f.sharpness, f.brightness, f.contrast, f.colourfulness, f.top_label, f.label_probabilities[1],
    original.similarity, best.caption_source, best.similarity,
    NULL, NULL,
    rights.license, rights.attribution, rights.notice, rights.creator, rights.credit, rights.terms,
    rights.web_statement, rights.data_mining, rights.source_type, rights.c2pa,
    reviews.review, reviews.review_tags,
    NULL$signals
FROM samples_with_host r
LEFT JOIN stored_image_features f USING (uid)
LEFT JOIN original USING (uid)
LEFT JOIN best_captions best USING (uid)
LEFT JOIN stored_rights rights USING (uid)
LEFT JOIN stored_reviews reviews USING (uid)
$joins
ORDER BY r.shard, r.row
