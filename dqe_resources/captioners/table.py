"""The captioner that reads captions made elsewhere from a table."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from dqe_resources.captioners.protocol import Caption, Captioner, CaptionerError, Sample
from dqe_resources.keyed_table import KeyedTable, TableError

if TYPE_CHECKING:
    from collections.abc import Iterator


class TableCaptioner(KeyedTable, Captioner):
    """Takes each sample's caption from a Parquet, CSV, TSV or JSON Lines file, by uid, url or image name.

    The file is read once for each shard, in blocks, and only the rows of that shard are held. A sample without a row
    gets no caption, and its row says so; lower ``min_coverage`` where the table is not meant to hold them all.

    Attributes:
        caption_column: Column of the captions.
        model: The model that wrote the captions.
        model_column: Column of the models, where several wrote them.
    """

    kind: ClassVar[str] = "table"
    asset: ClassVar[str] = "raw_samples"
    columns: ClassVar[tuple[str, ...]] = ("uid", "url", "image_name")
    holds: ClassVar[str] = "captions"

    caption_column: str = "caption"
    model: str | None = None
    model_column: str | None = None

    @property
    def value_columns(self) -> list[str]:
        """The captions, and their models."""
        return [name for name in (self.caption_column, self.model_column) if name]

    @property
    def model_id(self) -> str:
        """The model that the settings name, or the file."""
        return self.model or f"table {self.path.name}"

    @property
    def pool(self) -> str | None:
        """None: nothing is run."""
        return None

    def signature(self) -> dict[str, Any]:
        """The settings, and the state of the file."""
        return {**super().signature(), **self.state()}

    def caption(self, samples: Iterator[Sample]) -> Iterator[tuple[int, Caption]]:
        """The caption in each sample's row of the table, in order; an error if there is no such row.

        Raises:
            CaptionerError: the file cannot be read, or has rows of one key with different captions.
        """
        keys = [sample.values[self.key] for sample in samples]
        try:
            found = self.find(keys)
        except TableError as error:
            raise CaptionerError(str(error)) from error
        for index, key in enumerate(keys):
            if key in found:
                _, values = found[key]
                model = values[self.model_column] if self.model_column else None
                yield index, Caption(values[self.caption_column], model=model)
            else:
                named = f"no row of {self.path.name} with a caption has the {self.key_name} '{key}'"
                yield index, Caption(None, "error", f"the sample has no {self.key}" if key is None else named)
