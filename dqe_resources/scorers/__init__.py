"""Scorers: the models that say how well a caption fits an image, or what else to choose by, one file each."""

from __future__ import annotations

from typing import Annotated

from dqe_resources.configurable import SerializeAsAny, one_of
from dqe_resources.scorers.imported_score import ImportedScore
from dqe_resources.scorers.label_space import LabelSpace
from dqe_resources.scorers.linear_head import LinearHead
from dqe_resources.scorers.named import NamedLabelSpace, NamedOpenClip, SampleScorer
from dqe_resources.scorers.open_clip import OpenClipScorer
from dqe_resources.scorers.prompt_axis import PromptAxis
from dqe_resources.scorers.protocol import Scorer
from dqe_resources.scorers.vqa_server import ServedVqa
from dqe_resources.scorers.vqa_transformers import LocalVqa

AnyScorer = Annotated[SerializeAsAny[Scorer], one_of(LabelSpace, OpenClipScorer)]
"""The type of a setting that holds a scorer of any kind."""

AnySampleScorer = Annotated[
    SerializeAsAny[SampleScorer],
    one_of(NamedOpenClip, NamedLabelSpace, PromptAxis, LinearHead, ImportedScore, ServedVqa, LocalVqa),
]
"""The type of a setting that holds a scorer beside the main one: of each sample, or of each caption."""
