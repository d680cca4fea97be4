"""A row as a source gives it, before anything is fetched or decoded."""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Self

from dqe_resources.web_url import separated, without_credentials

if TYPE_CHECKING:
    from dqe_resources.sources.local_file import LocalFile


@dataclass(frozen=True, slots=True)
class Truth:
    """What was planted in a row of the embedded sample.

    Attributes:
        photo: key of the photo that the image was made from; None if there is no photo.
        image: kind of image: original, exact_copy, recompressed, truncated ...
        caption: kind of caption: right, other_photo, file_name ...
    """

    photo: str | None
    image: str
    caption: str


@dataclass(frozen=True, slots=True)
class SourceRow:
    """One row of a source.

    Attributes:
        key: the source's own name of the row, unique within the source: the uid is made of it.
        caption: the caption as found, or None.
        image: the file's bytes, or a local file (which may be missing), or None if only a URL is known.
        url: where the image came from, or None.
        truth: what was planted, in the embedded sample only.
        uid: the uid, 32 hex digits in lower case, of a source that has uids of its own; None to make it of the key.
        fault: why the source's own record of the row cannot be read (file, line, what was expected); such a row has
            no image and is not fetched.
        metadata: a JSON object of what else the source says of the row, as text.
        captions: all captions, if the source has several; ``caption`` is then the first.
        taken_down: by what the row was taken down; such a row has nothing else but its uid.
        credentials: user and password of the URL, once it is without them: for the request, and for nothing else.
    """

    key: str
    caption: str | None
    image: bytes | LocalFile | None
    url: str | None = None
    truth: Truth | None = None
    uid: str | None = None
    fault: str | None = None
    metadata: str | None = None
    captions: list[str] | None = None
    taken_down: str | None = None
    credentials: str = field(default="", repr=False)

    def with_credentials_apart(self) -> Self:
        """The same row, whose texts can be stored and shown: no URL in them has a user or a password."""
        url, credentials = separated(self.url or "")
        return replace(
            self,
            key=without_credentials(self.key),
            url=url or self.url,
            fault=self.fault and without_credentials(self.fault),
            metadata=self.metadata and without_credentials(self.metadata),
            credentials=credentials,
        )


def with_uid(row: SourceRow, uid: object, what: str) -> SourceRow:
    """The row under the uid that its source has for it; if that is no uid, the row with that fault.

    Args:
        row: the row.
        uid: what the source has: 32 hex digits are right.
        what: which value that is, for the fault.
    """
    if isinstance(uid, str) and re.fullmatch("[0-9a-fA-F]{32}", uid):
        return replace(row, uid=uid.lower())
    return replace(row, image=None, fault=row.fault or f"{what} is {uid!r:.80}, expected 32 hex digits")
