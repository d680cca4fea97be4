"""The tables of scores: embeddings, similarities, preferences, and what the texts themselves say."""

from __future__ import annotations

import pyarrow as pa

from dqe_assets.core.schema import EMBEDDING, FAULT, UID, Column, table_schema

JOINT_EMBEDDINGS = table_schema(
    [
        UID,
        Column("item", pa.string(), "image, or the caption source: original or a captioner's name", nullable=False),
        Column("embedding", EMBEDDING, "unit vector in the scorer's joint space; null where there is nothing to embed"),
        Column("tokens", pa.int32(), "tokens of the caption, special ones included; null for an image", "tokens"),
        Column("truncated", pa.bool_(), "whether the caption was longer than the encoder reads; null for an image"),
        Column(
            "parts",
            pa.list_(EMBEDDING),
            "unit vectors of the sentences of a caption longer than the encoder reads, in order; "
            "null where it was not, or where scorer.long_captions is truncate",
        ),
        FAULT,
    ]
)


_LONG = "of a caption longer than the encoder reads; else null"


CAPTION_SCORES = table_schema(
    [
        UID,
        Column("caption_source", pa.string(), "original, or a captioner's name", nullable=False),
        Column(
            "similarity",
            pa.float32(),
            "cosine of caption and image in the scorer's joint space; "
            "of a caption longer than the encoder reads, as scorer.long_captions says",
            "-1 to 1",
        ),
        Column("tokens", pa.int32(), "tokens of the caption, special ones included", "tokens"),
        Column("truncated", pa.bool_(), "whether the caption was longer than the encoder reads"),
        Column("similarity_truncated", pa.float32(), f"cosine of its beginning, {_LONG}", "-1 to 1"),
        Column("similarity_sentences_mean", pa.float32(), f"mean cosine of the sentences, {_LONG}", "-1 to 1"),
        Column("similarity_sentences_max", pa.float32(), f"highest cosine of a sentence, {_LONG}", "-1 to 1"),
    ]
)


FURTHER_CAPTION_SCORES = table_schema(
    [
        UID,
        Column("place", pa.int32(), "place in original_captions: 2 is the second caption", nullable=False),
        Column(
            "similarity",
            pa.float32(),
            "cosine of the caption and the image, as in caption_scores; null where the image has no vector",
            "-1 to 1",
        ),
        Column("tokens", pa.int32(), "tokens of the caption, special ones included; null without a score", "tokens"),
        Column("truncated", pa.bool_(), "whether the caption was longer than the encoder reads; null without a score"),
    ]
)


CAPTION_PREFERENCE = table_schema(
    [
        UID,
        Column("source_a", pa.string(), "caption source a", nullable=False),
        Column("source_b", pa.string(), "caption source b", nullable=False),
        Column(
            "probability_a",
            pa.float32(),
            "softmax over the two captions of logit scale x similarity, or as imported",
            "0 to 1",
        ),
        Column("probability_b", pa.float32(), "1 - probability_a, or as imported", "0 to 1"),
        Column(
            "independent",
            pa.bool_(),
            "false where the scorer shares a backbone with one of the captioners: the preference then proves nothing",
            nullable=False,
        ),
        Column("scorer", pa.string(), "model that preferred", nullable=False),
    ]
)


TEXT_QUALITY = table_schema(
    [
        UID,
        Column("caption_source", pa.string(), "original, or a captioner's name", nullable=False),
        Column("language", pa.string(), "likeliest language, ISO 639; null where the caption has no letter"),
        Column("language_probability", pa.float32(), "how likely: low where the caption is short", "0 to 1"),
        Column("words", pa.int32(), "words between white space; null where there is no caption", "words"),
        Column("characters", pa.int32(), "length of the caption as found", "characters"),
        Column(
            "special_ratio",
            pa.float32(),
            "share of the characters other than spaces that are neither letter nor digit",
            "0 to 1",
        ),
        Column("digit_ratio", pa.float32(), "share of the characters other than spaces that are digits", "0 to 1"),
        Column(
            "repetition",
            pa.float32(),
            "share of the words that lie in a run of three words that came before in the caption",
            "0 to 1",
        ),
        Column(
            "patterns",
            pa.list_(pa.string()),
            "what the caption is or holds that is no description: file_name, placeholder, boilerplate, credit, url, "
            "email, price, product_code, markup, only_hashtags, no_letters",
        ),
    ]
)


REGION_TYPE = pa.struct(
    [("corners", pa.list_(pa.float32())), ("score", pa.float32()), ("text", pa.string()), ("confidence", pa.float32())]
)


IMAGE_TEXT = table_schema(
    [
        UID,
        Column(
            "regions",
            pa.list_(REGION_TYPE),
            "each line of text in the image, from the top: its four corners clockwise from the upper left as x, y, x, "
            "y ... in shares of width and height, the detector's score, and what it reads with its confidence, null "
            "where it was not read; null where there is no image",
        ),
        Column("text", pa.string(), "what the regions read, in their order; null where nothing was read"),
        Column("text_area", pa.float32(), "share of the image that the regions cover", "0 to 1"),
        FAULT,
    ]
)


MASKED_SIMILARITY = table_schema(
    [
        UID,
        Column(
            "masked_similarity",
            pa.float32(),
            "cosine of the original caption and the image with its text painted over; where it has none, the "
            "similarity",
            "-1 to 1",
        ),
        Column("similarity", pa.float32(), "cosine of the original caption and the image as it is", "-1 to 1"),
        Column("text_area", pa.float32(), "share of the image that was painted over", "0 to 1"),
        FAULT,
    ]
)


SAMPLE_SCORES = table_schema(
    [
        UID,
        Column("score", pa.float32(), "what the scorer says of the sample; null where it says nothing"),
        Column("reason", pa.string(), "why there is no score; null where there is one"),
    ]
)


VQA_SCORES = table_schema(
    [
        UID,
        Column(
            "score",
            pa.float32(),
            "how surely a vision-language model finds that the image shows what the caption says: the probability of "
            "Yes, or the expected grade as a share of the highest; null where it gave no answer",
            "0 to 1",
        ),
        Column("answered", pa.float32(), "probability that its first token is an answer at all", "0 to 1"),
        Column(
            "finish_reason",
            pa.string(),
            "stop or length (answered), unparsable (the first token is no answer), error, no_image, no_caption, or "
            "not_asked (the cap was reached)",
            nullable=False,
        ),
        Column("error", pa.string(), "what was wrong, if finish_reason is unparsable or error"),
        Column("model", pa.string(), "model that was asked", nullable=False),
        Column("revision", pa.string(), "revision of the model, where the settings say which"),
        Column(
            "prompt_tokens",
            pa.int64(),
            "tokens of question and image in all attempts, the most that they can be where the server does not count",
            "tokens",
        ),
        Column("completion_tokens", pa.int64(), "tokens of the answers in all attempts", "tokens"),
        Column("seconds", pa.float64(), "from asking to the last answer", "seconds"),
        Column("attempts", pa.int32(), "how often the model was asked"),
        Column("cost", pa.float64(), "price of the tokens; null without prices"),
        Column("finished_at", pa.timestamp("us", tz="UTC"), "when the last answer was there"),
    ]
)
