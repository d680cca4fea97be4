"""A task as a source, so that its images can be compared with those that are trained on."""

from __future__ import annotations

import hashlib
from functools import cached_property
from typing import TYPE_CHECKING, ClassVar

from dqe_assets.evaluation.tasks import Task
from dqe_resources.fingerprint import fingerprint
from dqe_resources.sources.protocol import Shard, Source
from dqe_resources.sources.rows import SourceRow

if TYPE_CHECKING:
    from collections.abc import Iterator


class TaskSource(Source):
    """The images of a task, each once, with their captions if it is one of retrieval.

    Attributes:
        url: Folder or URL of the task.
    """

    kind: ClassVar[str] = "task"
    name: str
    url: str

    @cached_property
    def _task(self) -> Task:
        return Task(self.url)

    def shards(self, first: int = 0) -> Iterator[Shard]:
        """As ``Source.shards``: a single one. How many rows it has is only known once it was read.

        Raises:
            TaskError: there is no such task.
        """
        if not first:
            yield Shard(0, 0, fingerprint(self._task.kind, self._task.state))

    def rows(self, index: int) -> Iterator[SourceRow]:  # noqa: ARG002 - there is one shard
        """As ``Source.rows``; raises TaskError if the task cannot be read."""
        match self._task.kind:
            case "classification":
                return (SourceRow(one.key, None, one.image) for one in self._task.labelled())
            case "retrieval":
                return (
                    SourceRow(one.key, one.captions[0], one.image, captions=list(one.captions))
                    for one in self._task.captioned()
                )
            case "association":
                return self._candidates()

    def _candidates(self) -> Iterator[SourceRow]:
        # An image is a candidate of many cues.
        seen: set[bytes] = set()
        for one in self._task.associations():
            for number, image in enumerate(one.images):
                digest = hashlib.sha256(image).digest()
                if digest not in seen:
                    seen.add(digest)
                    yield SourceRow(f"{one.key}, candidate {number}", None, image)
