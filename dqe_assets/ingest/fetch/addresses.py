"""Which addresses may be connected to."""

from __future__ import annotations

import ipaddress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    Address = ipaddress.IPv4Address | ipaddress.IPv6Address
    Network = ipaddress.IPv4Network | ipaddress.IPv6Network

_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")


class AddressRules:
    """Only globally routable unicast addresses, and those that the settings allow.

    Addresses that carry an IPv4 address (mapped, 6to4, NAT64) lead where that one leads, so it is looked at too.

    Args:
        allow: networks (``10.1.0.0/16``), addresses, and names of hosts whatever address they have.
    """

    def __init__(self, allow: Iterable[str]) -> None:
        self._known: dict[str, bool] = {}
        self._networks: list[Network] = []
        self._hosts: set[str] = set()
        for entry in allow:
            network = as_network(entry)
            if network is None:
                self._hosts.add(entry.lower())
            else:
                self._networks.append(network)

    def trusts(self, host: str) -> bool:
        """Whether a host is allowed by name."""
        return host.lower() in self._hosts

    def permits(self, address: str) -> bool:
        """Whether an IPv4 or IPv6 address may be connected to; false for anything else."""
        permitted = self._known.get(address)
        if permitted is None:
            permitted = self._known[address] = self._judge(address)
        return permitted

    def _judge(self, address: str) -> bool:
        try:
            parsed = ipaddress.ip_address(address.partition("%")[0])
        except ValueError:
            return False
        return all(
            any(one in network for network in self._networks if network.version == one.version) or _is_public(one)
            for one in _leads_to(parsed)
        )


def as_network(entry: str) -> Network | None:
    """The network or address that an entry of the allow list is; None for the name of a host.

    Raises:
        ValueError: it is meant as a network and is none.
    """
    try:
        return ipaddress.ip_network(entry)
    except ValueError:
        if "/" in entry:
            raise
        return None


def _leads_to(address: Address) -> list[Address]:
    if address.version == 4:
        return [address]
    if address.ipv4_mapped is not None:
        return [address.ipv4_mapped]
    if address in _NAT64:
        return [ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)]
    return [address] if address.sixtofour is None else [address, address.sixtofour]


def _is_public(address: Address) -> bool:
    is_site_local = address.version == 6 and address.is_site_local
    return address.is_global and not (address.is_multicast or address.is_reserved or is_site_local)
