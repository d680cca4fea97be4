"""How images are fetched: the key ``fetching`` of data/dqe.yaml."""

from __future__ import annotations

import ipaddress
import re
from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from dqe_assets.ingest.fetch.addresses import as_network
from dqe_assets.ingest.fetch.placeholders import Placeholders
from dqe_resources.configurable import Strict

Refetch = Literal["transient", "failed", "all"]
"""What of a shard is fetched again when it is made again."""

_ADDRESS_AND_PORT = re.compile(r"\[?([^\[\]]+)\]?:(\d{1,5})")

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


class Fetching(Strict):
    """How images are fetched from the web.

    Attributes:
        connections: requests in flight.
        connections_per_host: of them to one host and port.
        connect_seconds: limit on finding the address, connecting and TLS together.
        idle_seconds: limit on silence.
        request_seconds: limit on one request as a whole, its redirects included.
        shard_seconds: limit on a shard; rows that have not ended by then end with the reason deadline.
        max_redirects: redirects that one request may take.
        attempts: times that a URL is asked for while its failures are transient.
        backoff_seconds: the longest wait after the first attempt; it doubles with each.
        longest_wait_seconds: the longest wait after any attempt. A server that asks for more (Retry-After) is not asked
            again in this run.
        host_failures: that many failures in a row without any answer from a host, and it is not asked again in this
            run: its other rows end with the last reason.
        checkpoint_rows: the most requests that are lost to a kill.
        canary_rows: so many rows of a source are fetched first, and must reach its min_success_rate; 0 for none.
        user_agent: what this client calls itself.
        user_agent_token: its name in X-Robots-Tag headers that are for one client only.
        disallowed_header_directives: directives of X-Robots-Tag by which a server forbids the use; none to ignore them.
        placeholders: what is taken for a placeholder, beside those that are known.
        allow: networks, addresses and names of hosts that may be asked although they are not globally routable.
        connect_to: ``address:port`` to connect to in place of a host of this name, or of any (``*``), as curl's option
            of that name: a mirror, or a cache. The address is subject to ``allow`` like any other.
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
    user_agent_token: str | None = None
    disallowed_header_directives: tuple[str, ...] = ("noai", "noimageai", "noindex", "noimageindex")
    placeholders: Placeholders = Placeholders()
    allow: list[Annotated[str, AfterValidator(_allowed)]] = Field(default_factory=list)
    connect_to: dict[str, Annotated[str, AfterValidator(_target)]] = Field(default_factory=dict)
