"""A RADIUS server that does as it is told, made without the library that is tested: octets by RFC 2865 and 3579."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import ipaddress
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

from ikeway.address import Address
from ikeway.gateway.radius.settings import DynamicSettings, RadiusSettings, ServerAddress

SECRET = b"testing123"
ACCEPT, REJECT, ACCOUNTING_RESPONSE, CHALLENGE = 2, 3, 5, 11
EAP_MESSAGE, MESSAGE_AUTHENTICATOR, STATE = 79, 80, 24

Pairs = Sequence[tuple[int | tuple[int, int], bytes]]


@dataclass(frozen=True)
class Got:
    """A request, taken apart."""

    octets: bytes
    attributes: list[tuple[int, bytes]]

    @property
    def code(self) -> int:
        return self.octets[0]

    @property
    def authenticator(self) -> bytes:
        return self.octets[4:20]

    def all(self, kind: int) -> list[bytes]:
        return [value for key, value in self.attributes if key == kind]

    def one(self, kind: int) -> bytes:
        (value,) = self.all(kind)
        return value

    @property
    def is_signed(self) -> bool:
        """Its Message-Authenticator comes first and is right."""
        zeroed = self.octets[:22] + bytes(16) + self.octets[38:]
        digest = hmac.new(SECRET, zeroed, hashlib.md5).digest()
        return self.attributes[0] == (MESSAGE_AUTHENTICATOR, digest)

    @property
    def is_accounted(self) -> bool:
        """Its authenticator is that of an Accounting-Request (RFC 2866 section 3)."""
        plain = self.octets[:4] + bytes(16) + self.octets[20:]
        return hashlib.md5(plain + SECRET).digest() == self.authenticator

    def password(self) -> bytes:
        """User-Password (RFC 2865 section 5.2)."""
        hidden, last, found = self.one(2), self.authenticator, b""
        for at in range(0, len(hidden), 16):
            block = hidden[at : at + 16]
            found += xor(block, hashlib.md5(SECRET + last).digest())
            last = block
        return found.rstrip(b"\0")


def take_apart(octets: bytes) -> Got:
    attributes, at = [], 20
    while at < len(octets):
        attributes.append((octets[at], octets[at + 2 : at + octets[at + 1]]))
        at += octets[at + 1]
    return Got(octets, attributes)


def xor(one: bytes, other: bytes) -> bytes:
    return bytes(a ^ b for a, b in zip(one, other, strict=True))


def encoded(pairs: Pairs) -> bytes:
    octets = b""
    for key, value in pairs:
        if isinstance(key, tuple):
            inner = bytes((key[1], len(value) + 2)) + value
            key, value = 26, key[0].to_bytes(4) + inner
        octets += bytes((key, len(value) + 2)) + value
    return octets


def answer(
    request: Got, code: int, pairs: Pairs = (), *, secret: bytes = SECRET, signed: bool = True, id_: int | None = None
) -> bytes:
    """A response with its authenticators; `signed`: with a Message-Authenticator."""
    identifier = request.octets[1] if id_ is None else id_
    attributes = (bytes((MESSAGE_AUTHENTICATOR, 18)) + bytes(16) if signed else b"") + encoded(pairs)
    head = bytes((code, identifier)) + (20 + len(attributes)).to_bytes(2)
    if signed:
        digest = hmac.new(secret, head + request.authenticator + attributes, hashlib.md5).digest()
        attributes = attributes[:2] + digest + attributes[18:]
    return head + hashlib.md5(head + request.authenticator + attributes + secret).digest() + attributes


def hidden_key(request: Got, key: bytes, salt: bytes = b"\x80\x01") -> bytes:
    """A key for MS-MPPE-Send-Key or -Recv-Key (RFC 2548 section 2.4.2)."""
    plain = bytes((len(key),)) + key
    plain += bytes(-len(plain) % 16)
    last, found = request.authenticator + salt, b""
    for at in range(0, len(plain), 16):
        block = xor(plain[at : at + 16], hashlib.md5(SECRET + last).digest())
        found, last = found + block, block
    return salt + found


Script = Callable[[Got], bytes | Sequence[bytes] | None]


class FakeServer(asyncio.DatagramProtocol):
    """Answers each request with what `script` makes of it; None: silence."""

    def __init__(self, script: Script) -> None:
        self.script = script
        self.requests: list[Got] = []

    async def start(self, port: int = 0) -> int:
        loop = asyncio.get_running_loop()
        self.transport, _ = await loop.create_datagram_endpoint(lambda: self, local_addr=("127.0.0.1", port))
        return self.transport.get_extra_info("sockname")[1]

    def datagram_received(self, data: bytes, addr: Any) -> None:
        request = take_apart(data)
        self.requests.append(request)
        answers = self.script(request)
        for each in [answers] if isinstance(answers, bytes) else answers or ():
            self.transport.sendto(each, addr)

    def close(self) -> None:
        self.transport.close()


async def start_both(server: FakeServer, accounts: FakeServer) -> int:
    """Authentication and, on the port after it, accounting: where both are free."""
    for _ in range(20):
        port = await server.start()
        try:
            await accounts.start(port + 1)
        except OSError:
            server.close()
        else:
            return port
    raise AssertionError("no two ports in a row are free")


def settings(*ports: int, **changes: Any) -> RadiusSettings:
    values: dict[str, Any] = {
        "name": "corp",
        "servers": tuple(ServerAddress("127.0.0.1", port) for port in ports),
        "secret": SECRET,
        "source": None,
        "nas_identifier": "vpn.example.com",
        "timeout": 0.05,
        "tries": 3,
        "dead_time": 60.0,
        "accounting": False,
        "interim": 0.0,
        "require_message_authenticator": True,
        "dynamic": None,
    }
    return RadiusSettings(**(values | changes))


def dynamic(**changes: Any) -> DynamicSettings:
    here = ipaddress.ip_address("127.0.0.1")
    values: dict[str, Any] = {
        "listen": here,
        "port": 0,
        "clients": frozenset({here}),
        "secret": SECRET,
        "require_timestamp": True,
    }
    return DynamicSettings(**(values | changes))


def sa(connection_id: int = 7, name: str = "people") -> Any:
    """As much of an IKE SA as RADIUS looks at."""
    return SimpleNamespace(
        connection_id=connection_id,
        name=name,
        local=Address("192.0.2.1", 4500),
        remote=Address("198.51.100.9", 61000),
        children=[],
        connection=SimpleNamespace(name=name),
    )
