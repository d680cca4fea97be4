WITH busy AS ($busy), asked AS (
    SELECT caption_source, round, uid, any_value(previous_similarity) AS before,
        any_value(previous_words) AS words_before, bool_or(accepted) AS accepted,
        any_value(similarity) FILTER (accepted) AS after, any_value(words) FILTER (accepted) AS words_after
    FROM refined_captions GROUP BY caption_source, round, uid
), outcome AS (
    SELECT caption_source, round, count(*) AS asked, count(*) FILTER (accepted) AS accepted,
        count(*) FILTER (accepted) / count(*) AS accepted_share, avg(after - before) AS mean_gain,
        avg(before) AS mean_before, avg(coalesce(after, before)) AS mean_after,
        avg(words_before) FILTER (accepted) AS words_before, avg(words_after) AS words_after
    FROM asked GROUP BY caption_source, round
), taken AS (
    SELECT caption_source, round, count(*) AS candidates, count(caption) AS answers, count(veto) AS vetoed,
        sum(prompt_tokens)::BIGINT AS prompt_tokens, sum(completion_tokens)::BIGINT AS completion_tokens,
        sum(cost) AS cost, bool_and(independent) AS independent
    FROM refined_captions GROUP BY caption_source, round
)
SELECT caption_source, round, asked, candidates, answers, vetoed, accepted, accepted_share, mean_gain, mean_before,
    mean_after, words_before, words_after, prompt_tokens, completion_tokens, busy_seconds, cost, independent
FROM outcome JOIN taken USING (caption_source, round) LEFT JOIN busy USING (caption_source, round)
ORDER BY caption_source, round
