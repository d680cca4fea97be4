"""The table of generated captions."""

from __future__ import annotations

import pyarrow as pa

from dqe_assets.core.schema import UID, Column, table_schema

SYNTHETIC_CAPTIONS = table_schema(
    [
        UID,
        Column(
            "text", pa.string(), "the caption as generated, without thoughts and special tokens; null where none was"
        ),
        Column("caption", pa.string(), "the straightforward caption: opening formula stripped, entities unescaped"),
        Column("finish_reason", pa.string(), "stop, length (cut), error, or no_image", nullable=False),
        Column(
            "flags",
            pa.list_(pa.string()),
            "what is wrong with the caption: cut_off, empty, refusal, repetition_loop, boilerplate_only, not_english; "
            "and what was taken out of it: thinking, special_tokens; null where there is none",
        ),
        Column("model", pa.string(), "model that wrote it", nullable=False),
        Column("revision", pa.string(), "revision of the model, where the settings say which"),
        Column("prompt", pa.string(), "name and version of the prompt; null where no model was asked"),
        Column("prompt_hash", pa.string(), "first 16 hex digits of the SHA-256 of the prompt's text"),
        Column("prompt_tokens", pa.int32(), "tokens of prompt and image, as the engine counts them", "tokens"),
        Column("completion_tokens", pa.int32(), "tokens of the text, as the engine counts them", "tokens"),
        Column("seconds", pa.float64(), "from asking to the whole answer; null where no model ran", "seconds"),
        Column("finished_at", pa.timestamp("us", tz="UTC"), "when the answer was whole; null where no model ran"),
        Column("attempts", pa.int32(), "how often the model was asked"),
        Column("error", pa.string(), "the last error, if finish_reason is error"),
    ]
)
