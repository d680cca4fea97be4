"""The settings of contamination: the sets that nothing may be trained on, and when a sample counts as one of theirs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from pydantic import Field
from pydantic_core import PydanticCustomError

from dqe_assets.dedup.settings import PairRules
from dqe_resources.configurable import Configurable, SerializeAsAny, Strict, one_of
from dqe_resources.sources import SOURCES, Source

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence


class EvaluationTask(Configurable):
    """A task of ``evaluation``, by its name.

    Attributes:
        name: Key of one of evaluation.tasks, or of one of DataComp's, such as imagenet1k.
    """

    kind: ClassVar[str] = "task"
    name: Annotated[str, Field(min_length=1)]


AnyReferenceSet = Annotated[
    SerializeAsAny[Source] | EvaluationTask, one_of(*SOURCES, EvaluationTask, named=EvaluationTask)
]
"""A set that nothing may be trained on: a source, or a task of ``evaluation``, whose name alone will do."""


class ContaminationRules(PairRules):
    """When a sample counts as one of a reference set.

    Attributes:
        max_distance: Perceptual: the most bits of the 64-bit hash in which two images may differ.
        min_contrast: Perceptual: standard deviation of the luminance, 0 to 1, below which a hash says nothing.
        min_cosine: Semantic: the least cosine of the classifier's pooled features.
        min_words: Texts: one of the reference set with fewer words says nothing.
        min_overlap: Texts: the least share of the runs of 8 words of a text of the reference set that a sample's text
            has too.
    """

    min_cosine: Annotated[float, Field(gt=0, le=1)] = 0.95
    min_words: Annotated[int, Field(ge=1, le=8)] = 5
    min_overlap: Annotated[float, Field(gt=0, le=1)] = 0.7


class ReferenceSets(Strict):
    """The reference sets, all as sources.

    Attributes:
        sources: one for each set.
    """

    sources: tuple[SerializeAsAny[Source], ...] = ()

    def signature(self) -> None:
        """Nothing: what is made of a set depends only on that set."""

    def named(self, name: str) -> Source:
        """The set of a name."""
        return next(one for one in self.sources if one.name == name)


def check_reference_sets(sets: Sequence[Any], tasks: Collection[str]) -> None:
    """Refuse repeated names, and tasks that are not there, when the settings are loaded.

    Args:
        sets: as the settings list them.
        tasks: names of the tasks of ``evaluation``.

    Raises:
        PydanticCustomError: says which set, and what is wrong.
    """
    names = [one.name for one in sets]
    if repeated := sorted({name for name in names if names.count(name) > 1}):
        raise PydanticCustomError(
            "repeated", "reference_sets: two sets have the name '{name}'; rename one", {"name": repeated[0]}
        )
    for one in sets:
        if isinstance(one, EvaluationTask) and one.name not in tasks:
            raise PydanticCustomError(
                "task",
                "reference_sets: evaluation has no task '{name}'; it has: {tasks}",
                {"name": one.name, "tasks": ", ".join(sorted(tasks)) or "none: list yours under evaluation.tasks"},
            )
