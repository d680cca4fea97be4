"""Captions of a compressed subset: a generated one behind the original, in its place, or none."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeAlias, get_args

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import numpy as np

Captions: TypeAlias = Literal["join", "replace", "original"]

SEPARATOR = "; "
"""What stands between the two, as TL;DR published it."""


@dataclass(frozen=True)
class Refined:
    """Captions to train with.

    Attributes:
        texts: [n]; None where there is no caption.
        joined: how many have both captions.
        without_room: how many kept the original alone, as both together are longer than the text encoder reads.
        without_generated: how many kept the original as there is no generated caption.
    """

    texts: tuple[str | None, ...]
    joined: int
    without_room: int
    without_generated: int


def refined_captions(
    originals: Sequence[str | None],
    generated: Sequence[str | None],
    how: Captions,
    count_tokens: Callable[[Sequence[str]], np.ndarray],
    limit: int,
) -> Refined:
    """Join, replace or keep captions.

    TL;DR (arXiv 2305.20087) joins every generated caption to the original, and what is beyond the encoder's limit is
    lost while training. Here they are joined only where both fit; how many did not is said.

    Args:
        originals: captions as found [n].
        generated: captions by a model [n].
        how: ``join``, ``replace`` or ``original``.
        count_tokens: of whole texts, as the text encoder counts them, special ones included.
        limit: the most tokens that it reads.

    Raises:
        ValueError: lists of different lengths, or another way.
    """
    if len(originals) != len(generated) or how not in get_args(Captions):
        raise ValueError(f"{len(originals)} originals, {len(generated)} generated, how={how!r}")
    if how == "original":
        return Refined(tuple(one or None for one in originals), 0, 0, 0)
    missing = sum(not one for one in generated)
    if how == "replace":
        texts = tuple(new or old or None for old, new in zip(originals, generated, strict=True))
        return Refined(texts, 0, 0, missing)
    both = [f"{old}{SEPARATOR}{new}" if old and new else None for old, new in zip(originals, generated, strict=True)]
    pairs = [text for text in both if text is not None]
    fits = dict(zip(pairs, (count_tokens(pairs) <= limit).tolist(), strict=True)) if pairs else {}
    texts = tuple(
        text if text is not None and fits[text] else old or new or None
        for text, old, new in zip(both, originals, generated, strict=True)
    )
    joined = sum(text is not None and fits[text] for text in both)
    return Refined(texts, joined, len(pairs) - joined, missing)
