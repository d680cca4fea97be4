"""DataComp's text-based filter."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import pyarrow.compute as pc

from dqe_assets.filtering.english import Detector, english
from dqe_assets.filtering.filters.protocol import Filter, Mask
from dqe_assets.filtering.pool import TEXT, whole
from dqe_assets.filtering.wordnet import imagenet21k_offsets, open_wordnet
from dqe_resources.cache import in_data_directory

if TYPE_CHECKING:
    from pathlib import Path

    import pyarrow as pa

_WORDS_KEPT = 1 << 20
_LONGEST_KEPT = 40


class TextBased(Filter):
    """English captions with a word that names something of ImageNet-21k.

    DataComp (arXiv 2304.14108): fastText's most probable language is English, and for some word of ``split()`` the
    offset of its first WordNet synset, of whatever part of speech, is that of an ImageNet-21k id. No punctuation is
    stripped, so that a noun before a comma does not count.

    Attributes:
        wordnet: Folder of WordNet 3.0's index and exception files, from the data folder; by default NLTK's or Debian's.
        language_model: As in basic_filter.
    """

    name: ClassVar[str] = "text_based"
    meaning: ClassVar[str] = "English, with a word whose first WordNet synset is in ImageNet-21k"
    wordnet: str | None = None
    language_model: str | None = None

    @property
    def columns(self) -> tuple[str, ...]:
        """The caption."""
        return (TEXT,)

    @property
    def detector(self) -> Detector:
        """FastText."""
        return Detector("fasttext", self.language_model)

    @property
    def versions(self) -> dict[str, str]:
        """The detector's, and a digest of WordNet's files."""
        wordnet = open_wordnet(self._folder)
        return {**super().versions, "wordnet": wordnet.digest}

    @property
    def _folder(self) -> Path | None:
        return in_data_directory(self.wordnet) if self.wordnet else None

    def mask(self, table: pa.Table | pa.RecordBatch) -> Mask:
        """Which rows are kept; only captions that name something are asked for their language.

        Raises:
            WordNetError: WordNet is not there.
        """
        return english(table, self.detector, self._names_something(table.column(TEXT)))

    def _names_something(self, text: pa.Array | pa.ChunkedArray) -> Mask:
        # Arrow's white space is that of str.split; what it gives before and after it, empty strings, name nothing.
        split = pc.utf8_split_whitespace(whole(text))
        words = split.flatten().dictionary_encode()
        names = np.array([_is_in_imagenet(word, self._folder) for word in words.dictionary.to_pylist()], bool)
        rows = pc.list_parent_indices(split).to_numpy()[names[words.indices.to_numpy()]]
        mask = np.zeros(len(split), bool)
        mask[rows] = True
        return mask


def _is_in_imagenet(word: str, folder: Path | None) -> bool:
    # Longer words are rare, and would fill the memory that is given to words.
    return (_remembered if len(word) <= _LONGEST_KEPT else _looked_up)(word, folder)


def _looked_up(word: str, folder: Path | None) -> bool:
    return open_wordnet(folder).first_offset(word) in imagenet21k_offsets()


_remembered = lru_cache(_WORDS_KEPT)(_looked_up)
