"""The settings of grounding."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from dqe_resources.configurable import Strict


class Grounding(Strict):
    """How the things that captions name are looked for in the images.

    Attributes:
        nouns: Take only words that spaCy finds to be nouns where they stand (``pip install '.[nouns]'``). By default
            every word counts that names a thing in ImageNet-21k, also where it is used otherwise.
        found_above: An image shows a thing when the scorer finds it nearer to that word than to this share of the
            concepts of ``concepts``; or when the tagger finds the concept.
        akin_above: A caption names a concept of its image also by a word that is nearer to it than this share of the
            concepts.
        flag_below: A caption is flagged ``ungrounded`` when a smaller share of its things is found ...
        flag_from: ... and it names at least so many.
    """

    nouns: bool = False
    found_above: Annotated[float, Field(gt=0, lt=1)] = 0.85
    akin_above: Annotated[float, Field(gt=0, lt=1)] = 0.99
    flag_below: Annotated[float, Field(ge=0, le=1)] = 0.2
    flag_from: Annotated[int, Field(ge=1)] = 2
