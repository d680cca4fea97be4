"""How fast captions are measured by their texts alone, each signal next to a plain loop over the captions.

    python -m benchmarks.text_quality

The 8,000 SBU captions of ../shared as people wrote them (12 words), and those of CogVLM2-19B (117) and InternVL2-8B
(149) for the same images, which come in as a run imports them: through the captioner ``table``, with their flags. The
loop does the same caption by caption in plain Python: one core, no batches. ``equal`` is the share of the captions
for which both say the same.
"""

from __future__ import annotations

import re
import time
import unicodedata
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.common import publish
from benchmarks.concepts import DATA
from dqe_assets.caption.synthetic import synthetic_captions
from dqe_assets.core.schema import ORIGINAL
from dqe_assets.score.patterns import PATTERNS, found_patterns
from dqe_assets.score.text_quality import (
    AT_ONCE,
    GRAM,
    READ_FOR_LANGUAGE,
    languages_of,
    sign_ratios,
    text_quality,
    word_repetition,
)
from dqe_resources.captioners.table import TableCaptioner
from dqe_resources.models.language import detect_language

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

GOAL = 20_000
COLUMNS = ("signal", "source", "captions", "captions_per_second", "per_core_second", "loop_per_core_second", "equal")
_CAPTIONS = DATA / "sbu" / "captions.parquet"
_EXPRESSIONS = {
    # Python has no classes of letters by Unicode's name.
    name: re.compile(one.expression.replace(r"\PL", r"[\W\d_]"), re.IGNORECASE)
    for name, one in PATTERNS.items()
}


def language(text: str) -> Any:
    """The likeliest language of one caption."""
    return detect_language(text[:READ_FOR_LANGUAGE])[0] if any(map(str.isalpha, text)) else None


def signs(text: str) -> Any:
    """The share of signs that are neither letter nor digit, of one caption."""
    kinds = [unicodedata.category(sign)[0] for sign in text if not sign.isspace()]
    return round(sum(kind not in "LMN" for kind in kinds) / len(kinds), 4) if kinds else None


def repetition(text: str) -> Any:
    """The share of words in repeated runs, of one caption."""
    words = [re.sub(r"^[\W_]+|[\W_]+$", "", word) for word in text.lower().split()]
    seen, repeated = set(), set()
    for start in range(len(words) - GRAM + 1):
        run = tuple(words[start : start + GRAM])
        if run in seen:
            repeated.update(range(start, start + GRAM))
        seen.add(run)
    return round(len(repeated) / len(words), 4) if words else 0


def patterns(text: str) -> Any:
    """The patterns in one caption."""
    return [name for name, expression in _EXPRESSIONS.items() if expression.search(text)]


def in_chunks(function: Callable[[pa.Array], list[Any]], texts: pa.Array) -> list[Any]:
    """As many captions at once as the asset takes."""
    return [one for start in range(0, len(texts), AT_ONCE) for one in function(texts.slice(start, AT_ONCE))]


def _rounded(values: pa.Array) -> list[Any]:
    return [None if value is None else round(value, 4) for value in values.to_pylist()]


SIGNALS: dict[str, tuple[Callable[[pa.Array], list[Any]], Callable[[str], Any]]] = {
    "language": (lambda texts: languages_of(texts)[0].to_pylist(), language),
    "signs": (lambda texts: _rounded(sign_ratios(texts)[0]), signs),
    "words and repetition": (lambda texts: _rounded(word_repetition(texts)[1]), repetition),
    "patterns": (lambda texts: found_patterns(texts).to_pylist(), patterns),
}


def timed(function: Callable[[], Any]) -> tuple[Any, float, float]:
    """What a function gives, the seconds that it took, and those of a core."""
    wall, core = time.monotonic(), time.process_time()
    found = function()
    return found, time.monotonic() - wall, time.process_time() - core


def each(function: Callable[[str], Any], texts: list[str]) -> list[Any]:
    """One caption after another."""
    return [function(text) for text in texts]


def main() -> None:
    """Measure and publish."""
    language("the first text loads the model")
    captions, rows = imported(_CAPTIONS)
    uids = pa.chunked_array([[f"{row:032x}" for row in range(len(captions[ORIGINAL]))]])
    total = sum(map(len, captions.values()))
    _, wall, core = timed(lambda: text_quality(uids, captions))
    loop = 0.0
    for source, texts in captions.items():
        present = texts.drop_null()
        for name, (ours, one) in SIGNALS.items():
            found, wall_here, core_here = timed(partial(in_chunks, ours, present))
            plain, _, core_loop = timed(partial(each, one, present.to_pylist()))
            loop += core_loop
            equal = float(np.mean([left == right for left, right in zip(found, plain, strict=True)]))
            rows.append(row(name, source, len(present), wall_here, core_here, core_loop) | {"equal": equal})
    rows.append(row("everything", "all", total, wall, core, loop) | {"goal": GOAL})
    publish("text_quality", COLUMNS, rows, f"{total:,} captions measured by their texts (goal {GOAL:,} a second)")


def row(signal: str, source: str, captions: int, wall: float, core: float, loop: float | None = None) -> dict[str, Any]:
    """A figure."""
    return {
        "signal": signal,
        "source": source,
        "captions": captions,
        "captions_per_second": captions / wall,
        "per_core_second": captions / core,
        "loop_per_core_second": captions / loop if loop else None,
    }


def imported(path: Path) -> tuple[dict[str, pa.Array], list[dict[str, Any]]]:
    """The captions of each source, the models' as the captioner ``table`` brings them in, and how fast it does."""
    table = pq.read_table(path)
    uids = pa.array([f"{row:032x}" for row in range(table.num_rows)])
    names = pa.table({"uid": uids, "url": table["image_url"], "image_name": table["image_name"]})
    captions, rows = {ORIGINAL: table["original_caption"].combine_chunks()}, []
    has_image = np.ones(len(uids), bool)
    for name in ("cogvlm2", "internvl2"):
        captioner = TableCaptioner(name=name, path=path, caption_column=f"{name}_caption", key="image_name")
        bring_in = partial(synthetic_captions, uids, has_image, iter(names.to_batches()), captioner)
        found, wall, core = timed(bring_in)
        captions[name] = found["caption"].combine_chunks()
        rows.append(row("imported, with flags", name, len(uids), wall, core))
    return captions, rows


if __name__ == "__main__":
    main()
