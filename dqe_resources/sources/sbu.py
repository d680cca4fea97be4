"""The SBU Captioned Photo Dataset (Ordonez, Kulkarni and Berg 2011), as its authors publish it."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from dqe_resources.configurable import ExistingPath
from dqe_resources.sources.listing import Listing, converted_list
from dqe_resources.sources.parts import file_state
from dqe_resources.sources.protocol import Shard, Source
from dqe_resources.sources.text_lists import Columns, paired_rows
from dqe_resources.sources.walk import require_there

if TYPE_CHECKING:
    from collections.abc import Iterator

    from dqe_resources.sources.rows import SourceRow


class SbuSource(Source):
    """A file of URLs and a file of captions, each with a line for each row, in the same order.

    They are published as ``SBU_captioned_photo_dataset_urls.txt`` and ``..._captions.txt``. Rows, shards and the cache
    are as with the kind ``urls``.

    Attributes:
        urls: The file of URLs, one in each line.
        captions: The file of captions, one in each line.
    """

    kind: ClassVar[str] = "sbu"
    urls: ExistingPath
    captions: ExistingPath

    def shards(self, first: int = 0) -> Iterator[Shard]:
        """As ``Source.shards``."""
        return self._listing().shards(self.shard_size, first)

    def rows(self, index: int) -> Iterator[SourceRow]:
        """As ``Source.rows``."""
        return self._listing().rows(index * self.shard_size, self.shard_size)

    @property
    def fetches(self) -> bool:
        """All images are."""
        return True

    @property
    def caption_places(self) -> str:
        """The file of captions."""
        return f"the lines of {self.captions}"

    def _listing(self) -> Listing:
        require_there(self.urls, self.captions)
        state = tuple((str(path), *file_state(path)) for path in (self.urls, self.captions))
        part = converted_list(self.name, self.urls.name, state, lambda: paired_rows(self.urls, self.captions))
        return Listing(self.name, [part], Columns("url", "caption"))
