"""Headers by which a server forbids some uses of its images."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

_WITH_VALUE = frozenset({"unavailable_after", "max-snippet", "max-image-preview", "max-video-preview"})


def opted_out(headers: Iterable[str], *, token: str | None, directives: Collection[str]) -> str | None:
    """The first directive of X-Robots-Tag headers that forbids the use, or None.

    As img2dataset does; and a name before a colon binds what follows in the header to that user agent alone, also
    where it is not at the header's beginning (Google's description of the header: ``BadBot: noindex, nofollow``).

    Args:
        headers: values of the header, which may be there several times.
        token: name of this user agent in such headers, in lower case.
        directives: what forbids, in lower case.
    """
    for header in headers:
        applies = True
        for part in header.lower().split(","):
            name, colon, rest = (text.strip() for text in part.partition(":"))
            directive = name
            if colon and name not in _WITH_VALUE:
                applies, directive = name == token, rest
            if applies and directive in directives:
                return directive
    return None
