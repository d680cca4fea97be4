"""Why a row has no image: one closed vocabulary, for fetched images and for files."""

from __future__ import annotations

import re
from dataclasses import dataclass

OK = "ok"
TIMEOUT = "timeout"
DEADLINE = "deadline"
PLACEHOLDER = "placeholder"
NOT_AN_IMAGE = "not_an_image"
TAKEN_DOWN = "taken_down"
NOAI_METADATA = "noai_metadata"

OPT_OUTS = ("opted_out", "robots_txt", "robots_unreachable", "tdm_reserved", NOAI_METADATA)
"""By which an owner says that an image is not to be used so."""

_HTTP = re.compile(r"http_([1-9]\d\d)")
_TRANSIENT_STATUS = frozenset({408, 425, 429})


@dataclass(frozen=True, slots=True)
class Reason:
    """What a reason means, and whether asking again later may help."""

    transient: bool
    meaning: str


REASONS = {
    # of the source
    "missing": Reason(False, "the source has no image and no URL, or its file is not there"),
    "bad_row": Reason(False, "the source's own row cannot be read"),
    "refused_path": Reason(False, "the path leads out of the source's folder, or to no regular file"),
    TAKEN_DOWN: Reason(False, "listed under takedowns, or a copy of what is listed: nothing is kept but its uid"),
    # of the URL, before anything is asked
    "bad_url": Reason(False, "not an http or https URL with a host, or a redirect to one that is not"),
    "refused_address": Reason(False, "an address that is not globally routable and not in fetching.allow"),
    # of the connection
    "dns": Reason(False, "the host's name does not exist"),
    "dns_temporary": Reason(True, "no name server gave an answer"),
    "connect": Reason(False, "no connection: refused, or no way to the host"),
    "tls": Reason(False, "no encrypted connection: a certificate that is not valid, or no common protocol"),
    TIMEOUT: Reason(True, "longer than the limit on connecting, on silence, or on the whole request"),
    "reset": Reason(True, "the connection was closed before the answer began"),
    "incomplete": Reason(True, "the connection was closed before the body was whole"),
    DEADLINE: Reason(True, "the shard's time was up"),
    # of the answer; and http_<code> for every HTTP status that is not a success
    "bad_response": Reason(False, "the answer is not HTTP"),
    "too_many_redirects": Reason(False, "more redirects than allowed, or a loop"),
    "content_encoding": Reason(False, "encoded for transport in a way that was not offered and is not known"),
    "opted_out": Reason(False, "X-Robots-Tag says that the image is not for this use"),
    "robots_txt": Reason(False, "the host's robots.txt forbids it for this client"),
    "robots_unreachable": Reason(True, "the host's robots.txt answers with an error of the server, which forbids all"),
    "tdm_reserved": Reason(False, "the host reserves text and data mining (TDMRep), in a header or in its file"),
    PLACEHOLDER: Reason(False, "a stock picture that stands for an image that is gone"),
    # of the bytes
    "empty": Reason(False, "no bytes"),
    "too_large": Reason(False, "more bytes than images.max_bytes"),
    NOT_AN_IMAGE: Reason(False, "bytes of something else"),
    "unsupported_format": Reason(False, "a format that is not decoded: the detail names it"),
    "bomb": Reason(False, "more pixels than images.max_pixels"),
    NOAI_METADATA: Reason(False, "the image file prohibits data mining (PLUS, in its XMP)"),
    "truncated": Reason(False, "the image ends too early"),
    "damaged": Reason(False, "the image cannot be decoded, or its pixels are garbled"),
}
"""Every reason but ``ok`` and the family ``http_<code>``, of which 408, 425, 429 and 5xx are transient."""


def http_reason(status: int) -> str:
    """The reason for an HTTP status that is not a success."""
    return f"http_{status}"


def is_transient(reason: str) -> bool:
    """Whether asking again may help.

    Raises:
        KeyError: no such reason.
    """
    if found := _HTTP.fullmatch(reason):
        status = int(found[1])
        return status in _TRANSIENT_STATUS or 500 <= status < 600
    return reason != OK and REASONS[reason].transient
