"""Stock pictures that servers give, with status 200, in place of images that are gone."""

from __future__ import annotations

import re
from fnmatch import translate
from typing import Annotated

from pydantic import Field

from dqe_resources.configurable import Strict, matching

KNOWN_PLACEHOLDERS = (
    "*.yimg.com/*photo_unavailable*",  # Flickr, to which its dead photos are redirected
    "*.staticflickr.com/*photo_unavailable*",  # Flickr
    "i.imgur.com/removed.png",  # Imgur
    "*tinypic.com/images/404.gif",  # TinyPic
)
"""Where known placeholders are: host and path, with ``*`` for anything."""


class Placeholders(Strict):
    """What counts as a placeholder: a picture that a server sends in place of one that is gone.

    Attributes:
        urls: More hosts and paths of placeholders, in addition to the known ones; ``*`` stands for anything.
        sha256: SHA-256 digests of placeholders, 64 hex digits in lower case.
        same_bytes: Bytes that so many URLs of a shard give, with different captions, are a placeholder; null for never.
            With one caption they are copies of one image.
    """

    urls: list[str] = Field(default_factory=list)
    sha256: list[Annotated[str, matching("^[0-9a-f]{64}$", "a SHA-256 digest: 64 digits 0 to 9, a to f")]] = Field(
        default_factory=list
    )
    same_bytes: Annotated[int, Field(ge=2)] | None = 5

    def places(self) -> re.Pattern[str]:
        """What matches the host and path, in lower case, of a placeholder."""
        return re.compile("|".join(translate(pattern.lower()) for pattern in (*KNOWN_PLACEHOLDERS, *self.urls)))
