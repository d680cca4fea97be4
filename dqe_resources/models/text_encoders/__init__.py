"""Text encoders, one file each."""

from __future__ import annotations

from typing import Annotated

from dqe_resources.configurable import SerializeAsAny, one_of
from dqe_resources.models.text_encoders.minilm import MiniLM
from dqe_resources.models.text_encoders.protocol import TextEncoder

AnyTextEncoder = Annotated[SerializeAsAny[TextEncoder], one_of(MiniLM)]
"""The type of a setting that holds a text encoder of any kind."""
