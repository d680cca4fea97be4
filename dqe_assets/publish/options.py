"""What a publication can be told, apart from what carries it out: the command line reads it without loading that."""

from __future__ import annotations

from typing import Literal

Format = Literal["hf", "webdataset", "datacomp"]

BEST = "best"
"""The caption rule that takes each sample's best caption, as ``best_captions`` has it."""

SAMPLES_PER_SHARD = 10_000
