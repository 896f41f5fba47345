"""What engine and keeper say to each other: one JSON object a datagram on a socket pair, with descriptors beside it."""

from __future__ import annotations

import dataclasses
import json
import socket
from dataclasses import dataclass
from typing import ClassVar

from ikeway.errors import HostError, IkewayError

MOST_OCTETS = 1 << 17
MOST_DESCRIPTORS = 4


@dataclass(frozen=True, slots=True)
class Message:
    """Base: a frozen dataclass of texts, numbers, truth values, and tuples of texts."""

    kinds: ClassVar[dict[str, type[Message]]] = {}

    def __init_subclass__(cls) -> None:
        """Register the class under its name (a second time for the one that slots make)."""
        Message.kinds[cls.__name__] = cls


@dataclass(frozen=True, slots=True)
class Request(Message):
    """From the engine. Answered by `Done` or `Failed` with the same number."""

    number: int


@dataclass(frozen=True, slots=True)
class OpenTun(Request):
    """Make a TUN device. The answer has its name and descriptor."""

    name: str


@dataclass(frozen=True, slots=True)
class Configure(Request):
    """Make the network inside look so (`ikeway.host.linux.enclave.Inside`)."""

    interface: str
    mtu: int
    addresses: tuple[str, ...]
    routes: tuple[str, ...]
    refused: tuple[str, ...]
    dns_servers: tuple[str, ...]
    search_domains: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class MakeSocket(Request):
    """Make a TCP or UDP socket; with a `host`, bound to it and the port, and with a `backlog` listening."""

    ipv6: bool
    datagrams: bool
    host: str = ""
    port: int = 0
    backlog: int = 0


@dataclass(frozen=True, slots=True)
class OpenResolver(Request):
    """Start a process that looks names up inside. The answer has a socket to speak to it (`resolver`)."""


@dataclass(frozen=True, slots=True)
class Start(Request):
    """Start a command; with three descriptors beside it these are its standard ones. Without words it is the one that
    the keeper knows of. The answer's text is its process id. An empty `environment` is the keeper's own."""

    words: tuple[str, ...] = ()
    directory: str = ""
    environment: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Signal(Request):
    """Send a signal to a command."""

    pid: int
    signal: int


@dataclass(frozen=True, slots=True)
class Done(Message):
    """A request was carried out."""

    number: int
    text: str = ""


@dataclass(frozen=True, slots=True)
class Failed(Message):
    """A request was refused; number 0: the keeper could not get inside at all."""

    number: int
    reason: str
    expected: str = ""
    got: str = ""
    remedy: str = ""

    @classmethod
    def of(cls, number: int, error: Exception) -> Failed:
        """The same error in words."""
        if isinstance(error, IkewayError):
            return cls(number, error.reason, error.expected, error.got, error.remedy)
        return cls(number, str(error) or type(error).__name__)

    def error(self) -> HostError:
        """The error again."""
        return HostError(self.reason, expected=self.expected, got=self.got, remedy=self.remedy)


@dataclass(frozen=True, slots=True)
class Entered(Message):
    """The keeper is inside. `has_names`: /etc/resolv.conf could be replaced."""

    has_names: bool


@dataclass(frozen=True, slots=True)
class Ended(Message):
    """A command has ended, and all that it left. `code` as shells have it: 128 and more for a signal."""

    pid: int
    code: int


def encode(message: Message) -> bytes:
    """Octets of a message."""
    return json.dumps([type(message).__name__, dataclasses.asdict(message)]).encode()


def decode(octets: bytes) -> Message:
    """The message of octets; they come from our own other half."""
    kind, values = json.loads(octets)
    return Message.kinds[kind](
        **{name: tuple(value) if isinstance(value, list) else value for name, value in values.items()}
    )


def send(control: socket.socket, message: Message, descriptors: tuple[int, ...] = ()) -> None:
    """Send a message (`OSError`)."""
    socket.send_fds(control, [encode(message)], list(descriptors))


def receive(control: socket.socket) -> tuple[Message, tuple[int, ...]] | None:
    """The next message with its descriptors; None when the other side has gone (`BlockingIOError`: none is there)."""
    try:
        octets, descriptors, _, _ = socket.recv_fds(control, MOST_OCTETS, MOST_DESCRIPTORS)
    except ConnectionResetError:
        return None
    return (decode(octets), tuple(descriptors)) if octets else None
