"""Images that data is to be like, as embeddings: what ``normsim`` compares with."""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from pydantic import model_validator
from pydantic_core import PydanticCustomError

from dqe_assets.features.extract import read_by
from dqe_assets.ingest.tables import RAW_SAMPLES
from dqe_resources.configurable import ExistingPath, Strict
from dqe_resources.scorers.named import ModelScorer, ScoreName
from dqe_resources.sources.folder import FolderSource
from dqe_resources.sources.local_file import FileError, LocalFile

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from typing import Self

    from dqe_assets.evaluation.settings import Evaluation
    from dqe_assets.evaluation.tasks import Task
    from dqe_resources.models.image_model import ImageModel
    from dqe_resources.scorers.named import SampleScorer
    from dqe_resources.scorers.protocol import Scorer

_READ = pa.schema([RAW_SAMPLES.field("uid"), RAW_SAMPLES.field("image")])
_AT_ONCE = 64


class Targets(Strict):
    """Images that data is to be like, such as those of the tasks that a model will be evaluated on.

    Attributes:
        name: Name of the asset ``targets/<name>``, and what ``normsim`` calls it.
        images: A folder of images.
        task: Or an evaluation task, by its name.
        source: Or a source, by its name; the embeddings of its samples are read from the store.
        scorer: Name of the scorer of ``scorers`` whose embeddings they are; by default those of ``scorer``.
    """

    name: ScoreName
    images: ExistingPath | None = None
    task: str | None = None
    source: str | None = None
    scorer: str | None = None

    @model_validator(mode="after")
    def _one_of_three(self) -> Self:
        if sum(one is not None for one in (self.images, self.task, self.source)) != 1:
            raise PydanticCustomError("targets", "give one of the keys 'images', 'task' and 'source'")
        return self

    @property
    def folder(self) -> FolderSource:
        """The folder of images as a source, which leaves out what is none."""
        return FolderSource(name="targets", path=self.images)


def check_targets(
    targets: Sequence[Targets], scorers: Sequence[SampleScorer], sources: Sequence[str], evaluation: Evaluation
) -> None:
    """Refuse targets of a scorer, a source or a task that is not there.

    Raises:
        PydanticCustomError: says which, and what there is.
    """
    models = [one.name for one in scorers if isinstance(one, ModelScorer)]
    for one in targets:
        for key, value, there in (
            ("scorer", one.scorer, models),
            ("source", one.source, sources),
            ("task", one.task, evaluation.task_keys),
        ):
            if value is not None and value not in there:
                raise PydanticCustomError(
                    "targets",
                    "targets: '{name}' is of the {key} '{value}', which is not there; there are: {there}",
                    {"name": one.name, "key": key, "value": value, "there": ", ".join(there) or "none"},
                )


def of_task(task: Task) -> Iterator[bytes | None]:
    """The images of a task, in order; None for one that has none.

    Raises:
        TaskError: the task cannot be read.
    """
    if task.kind == "classification":
        yield from (one.image for one in task.labelled())
    elif task.kind == "retrieval":
        yield from (one.image for one in task.captioned())
    else:
        yield from (image for one in task.associations() for image in one.images)


def of_folder(folder: FolderSource, max_bytes: int) -> Iterator[bytes | None]:
    """The files of a folder of images, in order; None for one that cannot be read.

    Args:
        folder: the folder.
        max_bytes: a larger file is not read.

    Raises:
        SourceError: there is none.
    """
    for shard in folder.shards():
        for row in folder.rows(shard.index):
            try:
                yield row.image.read(max_bytes) if isinstance(row.image, LocalFile) else row.image
            except FileError:
                yield None


def embedded(files: Iterable[bytes | None], scorer: Scorer, image_model: ImageModel) -> Iterator[np.ndarray]:
    """Unit vectors of images, in order, some at a time: float16 [m, d]; NaN for one that cannot be read.

    Args:
        files: image files.
        scorer: the model.
        image_model: the backbone, for a scorer that reads an image by its features.
    """
    rest = iter(files)
    while chunk := list(islice(rest, _AT_ONCE)):
        samples: list[dict[str, Any]] = [
            {"uid": str(number), "image": file and {"bytes": file, "path": None}} for number, file in enumerate(chunk)
        ]
        read = read_by(scorer, pa.Table.from_pylist(samples, _READ), image_model)
        yield scorer.embed_images(read).astype(np.float16)
