"""Taggers: the models that say which concepts an image shows, one file each."""

from __future__ import annotations

from typing import Annotated

from dqe_resources.configurable import SerializeAsAny, one_of
from dqe_resources.taggers.labels import LabelsTagger
from dqe_resources.taggers.open_clip import OpenClipTagger
from dqe_resources.taggers.protocol import Tagger

AnyTagger = Annotated[SerializeAsAny[Tagger], one_of(LabelsTagger, OpenClipTagger)]
"""The type of a setting that holds a tagger of any kind."""
