"""The tables of better captions: the best of each sample, the marks of a judge, answers asked for again."""

from __future__ import annotations

import pyarrow as pa

from dqe_assets.core.schema import UID, Column, table_schema

BEST_CAPTIONS = table_schema(
    [
        UID,
        Column("caption", pa.string(), "the caption to use; null where there is no image or no caption"),
        Column("caption_source", pa.string(), "where it is from: original, a captioner's name, or refined"),
        Column("similarity", pa.float32(), "its similarity to the image", "-1 to 1"),
        Column("original_similarity", pa.float32(), "similarity of the original caption and the image", "-1 to 1"),
        Column("judgement", pa.float32(), "its mean mark by the judge; null where it was not judged", "1 to 5"),
        Column("vqa", pa.float32(), "its truth, by the vqa scorer; null without one", "0 to 1"),
        Column("independent", pa.bool_(), "false where the scorer shares a backbone with who wrote it"),
        Column("reason", pa.string(), "why this one, or why there is none", nullable=False),
        Column("runner_up_source", pa.string(), "where the next best is from; null where there is no other"),
        Column("runner_up_caption", pa.string(), "the next best caption"),
        Column("runner_up_similarity", pa.float32(), "its similarity to the image", "-1 to 1"),
        Column("runner_up_judgement", pa.float32(), "its mean mark by the judge", "1 to 5"),
        Column("runner_up_vqa", pa.float32(), "its truth, by the vqa scorer", "0 to 1"),
        Column("set_aside", pa.list_(pa.string()), "captions that are taken only if no other is left, and why"),
    ]
)


_REQUEST = "of the request, which asks about all captions of the sample: count it once for a sample"


_MARK = "mark of the judge; null where its answer could not be used"


CAPTION_JUDGEMENTS = table_schema(
    [
        UID,
        Column("caption_source", pa.string(), "original, or a captioner's name", nullable=False),
        Column("faithful", pa.int8(), f"whether what it says is true: {_MARK}", "1 to 5"),
        Column("complete", pa.int8(), f"whether it says what matters: {_MARK}", "1 to 5"),
        Column("fluent", pa.int8(), f"whether it is clear, correct language: {_MARK}", "1 to 5"),
        Column("invents_nothing", pa.int8(), f"whether it keeps to what can be seen: {_MARK}", "1 to 5"),
        Column("overall", pa.float32(), "mean of the four marks", "1 to 5"),
        Column(
            "reasons",
            pa.struct([(name, pa.string()) for name in ("faithful", "complete", "fluent", "invents_nothing")]),
            "the judge's reason for each mark, cut at 300 characters",
        ),
        Column("stratum", pa.int8(), "quantile stratum of similarity that the sample was drawn from, 0 is the lowest"),
        Column("place", pa.int8(), "place in the order in which the captions were shown, from 1", nullable=False),
        Column("finish_reason", pa.string(), "stop, length (cut), unparsable, or error", nullable=False),
        Column("error", pa.string(), "what was wrong with the last answer, if finish_reason is unparsable or error"),
        Column("text", pa.string(), "the last answer, cut at 2,000 characters, if finish_reason is unparsable"),
        Column(
            "flags",
            pa.list_(pa.string()),
            f"what was taken out of the last answer: thinking, special_tokens; {_REQUEST}",
        ),
        Column("model", pa.string(), "model that judged", nullable=False),
        Column("revision", pa.string(), "revision of the model, where the settings say which"),
        Column("prompt_hash", pa.string(), "first 16 hex digits of the SHA-256 of the rubric", nullable=False),
        Column(
            "prompt_tokens",
            pa.int64(),
            "tokens of rubric, captions and image in all attempts, the most that they can be where the server does "
            f"not count them; {_REQUEST}",
            "tokens",
            nullable=False,
        ),
        Column(
            "completion_tokens",
            pa.int64(),
            "tokens of the answers in all attempts, the most that they can be where the server does not count them; "
            f"{_REQUEST}",
            "tokens",
            nullable=False,
        ),
        Column("attempts", pa.int32(), f"how often the judge was asked; {_REQUEST}", nullable=False),
        Column("seconds", pa.float64(), f"from asking to the whole last answer; {_REQUEST}", "seconds"),
        Column("cost", pa.float64(), f"price of the tokens; null without prices; {_REQUEST}"),
        Column("finished_at", pa.timestamp("us", tz="UTC"), "when the last answer was whole", nullable=False),
    ]
)


REFINED_CAPTIONS = table_schema(
    [
        UID,
        Column("caption_source", pa.string(), "whose caption was asked for again", nullable=False),
        Column("round", pa.int32(), "from 1", nullable=False),
        Column("candidate", pa.int32(), "which of the answers of the round, from 0", nullable=False),
        Column(
            "reason",
            pa.string(),
            "why it was asked for: no_caption, below, below_original, or flags of the caption that there was",
            nullable=False,
        ),
        Column("text", pa.string(), "the answer as generated; null where there is none"),
        Column("caption", pa.string(), "the straightforward caption made of it"),
        Column("flags", pa.list_(pa.string()), "what is wrong with it, as in synthetic_captions"),
        Column(
            "veto",
            pa.string(),
            "why it is not accepted whatever its similarity: a flag, unchanged, word_list (hardly a sentence), or "
            "too_long; null where nothing speaks against it",
        ),
        Column("finish_reason", pa.string(), "stop, length (cut) or error", nullable=False),
        Column("error", pa.string(), "the last error, if finish_reason is error"),
        Column("similarity", pa.float32(), "cosine of the answer and the image, as in caption_scores", "-1 to 1"),
        Column("previous_similarity", pa.float32(), "that of the caption that there was before the round", "-1 to 1"),
        Column(
            "accepted",
            pa.bool_(),
            "whether it took the place of that caption: the best of its round, and better than what was there",
            nullable=False,
        ),
        Column("words", pa.int32(), "words of the answer", "words"),
        Column("previous_words", pa.int32(), "words of the caption that there was before the round", "words"),
        Column("tokens", pa.int32(), "tokens of the answer for the scorer, special ones included", "tokens"),
        Column("truncated", pa.bool_(), "whether it was longer than the scorer reads"),
        Column(
            "independent",
            pa.bool_(),
            "false where the scorer shares a backbone with the captioner, or with the labels that the prompt says: "
            "a higher similarity then proves nothing",
            nullable=False,
        ),
        Column("model", pa.string(), "model that wrote it", nullable=False),
        Column("revision", pa.string(), "revision of the model, where the settings say which"),
        Column("prompt", pa.string(), "name and version of the prompt"),
        Column("prompt_hash", pa.string(), "first 16 hex digits of the SHA-256 of the prompt's text"),
        Column("temperature", pa.float32(), "of the sampling"),
        Column("prompt_tokens", pa.int32(), "tokens of prompt and image, as the engine counts them", "tokens"),
        Column("completion_tokens", pa.int32(), "tokens of the answer, as the engine counts them", "tokens"),
        Column("seconds", pa.float64(), "from asking to the whole answer", "seconds"),
        Column("attempts", pa.int32(), "how often the model was asked"),
        Column(
            "cost",
            pa.float64(),
            "by its tokens, or its share of the time that the round took, at the price configured when it was asked; "
            "null without a price",
        ),
        Column("finished_at", pa.timestamp("us", tz="UTC"), "when the answer was whole"),
    ]
)
"""Only samples that were asked about have rows: one for each round and candidate. A sample's refined caption is that
of its accepted row of the highest round; where there is none, nothing better was found."""
