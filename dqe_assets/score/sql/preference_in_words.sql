WITH pairs AS (
    SELECT source_a AS preferred, source_b AS other, a_above_70 AS wins, b_above_70 AS losses, a_above_90 AS sure,
        n, independent
    FROM caption_preference WHERE a_above_70 > b_above_70
    UNION ALL
    SELECT source_b, source_a, b_above_70, a_above_70, b_above_90, n, independent
    FROM caption_preference WHERE a_above_70 <= b_above_70
)
SELECT CASE
        WHEN n = 0 THEN preferred || ' and ' || other || ': no image has both captions'
        WHEN wins = losses THEN preferred || ' and ' || other || ' equally'
        ELSE preferred || ' over ' || other
    END AS preference,
    n AS images, wins AS above_70, losses AS other_above_70, sure AS above_90,
    CASE WHEN independent THEN 'yes' ELSE 'no' END AS independent
FROM pairs ORDER BY independent DESC, preference
