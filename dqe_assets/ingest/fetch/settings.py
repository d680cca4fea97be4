"""How images are fetched: the key ``fetching`` of data/dqe.yaml."""

from __future__ import annotations

import ipaddress
import re
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, PrivateAttr

from dqe_assets.ingest.fetch.addresses import as_network
from dqe_assets.ingest.fetch.placeholders import Placeholders
from dqe_assets.ingest.fetch.refusals import Known
from dqe_resources.configurable import Strict

Refetch = Literal["transient", "failed", "all"]
"""What of a shard is fetched again when it is made again."""

_ADDRESS_AND_PORT = re.compile(r"\[?([^\[\]]+)\]?:(\d{1,5})")

CLIENT = "data-quality-engine"
"""What this client is called where something is said of single clients."""

Seconds = Annotated[float, Field(gt=0)]


def _allowed(entry: str) -> str:
    try:
        as_network(entry)
    except ValueError as error:
        msg = f"{error}; give a network such as 10.1.0.0/16, an address, or the name of a host"
        raise ValueError(msg) from error
    return entry


def address_and_port(text: str) -> tuple[str, int]:
    """The IP address and the port of ``address:port`` (IPv6 in brackets).

    Raises:
        ValueError: it is not of that form.
    """
    found = _ADDRESS_AND_PORT.fullmatch(text)
    if not found or int(found[2]) > 65535:
        msg = f"'{text}' is not address:port, such as 127.0.0.1:8080 or [::1]:8080"
        raise ValueError(msg)
    return str(ipaddress.ip_address(found[1])), int(found[2])


def _target(text: str) -> str:
    address_and_port(text)
    return text


def _contact(text: str) -> str:
    if not re.fullmatch(r"[!-'*-~]+", text):
        msg = f"'{text}' is neither an e-mail address nor a URL: give one, such as crawling@example.org"
        raise ValueError(msg)
    return text


class Fetching(Strict):
    """How images are fetched from the web.

    Attributes:
        connections: Requests in flight, at most.
        connections_per_host: Requests in flight to one host and port, at most.
        connect_seconds: Seconds for finding the address, connecting and TLS together.
        idle_seconds: Seconds that a server may be silent.
        request_seconds: Seconds for one request in all, with its redirects.
        shard_seconds: Seconds for a shard. Rows that are not done by then end with the reason deadline.
        max_redirects: Redirects that one request may take.
        attempts: How often a URL is asked for while its failures are transient.
        backoff_seconds: The longest wait after the first attempt, in seconds. It doubles with each.
        longest_wait_seconds: The longest wait after any attempt, in seconds. A server that asks for more (Retry-After)
            is not asked again in this run.
        host_failures: After so many failures in a row without an answer, a host is not asked again in this run. Its
            other rows end with the last reason.
        checkpoint_rows: Requests that a kill loses at most.
        canary_rows: So many rows of a source are fetched first, and must reach its min_success_rate; 0 for none.
        user_agent: What this client calls itself.
        contact: Who asks: an e-mail address, or the URL of a page that says so. It is part of the user agent.
        user_agent_token: Its name in robots.txt, and in X-Robots-Tag headers that are for one client only.
        robots_txt: Whether each host's robots.txt counts (RFC 9309).
        tdm_reservation: Whether TDMRep's reservation of text and data mining counts: the header tdm-reservation, and
            the file /.well-known/tdmrep.json of each host.
        disallowed_header_directives: Directives of X-Robots-Tag by which a server forbids the use; an empty list
            ignores them.
        placeholders: What else counts as a placeholder, in addition to the known ones.
        allow: Networks, addresses and host names that may be asked although they are not globally routable.
        connect_to: Where to connect in place of a host, or of any host (``*``), as ``address:port``: a mirror, or a
            cache. The address is subject to ``allow`` like any other.
    """

    connections: Annotated[int, Field(ge=1, le=10_000)] = 128
    connections_per_host: Annotated[int, Field(ge=1)] = 16
    connect_seconds: Seconds = 10
    idle_seconds: Seconds = 15
    request_seconds: Seconds = 60
    shard_seconds: Seconds = 3600
    max_redirects: Annotated[int, Field(ge=0, le=50)] = 5
    attempts: Annotated[int, Field(ge=1, le=100)] = 3
    backoff_seconds: Seconds = 1
    longest_wait_seconds: Seconds = 30
    host_failures: Annotated[int, Field(ge=1)] = 50
    checkpoint_rows: Annotated[int, Field(ge=1)] = 1000
    canary_rows: Annotated[int, Field(ge=0)] = 100
    user_agent: str = "Mozilla/5.0 (compatible; data-quality-engine/0.1)"
    contact: Annotated[str, AfterValidator(_contact)] | None = None
    user_agent_token: str | None = CLIENT
    robots_txt: bool = True
    tdm_reservation: bool = True
    disallowed_header_directives: tuple[str, ...] = ("noai", "noimageai", "noindex", "noimageindex")
    placeholders: Placeholders = Placeholders()
    allow: list[Annotated[str, AfterValidator(_allowed)]] = Field(default_factory=list)
    connect_to: dict[str, Annotated[str, AfterValidator(_target)]] = Field(default_factory=dict)

    _known: Known = PrivateAttr(default_factory=Known)

    @property
    def known(self) -> Known:
        """What hosts have said, as long as these settings are loaded."""
        return self._known

    @property
    def sent_user_agent(self) -> str:
        """The user agent with the contact in it."""
        if self.contact is None:
            return self.user_agent
        head, bracket, tail = self.user_agent.rpartition(")")
        return f"{head}; +{self.contact}){tail}" if bracket else f"{self.user_agent} (+{self.contact})"

    @property
    def token(self) -> str:
        """What this client is called where something is said of single clients, in lower case; * for no name."""
        return (self.user_agent_token or "").strip().lower() or "*"
