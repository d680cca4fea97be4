"""The captioner that takes, of captions that others have written, the one that fits an image best."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import pyarrow as pa
from pydantic import model_validator
from pydantic_core import PydanticCustomError

from dqe_resources.captioners.protocol import Caption, Captioner, CaptionerError, Sample
from dqe_resources.configurable import ExistingPath
from dqe_resources.errors import one_line
from dqe_resources.fingerprint import file_digest
from dqe_resources.keyed_table import TABLE_SUFFIXES, column_batches, column_types
from dqe_resources.models.open_clip_models import OpenClipSettings

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from typing import Self

    from dqe_resources.models.open_clip_network import OpenClipNetwork

_TEXTS = 256


class RetrievalCaptioner(OpenClipSettings, Captioner):
    """Gives each image the caption that a contrastive model finds nearest, of a table of captions of other images.

    Nothing is written anew: a caption says as much of the image as the table has words for. Of equally near captions
    the first in the alphabet is taken. Memory holds a vector of each different caption. Needs the extra ``clip``.

    Attributes:
        captions: The table: .parquet, .csv, .tsv, .jsonl or .ndjson.
        caption_column: Its column of captions.
    """

    kind: ClassVar[str] = "retrieval"
    asset: ClassVar[str] = "raw_samples"
    columns: ClassVar[tuple[str, ...]] = ("image",)

    captions: ExistingPath
    caption_column: str = "caption"

    @model_validator(mode="after")
    def _column_is_there(self) -> Self:
        if self.captions.suffix.lower() not in TABLE_SUFFIXES or not self.captions.is_file():
            raise PydanticCustomError(
                "table",
                "captions: {path}: expected a file ending in {suffixes}",
                {"path": str(self.captions), "suffixes": ", ".join(TABLE_SUFFIXES)},
            )
        try:
            found = list(column_types(self.captions))
        except (pa.ArrowException, OSError) as error:
            raise PydanticCustomError(
                "table",
                "captions: {path} cannot be read: {why}",
                {"path": str(self.captions), "why": one_line(error)},
            ) from error
        if self.caption_column not in found:
            raise PydanticCustomError(
                "column",
                "captions: {path} has no column '{name}'; there are: {there}",
                {"path": str(self.captions), "name": self.caption_column, "there": ", ".join(found)},
            )
        return self

    @property
    def model_id(self) -> str:
        """The model, and the file of captions."""
        return f"{self.model_name}, captions of {self.captions.name}"

    def signature(self) -> dict[str, Any]:
        """The model, its weights and the table, files by their content."""
        return {
            "kind": self.kind,
            "name": self.name,
            "model": self.model_signature(),
            "captions": file_digest(self.captions),
            "caption_column": self.caption_column,
        }

    def caption(self, samples: Iterator[Sample]) -> Iterator[tuple[int, Caption]]:
        """The nearest caption of each sample, in order; an error for an image that cannot be read.

        Raises:
            CaptionerError: the table cannot be read, or has no caption.
            OpenClipError: the model cannot be loaded.
            PackageError: open_clip is not installed.
        """
        network = self.load()
        texts, vectors = _embedded(network, self.captions, self.caption_column, file_digest(self.captions))
        files = (sample.values["image"]["bytes"] for sample in samples)
        place = 0
        for images in network.embed_images(files, self.batch_size):
            for image, nearest in zip(images, (images @ vectors.T).argmax(axis=1), strict=True):
                is_read = bool(np.isfinite(image).all())
                found = Caption(texts[nearest]) if is_read else Caption(None, "error", "the image cannot be read")
                yield place, found
                place += 1


@lru_cache(maxsize=2)
def _embedded(network: OpenClipNetwork, path: Path, column: str, _: str) -> tuple[list[str], np.ndarray]:
    """The different captions of a table in the order of the alphabet, [m], and their unit vectors, float32 [m, d]."""
    found: set[str] = set()
    try:
        for batch in column_batches(path, {column: pa.string()}):
            found.update(text.strip() for text in batch[column].cast(pa.string()).to_pylist() if text)
    except (pa.ArrowException, OSError) as error:
        raise CaptionerError(f"{path} cannot be read: {one_line(error)}") from error
    texts = sorted(found - {""})
    if not texts:
        raise CaptionerError(f"{path}: the column {column} has no caption; name a table of captions")
    return texts, network.embed_texts(texts, _TEXTS).vectors
