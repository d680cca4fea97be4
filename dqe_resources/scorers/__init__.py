"""Scorers: the models that say how well a caption fits an image, one file each."""

from __future__ import annotations

from typing import Annotated

from dqe_resources.configurable import SerializeAsAny, one_of
from dqe_resources.scorers.label_space import LabelSpace
from dqe_resources.scorers.open_clip import OpenClipScorer
from dqe_resources.scorers.protocol import Scorer

AnyScorer = Annotated[SerializeAsAny[Scorer], one_of(LabelSpace, OpenClipScorer)]
"""The type of a setting that holds a scorer of any kind."""
