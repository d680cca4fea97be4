WITH placed AS (
    SELECT item, samples, row_number() OVER (PARTITION BY item ORDER BY samples) AS ascending,
        count(*) OVER (PARTITION BY item) AS concepts
    FROM concept_frequency
)
SELECT item, count(*) AS concepts, count(*) FILTER (samples > 0) AS shown,
    avg((samples = 0)::INTEGER) AS never, avg((samples < 10)::INTEGER) AS under_10,
    avg((samples < 100)::INTEGER) AS under_100, avg((samples < 1000)::INTEGER) AS under_1000,
    sum((2 * ascending - concepts - 1) * samples) / nullif(any_value(concepts) * sum(samples), 0) AS gini
FROM placed GROUP BY item ORDER BY item <> 'original', item = 'image', item
