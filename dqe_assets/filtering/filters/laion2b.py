"""LAION-2B's filter."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from dqe_assets.filtering.english import CLD3, Detector, english
from dqe_assets.filtering.filters.protocol import Filter, Mask
from dqe_assets.filtering.filters.top_fraction import at_least
from dqe_assets.filtering.pool import SCORES, TEXT

if TYPE_CHECKING:
    import pyarrow as pa

_THRESHOLD = 0.28


class Laion2b(Filter):
    """English captions with a ViT-B/32 score of at least 0.28: how LAION-2B was made, as DataComp's code redoes it.

    English is what CLD3 says, through the package cld3-py. That is the network, the weights and the Python interface of
    gcld3 3.0.13, which DataComp's code uses and of which there are no builds for today's Python: built from its source,
    gcld3 gives the same language with the same probability for all of 40,014 captions in several scripts.
    """

    name: ClassVar[str] = "laion2b"
    meaning: ClassVar[str] = "English by CLD3, and a B/32 CLIP score of 0.28 or more"

    @property
    def columns(self) -> tuple[str, ...]:
        """Caption and score."""
        return (TEXT, SCORES["b32"])

    @property
    def detector(self) -> Detector:
        """CLD3."""
        return CLD3

    def mask(self, table: pa.Table | pa.RecordBatch) -> Mask:
        """Which rows are kept; only captions of a high enough score are asked for their language."""
        return english(table, CLD3, at_least(table.column(SCORES["b32"]), _THRESHOLD))
