"""The interface of a scorer that gives each sample a number, and models that score beside the one of ``scorer``."""

from __future__ import annotations

from typing import Annotated, ClassVar

from dqe_resources.configurable import Configurable, matching
from dqe_resources.scorers.label_space import LabelSpace
from dqe_resources.scorers.open_clip import OpenClipScorer
from dqe_resources.scorers.protocol import Scorer

ScoreName = Annotated[
    str,
    matching(r"^[a-z][a-z0-9_]*$", "a name: a small letter a to z, then small letters, digits and _", max_length=60),
]


class SampleScorer(Configurable):
    """Gives each sample a number to choose by.

    Attributes:
        name: Name of the column that filters read, and of the asset ``scores/<name>``.
    """

    without_effect: ClassVar[frozenset[str]] = frozenset({"name"})

    name: ScoreName


class ModelScorer(SampleScorer, Scorer):
    """Scores samples by how well the original caption fits its image."""


class NamedOpenClip(ModelScorer, OpenClipScorer):
    """How well the original caption fits its image, by any model of open_clip: a DFN, SigLIP, MetaCLIP."""


class NamedLabelSpace(ModelScorer, LabelSpace):
    """How well the original caption fits its image, by the embedded scorer."""


class OfEmbedding(SampleScorer):
    """Scores images by where they lie in a model's space.

    Attributes:
        model: Name of a scorer of this list, of kind open_clip or label_space, whose embeddings are read; by default
            those of the key ``scorer``.
    """

    model: str | None = None
