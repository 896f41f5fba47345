"""VICI, strongSwan's control protocol: commands and streamed events over a UNIX socket.

A packet is its length (32 bits), a type, for most types a name, and a message: sections of keys with values, lists and
sections.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Union

Value = Union[str, bytes, int, Sequence[str | bytes], "Section"]
Section = Mapping[str, Value]
# What comes back: texts, lists of texts, and sections.
Answer = dict[str, "str | list[str] | Answer"]

_SECTION_START, _SECTION_END, _KEY_VALUE, _LIST_START, _LIST_ITEM, _LIST_END = range(1, 7)
_REQUEST, _RESPONSE, _UNKNOWN, _REGISTER, _UNREGISTER, _CONFIRM, _EVENT_UNKNOWN, _EVENT = range(8)


class ViciError(AssertionError):
    """The daemon refused a command, and says why."""


class Vici:
    """One connection to a daemon."""

    def __init__(self, path: Path, timeout: float = 30) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._socket.settimeout(timeout)
        self._socket.connect(str(path))

    def __enter__(self) -> Vici:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def command(self, name: str, message: Section | None = None) -> Answer:
        """Run a command; raises `ViciError` with the daemon's words."""
        return self._result(name, self._request(name, message or {}, {}))

    def stream(self, name: str, event: str, message: Section | None = None) -> list[Answer]:
        """Run a command that answers with events."""
        self._send(_REGISTER, event)
        self._expect(_CONFIRM)
        events: dict[str, list[Answer]] = {event: []}
        answer = self._request(name, message or {}, events)
        self._send(_UNREGISTER, event)
        self._expect(_CONFIRM)
        self._result(name, answer)
        return events[event]

    def _result(self, name: str, answer: Answer) -> Answer:
        if answer.get("success", "yes") != "yes":
            raise ViciError(f"{name}: {answer.get('errmsg', 'no reason given')}")
        return answer

    def _request(self, name: str, message: Section, events: dict[str, list[Answer]]) -> Answer:
        self._send(_REQUEST, name, b"".join(_encode(message)))
        while True:
            kind, body = self._receive()
            if kind == _RESPONSE:
                return _decode(body)
            if kind == _UNKNOWN:
                raise ViciError(f"charon does not know the command {name}")
            if kind == _EVENT:
                length = body[0]
                events.setdefault(body[1 : 1 + length].decode(), []).append(_decode(body[1 + length :]))

    def _expect(self, wanted: int) -> None:
        while True:
            kind, _ = self._receive()
            if kind == wanted:
                return
            if kind != _EVENT:
                raise ViciError(f"packet type {kind} instead of {wanted}")

    def _send(self, kind: int, name: str, message: bytes = b"") -> None:
        packet = bytes([kind, len(name)]) + name.encode() + message
        self._socket.sendall(struct.pack("!I", len(packet)) + packet)

    def _receive(self) -> tuple[int, bytes]:
        (length,) = struct.unpack("!I", self._read(4))
        packet = self._read(length)
        return packet[0], packet[1:]

    def _read(self, length: int) -> bytes:
        octets = b""
        while len(octets) < length:
            piece = self._socket.recv(length - len(octets))
            if not piece:
                raise ViciError("charon closed the control connection")
            octets += piece
        return octets


def _octets(value: str | bytes | int) -> bytes:
    return value if isinstance(value, bytes) else str(value).encode()


def _encode(section: Section) -> Iterator[bytes]:
    for key, value in section.items():
        name = bytes([len(key)]) + key.encode()
        if isinstance(value, Mapping):
            yield bytes([_SECTION_START]) + name
            yield from _encode(value)
            yield bytes([_SECTION_END])
        elif isinstance(value, list | tuple):
            yield bytes([_LIST_START]) + name
            for item in value:
                octets = _octets(item)
                yield bytes([_LIST_ITEM]) + struct.pack("!H", len(octets)) + octets
            yield bytes([_LIST_END])
        else:
            octets = _octets(value)
            yield bytes([_KEY_VALUE]) + name + struct.pack("!H", len(octets)) + octets


def _decode(body: bytes) -> Answer:
    root: Answer = {}
    stack: list[Answer] = [root]
    items: list[str] = []
    position = 0

    def name() -> str:
        nonlocal position
        length = body[position]
        position += 1 + length
        return body[position - length : position].decode()

    def value() -> str:
        nonlocal position
        (length,) = struct.unpack_from("!H", body, position)
        position += 2 + length
        return body[position - length : position].decode(errors="replace")

    while position < len(body):
        kind = body[position]
        position += 1
        if kind == _SECTION_START:
            section: Answer = {}
            stack[-1][name()] = section
            stack.append(section)
        elif kind == _SECTION_END:
            stack.pop()
        elif kind == _KEY_VALUE:
            key = name()
            stack[-1][key] = value()
        elif kind == _LIST_START:
            items = []
            stack[-1][name()] = items
        elif kind == _LIST_ITEM:
            items.append(value())
    return root
