"""Captions as text to train on: entities unescaped, whitespace normal, and a model's opening formula stripped."""

from __future__ import annotations

import html
import re

import pyarrow as pa

# Without its semicolon a reference is left alone: "?a=1&copy=2" is an address, not a copyright sign.
_ENTITY = re.compile(r"&(?:#[0-9]+|#[xX][0-9a-fA-F]+|[A-Za-z][A-Za-z0-9]*);")
_AMPERSANDS = re.compile(r"&(?:(?:amp|AMP|#0*38|#[xX]0*26);)+")

_PICTURE = r"(?:images?|pictures?|photos?|photographs?|snapshots?)"
_NOUN = rf"(?:{_PICTURE}|scene)"
# What may stand between article and noun, or after the noun, without saying anything about the picture.
_WHICH = rf"(?:(?:provided|given|attached|uploaded|displayed|above|overall|entire)\s+)?{_NOUN}"
_GIVEN = r"(?:\s+(?:above|below|provided|(?:that\s+)?you(?:'ve|\s+have)?\s+(?:sent|shared|provided|uploaded)))?"
_ADVERB = r"(?:(?:(?!possibly|probably|likely|presumably|seemingly|only|partly|partially)[a-z]+ly|also|then)\s+)?"
_VERB = (
    r"(?:shows?|showcases?|depicts?|features?|captures?|presents?|portrays?|displays?|illustrates?|contains?"
    r"|highlights?|represents?|reveals?|exhibits?|consists?\s+of|(?:is|are)\s+of"
    r"|is(?=\s+an?\b(?!\s+(?:bit|little)\b)))"
)
_SHOWING = (
    r"(?:of|showing|showcasing|depicting|featuring|capturing|presenting|portraying|displaying|illustrating"
    r"|(?:that|which)\s+(?:shows|showcases|depicts|features|captures|presents|portrays|displays|illustrates))"
)
_SEEN = (
    rf"(?:(?:we|you|one|i)\s+(?:can\s+)?{_ADVERB}(?:see|observe)|there(?:\s+(?:is|are)|'s)|(?:is|are)(?=\s+an?\b)"
    r"|(?:it\s+)?(?:shows|showcases|depicts|features|captures|presents|portrays|displays))"
)
_FORMULA = re.compile(
    rf"""
    (?:
        # "This image showcases", "The provided photo clearly depicts", "The image is of", "These pictures show"
        (?:this|the|these)\s+{_WHICH}{_GIVEN}\s+{_ADVERB}{_VERB}
        (?:\s+that\b|\s+us\s+with\b|\s+what\s+(?:is|are)(?=\s+(?:possibly|probably|likely|presumably)\b)|:)?
        # "This is a photo of", "Here is an image showing", "A picture of", "Photograph of"
      | (?:(?:this|it|here)(?:\s+is|'s)\s+)?(?:an?\s+|the\s+)?{_PICTURE}\s+{_SHOWING}
        # "This is" of "This is a black and white photo of": what kind of picture it is stays
      | (?:this|it|here)(?:\s+is|'s)(?=\s+an?\s+(?:[\w-]+\s+){{1,4}}{_PICTURE}\s+{_SHOWING}\b)
        # "In this image, we can see", "In the picture there are", "In the photo,"
      | in\s+(?:this|the|these)\s+{_WHICH}{_GIVEN}\s*(?:,\s*{_SEEN}\b|,|\s{_SEEN}\b)
        # "Depicted in this image is"
      | (?:depicted|shown|pictured|captured|featured|seen)\s+in\s+(?:this|the)\s+{_WHICH}{_GIVEN}\s+(?:is|are)\b
        # "Sure! Here is a detailed description of the image:"
      | (?:(?:sure|certainly|of\s+course)[,!.]\s+)?here(?:\s+is|'s)\s+(?:an?|the|your)\s+(?:[\w-]+\s+){{0,2}}
        (?:description|caption)(?:\s+(?:of|for)\s+(?:the|this)\s+{_NOUN})?\s*:
    )
    \s+(?=.*\w)
    """,
    re.IGNORECASE | re.VERBOSE,
)


def normalise_original(text: str) -> str:
    """A caption as people wrote it, with HTML entities unescaped and whitespace normal; nothing is stripped.

    Entities are unescaped until none is left, since captions from the web are often escaped twice; that ends because
    each pass shortens the text. Every run of whitespace, line breaks included, becomes one space. Idempotent.
    """
    # Most captions have none, and to look for it costs more than all the rest.
    while "&" in text:
        unescaped = _ENTITY.sub(lambda match: html.unescape(match[0]), _AMPERSANDS.sub("&amp;", text))
        if unescaped == text:
            break
        text = unescaped
    return " ".join(text.split())


def straightforward(text: str) -> str:
    """The straightforward caption: what the model says of the picture, without saying that it is a picture.

    The opening formula ("This image showcases", "In this picture, we can see" ...) is stripped and the first letter
    is made a capital again; without a formula the wording is untouched. Words that say something of the picture ("a
    black and white photo of", "a close-up of", "a painting of") or of how sure the model is ("possibly") stay. Entities
    and whitespace are as `normalise_original` leaves them. Idempotent.

    Returns:
        The caption; empty only if the text held nothing but whitespace: a formula with nothing behind it stays.
    """
    caption = normalise_original(text)
    while match := _FORMULA.match(caption):
        rest = caption[match.end() :]
        caption = rest[0].upper() + rest[1:]
    return caption


def straightforward_captions(texts: pa.Array | pa.ChunkedArray) -> pa.Array:
    """`straightforward` of every text.

    Args:
        texts: string array, with nulls.

    Returns:
        string array of the same length, null if the text is null.
    """
    return pa.array([None if text is None else straightforward(text) for text in texts.to_pylist()], type=pa.string())


def normalise_captions(texts: pa.Array | pa.ChunkedArray) -> pa.Array:
    """`normalise_original` of every text, null if the text is null."""
    return pa.array(
        [None if text is None else normalise_original(text) for text in texts.to_pylist()], type=pa.string()
    )
