"""Conditions on the payload of points: the same for every kind of collection, and as text for a command line."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from types import MappingProxyType
from typing import Literal, NamedTuple, TypeAlias

import numpy as np

Index: TypeAlias = Literal["keyword", "integer", "float", "bool"]

DEFAULT_INDEXES: Mapping[str, Index] = MappingProxyType(
    {
        "image_name": "keyword",
        "source": "keyword",
        "shard": "keyword",
        "language": "keyword",
        "width": "integer",
        "height": "integer",
        "similarity_*": "float",
        "flags_*": "keyword",
        "flagged_*": "bool",
    }
)
"""The payload fields that are indexed, ``*`` standing for any text: a field is indexed once a point has it."""


class Range(NamedTuple):
    """Numbers from ``low`` up to, and not including, ``high``; None is no bound."""

    low: float | None = None
    high: float | None = None


UID = "uid"
"""What stands in conditions for the identity of a point, which is no field of its payload."""

Value: TypeAlias = str | bool | int | float
Where: TypeAlias = Mapping[str, Value | Range | tuple[float | None, float | None] | frozenset[str]]
"""Conditions that must all hold: a field equals a value (a list has it), or is a number within a range; a point without
the field never matches. ``uid`` takes a set, of which the point must be one."""


@dataclass(frozen=True, slots=True)
class Equals:
    """A text or truth value that the field must have."""

    field: str
    value: str | bool


@dataclass(frozen=True, slots=True)
class Within:
    """Bounds of a numeric field; None is no bound."""

    field: str
    at_least: float | None
    below: float | None
    at_most: float | None


@dataclass(frozen=True, slots=True)
class Among:
    """Uids, of which the point's must be one."""

    uids: frozenset[str]


Clause: TypeAlias = Equals | Within | Among


def index_of(field: str, indexes: Mapping[str, Index]) -> Index | None:
    """The kind of index that ``indexes`` wants for a payload field, or None."""
    if field in indexes:
        return indexes[field]
    return next((kind for pattern, kind in indexes.items() if "*" in pattern and fnmatchcase(field, pattern)), None)


def json_path(field: str) -> str:
    """A field's name as Qdrant's filters and indexes want it: what is no letter, digit, ``_`` or ``-`` needs quotes."""
    return field if re.fullmatch(r"[A-Za-z0-9_-]+", field) else f'"{field}"'


def clauses(where: Where | None) -> list[Clause]:
    """The conditions, each of one of two forms that every kind of collection can translate.

    Raises:
        ValueError: a value is neither text, a finite number, a truth value nor a pair of bounds, or for ``uid`` no set.
    """
    return [_clause(field, value) for field, value in (where or {}).items()]


def _clause(field: str, value: object) -> Clause:
    if (field == UID) != isinstance(value, frozenset):
        raise ValueError(f"condition on '{field}': {value!r}; only '{UID}' takes a set of uids")
    if isinstance(value, frozenset):
        return Among(value)
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, str | bool):
        return Equals(field, value)
    if isinstance(value, int | float) and math.isfinite(value):
        return Within(field, at_least=value, below=None, at_most=value)
    if isinstance(value, tuple) and len(value) == len(Range._fields):
        low, high = value
        if all(bound is None or (isinstance(bound, int | float) and not math.isnan(bound)) for bound in value):
            return Within(field, at_least=low, below=high, at_most=None)
    raise ValueError(
        f"condition on '{field}': {value!r} is neither text, a finite number, a truth value nor a range (low, high)"
    )


_OPERATORS = "=, >= and <"
_CONDITION = re.compile(r"\s*(?P<field>[\w.-]+)\s*(?P<operator>>=|<=|==|!=|=|<|>)(?P<value>.*)", re.DOTALL)
_NEXT_CONDITION = re.compile(r",(?=\s*[\w.-]+\s*[=<>!])")


def parse_where(texts: str | Iterable[str], indexes: Mapping[str, Index] = DEFAULT_INDEXES) -> dict[str, Value | Range]:
    """Conditions as people type them: ``source=sample``, ``similarity_original>=0.3``, ``width<200``.

    Several are joined by commas or given as several texts, and must all hold. A comma inside a value is kept, unless
    what follows it reads as a condition.

    Args:
        texts: the conditions.
        indexes: the fields that may be used, with their kind, which says how the value is read.

    Raises:
        ValueError: what is wrong with which condition, and what is allowed.
    """
    found: dict[str, Value | Range] = {}
    for condition, field, operator, text in split_where(texts):
        kind = index_of(field, indexes)
        if kind is None:
            raise ValueError(f"'{field}' cannot be searched; allowed: {', '.join(indexes)}")
        known = found.get(field)
        if operator == "=" and known is None:
            found[field] = value_of(field, text, kind)
        elif operator == ">=" and (known is None or (isinstance(known, Range) and known.low is None)):
            found[field] = Range(_bound(field, text, kind), known.high if isinstance(known, Range) else None)
        elif operator == "<" and (known is None or (isinstance(known, Range) and known.high is None)):
            found[field] = Range(known.low if isinstance(known, Range) else None, _bound(field, text, kind))
        elif operator in {"=", ">=", "<"}:
            raise ValueError(
                f"'{condition.strip()}': '{field}' already has a condition that this one would replace; leave one out"
            )
        else:
            raise ValueError(f"'{condition.strip()}': operator {operator} is not known; allowed: {_OPERATORS}")
    return found


def split_where(texts: str | Iterable[str]) -> Iterator[tuple[str, str, str, str]]:
    """The conditions in texts as ``parse_where`` takes them: each with its field, operator and value, as texts.

    Raises:
        ValueError: one of them is no condition.
    """
    texts = [texts] if isinstance(texts, str) else texts
    for condition in (part for text in texts for part in _NEXT_CONDITION.split(text)):
        match = _CONDITION.fullmatch(condition)
        if match is None:
            raise ValueError(
                f"'{condition.strip()}' is not a condition; write FIELD OPERATOR VALUE, operator {_OPERATORS}"
            )
        yield condition, match["field"], match["operator"], match["value"].strip()


def value_of(field: str, text: str, kind: Index) -> Value:
    """The value that a text stands for.

    Args:
        field: the field, for the message.
        text: as it is typed.
        kind: kind of the field.

    Raises:
        ValueError: it is none of that kind.
    """
    if kind == "keyword":
        return text
    if kind == "bool":
        if text.lower() not in {"true", "false"}:
            raise ValueError(f"'{field}' is true or false, not '{text}'")
        return text.lower() == "true"
    return _number(field, text)


def _bound(field: str, text: str, kind: Index) -> float:
    if kind not in {"integer", "float"}:
        raise ValueError(f"'{field}' is not a number, so the only operator for it is =")
    return _number(field, text)


def _number(field: str, text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise ValueError(f"'{field}' is a number, not '{text}'")
    return number
