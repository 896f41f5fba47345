"""What proxies need of the network that they lead to, and what they say when it refuses."""

from __future__ import annotations

import errno
import socket
from typing import Protocol

from ikeway.client.relay import Stream
from ikeway.errors import IkewayError


class WayOut(Protocol):
    """Sockets and names of another network. `ikeway.client.enclave.enclave.Enclave` is one."""

    async def connect(self, host: str, port: int) -> socket.socket:
        """A TCP connection to a name or an address; not blocking (`PeerUnreachable`, caused by an `OSError`)."""
        ...

    async def new_socket(self, host: str = "", *, datagrams: bool = False) -> socket.socket:
        """A socket of the family of an address; not blocking (`HostError`)."""
        ...

    async def resolve(self, host: str) -> list[str]:
        """The addresses of a name (`PeerUnreachable`)."""
        ...


async def connect(way_out: WayOut, host: str, port: int) -> Stream:
    """A connection to a name or an address (`IkewayError`)."""
    return await Stream.of(await way_out.connect(host, port))


def network_errno(error: IkewayError) -> int:
    """The errno that a refusal came from; 0 when it was none of the network's."""
    cause = error.__cause__
    if isinstance(cause, TimeoutError):
        return errno.ETIMEDOUT
    return cause.errno or 0 if isinstance(cause, OSError) else 0
