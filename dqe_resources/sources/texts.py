"""Texts as sources find them: which can be stored, how others are shown, and which are captions."""

from __future__ import annotations

import re
from typing import Any

_ESCAPED = re.compile(r"\\u(d[89a-f][0-9a-f]{2})")
_LOOKS_ESCAPED = re.compile(r"\\(?=ud[89a-f][0-9a-f]{2})")


def is_storable(value: Any) -> bool:
    """Whether it is text, all of it Unicode, or nothing."""
    if value is None:
        return True
    if not isinstance(value, str):
        return False
    if value.isascii():
        return True
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def readable(text: str) -> str:
    """Text with its surrogates written out, so that it can be shown and stored."""
    return text.encode("utf-8", "backslashreplace").decode()


def shortened(text: str, longest: int = 1000) -> str:
    """Text to be shown: of a longer one both ends, as data may bring names and columns of any length."""
    return text if len(text) <= longest else f"{text[:200]} … {text[-200:]}"


def readable_name(name: str) -> str:
    r"""A file's name, as Python decodes it, so that it can be stored; no two names give the same.

    A byte that is not UTF-8, such as E9, is written ``\udce9``. A backslash in the name itself that would look like
    the beginning of that is written ``\udc5c``.
    """
    return readable(_LOOKS_ESCAPED.sub(r"\\udc5c", name))


def original_name(name: str) -> str:
    """The file's name that ``readable_name`` has made this of."""
    return _ESCAPED.sub(lambda match: "\\" if match[1] == "dc5c" else chr(int(match[1], 16)), name)


def captions_of(value: Any) -> tuple[str | None, list[str] | None] | None:
    """The first caption of a value, and all of them if they are several; None if it holds none that can be stored.

    A text is a caption, and each text of a list; what is null is none. In a list, an object stands for its ``text``, as
    ``dqe publish`` writes captions.
    """
    is_list = isinstance(value, list | tuple)
    found: list[Any] = [one.get("text") if isinstance(one, dict) else one for one in value] if is_list else [value]
    texts = [one for one in found if one is not None] if is_list else found
    if not all(map(is_storable, texts)):
        return None
    return (texts[0] if texts else None), (texts if len(texts) > 1 else None)
