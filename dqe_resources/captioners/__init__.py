"""Captioners: the models that write captions, one file each."""

from __future__ import annotations

from typing import Annotated

from dqe_resources.captioners.labels import LabelsCaptioner
from dqe_resources.captioners.lmdeploy import LmdeployCaptioner
from dqe_resources.captioners.openai import OpenAICaptioner
from dqe_resources.captioners.protocol import Captioner
from dqe_resources.captioners.retrieval import RetrievalCaptioner
from dqe_resources.captioners.rewrite import RewriteCaptioner
from dqe_resources.captioners.table import TableCaptioner
from dqe_resources.captioners.transformers import TransformersCaptioner
from dqe_resources.configurable import SerializeAsAny, one_of

AnyCaptioner = Annotated[
    SerializeAsAny[Captioner],
    one_of(
        LabelsCaptioner,
        LmdeployCaptioner,
        OpenAICaptioner,
        RetrievalCaptioner,
        RewriteCaptioner,
        TableCaptioner,
        TransformersCaptioner,
    ),
]
"""The type of a setting that holds a captioner of any kind."""
