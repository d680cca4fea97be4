"""The options of a publication, apart from the code that writes it: the command line loads only this."""

from __future__ import annotations

from typing import Literal

Format = Literal["hf", "webdataset", "datacomp", "llava", "sharegpt"]

BEST = "best"
"""The caption rule that takes each sample's best caption, as ``best_captions`` has it."""
