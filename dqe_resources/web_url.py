"""URLs of the web: asked for as they are written, and shown without the credentials in them."""

from __future__ import annotations

import base64
import re
import socket
from dataclasses import dataclass, field
from typing import Self
from urllib.parse import quote, unquote_to_bytes

from yarl import URL

_MAY_STAND = "!#$%&'()*+,-./:;=?@[]_~"
"""What may stand in a URL besides letters and digits: the reserved and unreserved characters of RFC 3986, and %."""

_PARTS = re.compile(r"(?:([A-Za-z][A-Za-z0-9+.-]*):)?(?://([^/?#]*))?([^#]*)")
_BARE_PERCENT = re.compile(r"%(?![0-9A-Fa-f]{2})")
_LEFT_OUT = re.compile(r"[\t\r\n]")
_NOT_IN_HOST = re.compile(r"[\x00-\x20\"#%/<>?@\\^`{|}\x7f]")

# At the beginning of a text all of it is taken for a URL; within one, a space or a quote ends the URL. What stands
# behind a colon and is no port is a password, whatever it holds. Lengths are bounded, for the text may be hostile.
_CREDENTIALS = re.compile(
    r"""
    (\A\s*(?:[a-z][a-z0-9+.-]*:)?//) [^/?\#]*@
  | ([a-z][a-z0-9+.-]{0,11}://)
    (?: [^\s/?\#"<>]{0,200} | [^\s/?\#"<>\[]{0,200} : (?!\d{1,5}(?:[/?\#]|\Z)) [^\s"<>]{0,200} ) @
    """,
    re.IGNORECASE | re.VERBOSE,
)
_UP_TO_THE_LAST_AT = re.compile(
    r"(\A\s*(?:https?:[/\\]*|(?:[a-z][a-z0-9+.-]*:)?[/\\]{2})).*@", re.IGNORECASE | re.DOTALL
)


@dataclass(frozen=True, slots=True)
class WebUrl:
    """An http or https URL, as it is asked for. As text it is without fragment and credentials.

    Attributes:
        scheme: http or https.
        host: in lower case, in ASCII (IDNA), IPv6 without brackets.
        port: said or meant.
        authority: host and port as they stand in a URL.
        target: path and query, byte for byte as they are written; only what may not stand in a URL is encoded.
        credentials: user and password, as they are written; empty without any.
    """

    scheme: str
    host: str
    port: int
    authority: str
    target: str
    credentials: str = field(default="", repr=False)

    @classmethod
    def parse(cls, text: str, credentials: str = "") -> Self:
        """The URL that a text is; a host that is an IPv4 address in another form (2130706433, 0x7f.1) in the usual one.

        Args:
            text: a URL, with white space around it or not.
            credentials: user and password, for a URL that has been separated from them.

        Raises:
            ValueError: it is none; says why, without its credentials.
        """
        scheme, authority, target = _split(text)
        if scheme not in {"http", "https"} or not authority:
            raise ValueError("not an http or https URL with a host")
        userinfo, _, address = authority.rpartition("@")
        if _NOT_IN_HOST.search(address):
            raise ValueError("its host has a character that no host has")
        origin = URL(f"{scheme}://{address}")
        host, port = origin.raw_host, origin.port
        if not host or not port:
            raise ValueError("not an http or https URL with a host")
        last = host.rstrip(".").rpartition(".")[2]
        if ":" not in host and (last.isdigit() or last.startswith("0x")):
            # As browsers have it: what ends in a number is an address.
            origin = origin.with_host(_address(host.rstrip(".")))
        shown = str(origin).partition("//")[2].rstrip("/")
        return cls(scheme, origin.raw_host or "", port, shown, _encoded(target), userinfo or credentials)

    def joined(self, location: str) -> Self:
        """The URL that a redirect leads to. Credentials go along only to the same scheme, host and port.

        Raises:
            ValueError: it is none.
        """
        scheme, authority, target = _split(location)
        if scheme is None and authority is None:
            base = self.target.partition("?")[0]
            if not target:
                target = self.target
            elif target.startswith("?"):
                target = base + target
            elif not target.startswith("/"):
                target = _without_dots(base.rpartition("/")[0] + "/" + target)
            location = f"{self.scheme}://{self.authority}{target}"
        elif scheme is None:
            location = f"{self.scheme}:{location.strip()}"
        other = type(self).parse(location)
        is_same = (other.scheme, other.host, other.port) == (self.scheme, self.host, self.port)
        return type(self).parse(location, self.credentials) if is_same else other

    def __str__(self) -> str:
        return f"{self.scheme}://{self.authority}{self.target}"

    def asked(self) -> URL:
        """The same for aiohttp, which sends the path of such a URL as it is."""
        # The query is part of the path here: on its own it would lose a question mark with nothing behind it.
        return URL.build(scheme=self.scheme, authority=self.authority, path=self.target, encoded=True)

    @property
    def path(self) -> str:
        """The path alone."""
        return self.target.partition("?")[0]

    @property
    def headers(self) -> dict[str, str]:
        """The header that the credentials make (RFC 7617, in UTF-8)."""
        if not self.credentials:
            return {}
        user, _, password = self.credentials.partition(":")
        pair = unquote_to_bytes(user) + b":" + unquote_to_bytes(password)
        return {"Authorization": f"Basic {base64.b64encode(pair).decode()}"}


def separated(text: str) -> tuple[str, str]:
    """A URL without its credentials, and these; a text that is no URL, without what may be credentials, and nothing."""
    if "@" not in text:
        return text, ""
    try:
        credentials = WebUrl.parse(text).credentials
    except ValueError:
        # A password may hold what ends a host: whatever may be part of it goes, and the rest must not look like a URL.
        return _UP_TO_THE_LAST_AT.sub(r"\1<left out>", text), ""
    return without_credentials(text), credentials


def without_credentials(text: str) -> str:
    """A text from which the user and password of every URL in it are taken: ``http://user:password@host/``."""
    return _CREDENTIALS.sub(lambda match: match[1] or match[2], text) if "@" in text else text


def _split(text: str) -> tuple[str | None, str | None, str]:
    """Scheme in lower case, what is between // and the path, and path with query."""
    found = _PARTS.match(_LEFT_OUT.sub("", text.strip()))
    scheme, authority, target = found.groups() if found else (None, None, "")
    return scheme and scheme.lower(), authority, target


def _encoded(target: str) -> str:
    text = _BARE_PERCENT.sub("%25", target if target.startswith("/") else f"/{target}")
    # What is no text, as a header may hold, stands here as surrogates: it is sent as the bytes that it was.
    return quote(text.encode("utf-8", "surrogateescape"), safe=_MAY_STAND)


def _address(host: str) -> str:
    try:
        return socket.inet_ntoa(socket.inet_aton(host))
    except OSError as error:
        raise ValueError(f"no IPv4 address: {error}") from error


def _without_dots(path: str) -> str:
    """A path without its segments ``.`` and ``..`` (RFC 3986, 5.2.4); the query behind it stays."""
    path, mark, query = path.partition("?")
    kept: list[str] = []
    *segments, last = path.split("/")[1:]
    for segment in (*segments, last):
        if segment == "..":
            del kept[-1:]
        elif segment != ".":
            kept.append(segment)
    ends = [""] if last in {".", ".."} else []
    return "/" + "/".join([*kept, *ends]) + mark + query
