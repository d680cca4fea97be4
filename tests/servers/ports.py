"""Ports of this machine."""

from __future__ import annotations

import socket
from itertools import islice
from random import SystemRandom
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

_PORTS = range(20_000, 22_700)
"""Not those that the system gives to whoever connects: somebody would have one of them before a server is up."""


def free_port() -> int:
    """A port that nobody listens on now."""
    return next(_free(()))


def free_ports(count: int, above: int) -> list[int]:
    """So many ports that nobody listens on now, nor on the one that is so far above each."""
    return list(islice(_free((above,)), count))


def _free(above: tuple[int, ...]) -> Iterator[int]:
    for port in SystemRandom().sample(_PORTS, len(_PORTS)):
        if all(map(_is_free, (port, *(port + more for more in above)))):
            yield port


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True
