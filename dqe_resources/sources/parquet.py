"""Parquet files with images, or with paths of images."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from dqe_resources.sources.image_tables import ImageColumns, ImageTables, ImageTableSource
from dqe_resources.sources.parts import ParquetPart
from dqe_resources.sources.walk import Files, FilesPath, find_files

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from dqe_resources.sources.parts import Part
    from dqe_resources.sources.protocol import Shard
    from dqe_resources.sources.rows import SourceRow


class ParquetSource(ImageTableSource):
    """A Parquet file, or a folder of them, with an image column and a caption column of any name.

    The image column holds the file's bytes, a Hugging Face Image (a struct of ``bytes`` and ``path``), or the path of
    a local file (a relative one counts from the Parquet file's folder). ``key_column`` names a row for good; without
    it, a row is named by its file, its image's path and a digest of image and caption.

    Attributes:
        path: A Parquet file, a folder of them, or a pattern such as pairs/*.parquet.
        image_column: Column of the image: bytes, a Hugging Face Image, or the path of a local file.
        caption_column: Column of the caption.
        url_column: Column of the image's URL, if there is one.
        key_column: Column that names a row for good; by default a row is named by its content.
    """

    kind: ClassVar[str] = "parquet"
    path: FilesPath
    image_column: str = "image"
    caption_column: str = "caption"
    url_column: str | None = None
    key_column: str | None = None

    def shards(self, first: int = 0) -> Iterator[Shard]:
        """As ``Source.shards``, from the files' footers alone."""
        return self._tables().shards(self.shard_size, first)

    def rows(self, index: int) -> Iterator[SourceRow]:
        """As ``Source.rows``, reading only the row groups that hold them."""
        return self._tables().rows(index * self.shard_size, self.shard_size)

    @property
    def caption_places(self) -> str:
        """The column of captions."""
        return f"the column {self.caption_column} (caption_column)"

    def parts(self) -> Sequence[Part]:
        """As ``ImageTableSource.parts``."""
        return _parts(self._files())

    def _tables(self) -> ImageTables:
        found = self._files()
        columns = ImageColumns(
            self.image_column,
            self.caption_column,
            self.url_column,
            self.key_column,
            self.kept_columns,
            self.uid_column,
        )
        return ImageTables(self.name, _parts(found), columns, self.inside(found.folder), found.left_out)

    def _files(self) -> Files:
        return find_files(self.path, [".parquet"], allow_outside=self.allow_outside)


def _parts(found: Files) -> list[ParquetPart]:
    return [ParquetPart.of(path, name) for path, name in found.files]
