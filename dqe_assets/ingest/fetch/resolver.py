"""Resolves host names, and gives only addresses that may be connected to."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import socket
import threading
from typing import TYPE_CHECKING

from aiohttp.abc import AbstractResolver, ResolveResult

from dqe_assets.ingest.fetch.settings import address_and_port

if TYPE_CHECKING:
    from collections.abc import Mapping

    from dqe_assets.ingest.fetch.addresses import AddressRules

_LOOKUPS = 64


class RefusedAddressError(OSError):
    """A host whose address may not be connected to."""

    def __init__(self, address: str) -> None:
        super().__init__(errno.EACCES, f"{address} is not globally routable and not in fetching.allow")


class Resolver(AbstractResolver):
    """Asks the system, many names at once and each once, and remembers what it says, also that there is no such name.

    Args:
        rules: which addresses may be connected to.
        connect_to: ``address:port`` to connect to in place of a host of this name, or of any (``*``).
    """

    def __init__(self, rules: AddressRules, connect_to: Mapping[str, str]) -> None:
        self._rules = rules
        self._connect_to = {host.lower(): address_and_port(target) for host, target in connect_to.items()}
        self._lookups: dict[str, asyncio.Task[list[str]]] = {}
        self._places = asyncio.Semaphore(_LOOKUPS)

    async def resolve(
        self,
        host: str,
        port: int = 0,
        family: socket.AddressFamily = socket.AF_UNSPEC,  # noqa: ARG002
    ) -> list[ResolveResult]:
        """The addresses that may be connected to.

        Raises:
            socket.gaierror: the name has no address, or no name server answers.
            RefusedAddressError: none of its addresses may be connected to.
        """
        target = self._connect_to.get(host) or self._connect_to.get("*")
        if target is not None:
            addresses, port = [target[0]], target[1]
        else:
            if host not in self._lookups:
                self._lookups[host] = asyncio.create_task(self._look_up(host))
            addresses = await asyncio.shield(self._lookups[host])
        permitted = [one for one in addresses if self._rules.trusts(host) or self._rules.permits(one)]
        if not permitted:
            raise RefusedAddressError(f"{host}: {', '.join(addresses)}")
        return [
            ResolveResult(hostname=host, host=one, port=port, family=_family(one), proto=0, flags=0)
            for one in permitted
        ]

    async def close(self) -> None:
        """Forget the lookups that are still under way."""
        for lookup in self._lookups.values():
            lookup.cancel()
        await asyncio.gather(*self._lookups.values(), return_exceptions=True)

    async def _look_up(self, host: str) -> list[str]:
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[list[str]] = loop.create_future()

        def ask() -> None:
            try:
                found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
                result: list[str] | OSError = list(dict.fromkeys(str(info[4][0]) for info in found))
            except OSError as error:
                result = error
            except ValueError as error:  # labels that cannot be encoded, null characters
                result = socket.gaierror(socket.EAI_NONAME, f"not a name: {error}")
            with contextlib.suppress(RuntimeError):  # the loop has ended
                loop.call_soon_threadsafe(tell, result)

        def tell(result: list[str] | OSError) -> None:
            if answer.done():
                return
            if isinstance(result, OSError):
                answer.set_exception(result)
            else:
                answer.set_result(result)

        async with self._places:
            # The system's own lookup cannot be ended early. In a thread that nobody waits for, it delays nothing.
            threading.Thread(target=ask, name=f"look up {host}", daemon=True).start()
            return await answer


def _family(address: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in address else socket.AF_INET
