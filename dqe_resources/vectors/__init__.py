"""The Qdrant collection of samples: embedded in a directory, or on a server, behind one resource."""

from __future__ import annotations

from typing import Annotated

from pydantic import SerializeAsAny

from dqe_resources.configurable import one_of
from dqe_resources.vectors.embedded import EmbeddedQdrant
from dqe_resources.vectors.points import Point
from dqe_resources.vectors.protocol import (
    Collection,
    Contents,
    Hit,
    Vectors,
    VectorsBrokenError,
    VectorsBusyError,
    VectorsError,
    VectorsMismatchError,
    VectorsUnreachableError,
)
from dqe_resources.vectors.server import ServerQdrant
from dqe_resources.vectors.where import DEFAULT_INDEXES, UID, Index, Range, Where, parse_where, split_where, value_of

AnyVectors = Annotated[SerializeAsAny[Vectors], one_of(EmbeddedQdrant, ServerQdrant)]

__all__ = [
    "DEFAULT_INDEXES",
    "UID",
    "AnyVectors",
    "Collection",
    "Contents",
    "EmbeddedQdrant",
    "Hit",
    "Index",
    "Point",
    "Range",
    "ServerQdrant",
    "Vectors",
    "VectorsBrokenError",
    "VectorsBusyError",
    "VectorsError",
    "VectorsMismatchError",
    "VectorsUnreachableError",
    "Where",
    "parse_where",
    "split_where",
    "value_of",
]
