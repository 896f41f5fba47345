"""A small typed binary form for the control channel: big-endian numbers, lengths before octets, fields in order.

A `Form` writes and reads one kind of value. Reading is total: octets that do not fit raise `CodecError`.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any, Generic, TypeVar

from ikeway.address import Address
from ikeway.errors import IkewayError

T = TypeVar("T")


class CodecError(IkewayError):
    """A control message that cannot be read."""


class Cursor:
    """Octets that are read from the front."""

    __slots__ = ("at", "octets")

    def __init__(self, octets: bytes) -> None:
        self.octets = octets
        self.at = 0

    def take(self, count: int) -> bytes:
        """The next octets."""
        end = self.at + count
        if end > len(self.octets):
            raise CodecError("the control message ends early", expected=f"{end} octets", got=str(len(self.octets)))
        taken = self.octets[self.at : end]
        self.at = end
        return taken


class Form(Generic[T]):
    """How values of one kind are written and read."""

    def write(self, value: T, out: bytearray) -> None:
        """Append the value."""
        raise NotImplementedError

    def read(self, cursor: Cursor) -> T:
        """Take the value off."""
        raise NotImplementedError


class Number(Form[Any]):
    """A number of fixed width; `kind` makes it a bool or a member of an enumeration."""

    def __init__(self, layout: str, kind: Callable[[Any], Any] = int) -> None:
        self._layout = struct.Struct(">" + layout)
        self._kind = kind

    def write(self, value: Any, out: bytearray) -> None:  # noqa: ANN401 - any number
        """Append the number; one out of range raises `struct.error`."""
        out += self._layout.pack(value)

    def read(self, cursor: Cursor) -> Any:  # noqa: ANN401 - as above
        """Take the number off."""
        at = cursor.at
        try:
            (value,) = self._layout.unpack_from(cursor.octets, at)
            cursor.at = at + self._layout.size
            return value if self._kind is int else self._kind(value)
        except (struct.error, ValueError) as error:
            raise CodecError(str(error)) from error


class Choice(Form[Any]):
    """A member of an enumeration with text values, as its place in the definition."""

    def __init__(self, kind: Any) -> None:  # noqa: ANN401 - an enumeration class
        self._members = list(kind)

    def write(self, value: Any, out: bytearray) -> None:  # noqa: ANN401
        """Append the place."""
        out.append(self._members.index(value))

    def read(self, cursor: Cursor) -> Any:  # noqa: ANN401
        """Take the member off."""
        place = cursor.take(1)[0]
        if place >= len(self._members):
            raise CodecError(f"there is no choice {place}")
        return self._members[place]


class OctetString(Form[bytes]):
    """Octets behind a 32-bit length."""

    def write(self, value: bytes, out: bytearray) -> None:
        """Append length and octets."""
        out += len(value).to_bytes(4, "big")
        out += value

    def read(self, cursor: Cursor) -> bytes:
        """Take the octets off."""
        return cursor.take(int.from_bytes(cursor.take(4), "big"))


class Text(Form[str]):
    """UTF-8 behind a 32-bit length."""

    def write(self, value: str, out: bytearray) -> None:
        """Append length and octets."""
        OCTETS.write(value.encode(), out)

    def read(self, cursor: Cursor) -> str:
        """Take the text off."""
        return OCTETS.read(cursor).decode(errors="replace")


class Maybe(Form[Any]):
    """None, or a value of another form."""

    def __init__(self, form: Form[Any]) -> None:
        self._form = form

    def write(self, value: Any, out: bytearray) -> None:  # noqa: ANN401
        """Append a flag and the value."""
        out.append(value is not None)
        if value is not None:
            self._form.write(value, out)

    def read(self, cursor: Cursor) -> Any:  # noqa: ANN401
        """Take the value off."""
        return self._form.read(cursor) if cursor.take(1)[0] else None


class Many(Form[tuple[Any, ...]]):
    """A tuple of values of one form, behind a 16-bit count."""

    def __init__(self, form: Form[Any]) -> None:
        self._form = form

    def write(self, value: tuple[Any, ...], out: bytearray) -> None:
        """Append count and values."""
        out += len(value).to_bytes(2, "big")
        for item in value:
            self._form.write(item, out)

    def read(self, cursor: Cursor) -> tuple[Any, ...]:
        """Take the values off."""
        return tuple(self._form.read(cursor) for _ in range(int.from_bytes(cursor.take(2), "big")))


class Record(Form[T]):
    """A dataclass or named tuple by the forms of its fields."""

    def __init__(self, kind: Callable[..., T], **fields: Form[Any]) -> None:
        self.kind = kind
        self._writers = [(name, form.write) for name, form in fields.items()]
        self._readers = [(name, form.read) for name, form in fields.items()]

    def write(self, value: T, out: bytearray) -> None:
        """Append the fields."""
        for name, write in self._writers:
            write(getattr(value, name), out)

    def read(self, cursor: Cursor) -> T:
        """Take the record off."""
        return self.kind(**{name: read(cursor) for name, read in self._readers})


U8, U16, U32, U64 = Number("B"), Number("H"), Number("I"), Number("Q")
I32 = Number("i")
FLOAT = Number("d", float)
BOOL = Number("?", bool)
OCTETS = OctetString()
TEXT = Text()
ADDRESS = Record(Address, host=TEXT, port=U16)
