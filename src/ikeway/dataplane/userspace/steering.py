"""Which worker gets a packet: classic BPF programs that read the SPI (SO_ATTACH_REUSEPORT_CBPF, SO_ATTACH_FILTER).

The worker's number stands in the low bits of the SPIs that we choose, so a worker gets the packets of its SAs wherever
they come from. On a UDP port each worker has a socket of its own in one SO_REUSEPORT group, and the daemon has the last
member, which gets what begins with the non-ESP marker: IKE waits behind nobody's data. Raw sockets for ESP all get
every packet; each one's filter lets through what is its worker's.

The kernel runs the programs: for a group where the UDP payload begins, for raw sockets where the IPv4 header or, of
IPv6, the payload begins.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Sequence

from ikeway.address import Address
from ikeway.dataplane.userspace.sockets import open_esp, open_udp
from ikeway.errors import HostError

MOST_WORKERS = 64

_SO_ATTACH_FILTER, _SO_ATTACH_REUSEPORT_CBPF = 26, 51

# <linux/bpf_common.h>: instructions of the form (code, jump if true, jump if false, constant).
_LOAD_WORD, _LOAD_WORD_AT_X, _X_IS_IP_HEADER_LENGTH = 0x20, 0x40, 0xB1
_AND, _JUMP_IF_EQUAL, _JUMP_IF_GREATER_OR_EQUAL, _RETURN, _RETURN_A = 0x54, 0x15, 0x35, 0x06, 0x16
_WHOLE_PACKET = 0xFFFFFFFF

Instruction = tuple[int, int, int, int]


def spi_mask(workers: int) -> int:
    """The bits of an SPI that say which of so many workers has it."""
    return (1 << (workers - 1).bit_length()) - 1


def worker_of(spi: int, workers: int) -> int:
    """The number of the worker of an SPI. Numbers that no SPI of ours has fall to worker 0."""
    number = spi & spi_mask(workers)
    return number if number < workers else 0


def open_group(local: Address, workers: int, *, mark: int = 0) -> list[socket.socket]:
    """The sockets of a port: one for each worker, and the daemon's at the end. Raises `HostError`."""
    with open_udp(local, mark=mark) as alone:  # else another daemon of ours would share its port with us
        local = local._replace(port=alone.getsockname()[1])
    members: list[socket.socket] = []
    try:
        for _ in range(workers + 1):
            members.append(open_udp(local, mark=mark, group=True))
        steer_group(members[0], workers)
    except BaseException:
        for each in members:
            each.close()
        raise
    return members


def open_raw(host: str, workers: int, *, mark: int = 0) -> tuple[socket.socket, ...]:
    """Raw sockets for ESP as IP protocol 50, one for each worker. Raises `HostError`."""
    opened: list[socket.socket] = []
    try:
        for number in range(workers):
            opened.append(open_esp(host, mark=mark))
            if workers > 1:
                steer_raw(opened[-1], number, workers)
    except BaseException:
        for each in opened:
            each.close()
        raise
    return tuple(opened)


def steer_group(member: socket.socket, workers: int) -> None:
    """Give a group of `workers` sockets and the daemon's its program. Members are numbered in the order in which they
    were bound. Raises `HostError`."""
    _attach(member, _SO_ATTACH_REUSEPORT_CBPF, group_program(workers))


def steer_raw(sock: socket.socket, number: int, workers: int) -> None:
    """Let a raw ESP socket show the packets of one worker only. Raises `HostError`."""
    _attach(sock, _SO_ATTACH_FILTER, raw_program(number, workers, ipv6=sock.family == socket.AF_INET6))


def group_program(workers: int) -> Sequence[Instruction]:
    """Which member gets a datagram. One that is shorter than an SPI ends the program, which then says 0."""
    return (
        (_LOAD_WORD, 0, 0, 0),
        (_JUMP_IF_EQUAL, 0, 1, 0),
        (_RETURN, 0, 0, workers),  # the non-ESP marker
        (_AND, 0, 0, spi_mask(workers)),
        (_JUMP_IF_GREATER_OR_EQUAL, 0, 1, workers),
        (_RETURN, 0, 0, 0),
        (_RETURN_A, 0, 0, 0),
    )


def raw_program(number: int, workers: int, *, ipv6: bool) -> Sequence[Instruction]:
    """Whether a raw socket gets a packet."""
    load = ((_LOAD_WORD, 0, 0, 0),) if ipv6 else ((_X_IS_IP_HEADER_LENGTH, 0, 0, 0), (_LOAD_WORD_AT_X, 0, 0, 0))
    mine = (
        (_AND, 0, 0, spi_mask(workers)),
        (_JUMP_IF_EQUAL, 0, 1, number),
        (_RETURN, 0, 0, _WHOLE_PACKET),
        (_RETURN, 0, 0, 0),
    )
    return (*load, *mine)


def _attach(sock: socket.socket, option: int, program: Sequence[Instruction]) -> None:
    import ctypes  # of no use to clients, whose start it would delay

    instructions = b"".join(struct.pack("=HBBI", *each) for each in program)
    held = ctypes.create_string_buffer(instructions, len(instructions))
    try:
        sock.setsockopt(socket.SOL_SOCKET, option, struct.pack("@HP", len(program), ctypes.addressof(held)))
    except OSError as error:
        raise HostError(
            f"the kernel takes no program that steers packets to workers: {error.strerror}",
            expected="SO_ATTACH_REUSEPORT_CBPF (Linux 4.5)",
            remedy="write workers = 1, or use a newer kernel",
        ) from error
