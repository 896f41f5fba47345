"""Looking names up inside: a process there that calls the C library's getaddrinfo, which blocks, in threads.

The C library and not a resolver of our own or of a package: it reads the private resolv.conf, /etc/hosts, search
domains and options, retries and goes over to TCP, just as it does for a command in there.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import os
import socket
import threading

from ikeway.errors import HostError, PeerUnreachable
from ikeway.host.namespaces import die_with_parent

_THREADS = 16
_MOST_OCTETS = 1 << 16
_LONGEST_NAME = 253
_SECONDS = 20.0  # the C library gives up on three servers after 15 s and more
_MOST_WAITING = 256

Found = list[tuple[socket.AddressFamily, str]]


def start(control: socket.socket) -> tuple[int, socket.socket]:
    """Fork the process off; return its id and a socket to speak to it. For a process with one thread."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    child = os.fork()
    if child == 0:
        with contextlib.suppress(BaseException):
            die_with_parent()
            control.close()
            ours.close()
            _serve(theirs)
        os._exit(0)
    theirs.close()
    return child, ours


def _serve(questions: socket.socket) -> None:
    """Answer until the other side has gone."""
    workers = [threading.Thread(target=_work, args=(questions,), daemon=True) for _ in range(_THREADS)]
    for each in workers:
        each.start()
    for each in workers:
        each.join()


def _work(questions: socket.socket) -> None:
    """Each thread takes a question, looks it up and answers: datagrams need no lock."""
    while octets := questions.recv(_MOST_OCTETS):
        number, host = json.loads(octets)
        questions.send(json.dumps([number, *_look_up(host)]).encode())


def _look_up(host: str) -> tuple[list[tuple[int, str]], str]:
    try:
        # As octets: Python's own idea of what may be a name (IDNA) is not the C library's.
        found = socket.getaddrinfo(host.encode(), None, type=socket.SOCK_STREAM, flags=socket.AI_ADDRCONFIG)
    except socket.gaierror as error:
        return [], str(error.strerror)
    except (OSError, UnicodeError) as error:
        return [], str(error)
    return list(dict.fromkeys((int(family), str(address[0])) for family, _, _, _, address in found)), ""


class Resolver:
    """The engine's side: asks, and matches answers to questions."""

    def __init__(self, connection: socket.socket) -> None:
        """`connection` is closed by `close`."""
        connection.setblocking(False)
        self._connection = connection
        self._waiting: dict[int, asyncio.Future[Found]] = {}
        self._numbers = itertools.count(1)
        asyncio.get_running_loop().add_reader(connection, self._receive)

    @property
    def is_closed(self) -> bool:
        """True when the process inside has ended, or `close` was called."""
        return self._connection.fileno() < 0

    async def resolve(self, host: str) -> Found:
        """The addresses of a name in the order of preference (`PeerUnreachable`)."""
        if not host or len(host) > _LONGEST_NAME or not host.isascii() or "\0" in host:
            raise PeerUnreachable("this is no host name", got=repr(host[:60]))
        if len(self._waiting) >= _MOST_WAITING:
            raise _too_many()
        number = next(self._numbers)
        answer: asyncio.Future[Found] = asyncio.get_running_loop().create_future()
        self._waiting[number] = answer
        try:
            async with asyncio.timeout(_SECONDS):
                self._connection.send(json.dumps([number, host]).encode())  # asyncio's knows of one sender at a time
                return await answer
        except TimeoutError:
            raise PeerUnreachable(f"no name server answered for {host}") from None
        except BlockingIOError:
            raise _too_many() from None
        except OSError as error:
            raise HostError(f"names cannot be looked up: {error.strerror}") from error
        finally:
            del self._waiting[number]

    def close(self) -> None:
        """End the process inside. Idempotent."""
        if self._connection.fileno() >= 0:
            asyncio.get_running_loop().remove_reader(self._connection)
            self._connection.close()

    def _receive(self) -> None:
        try:
            octets = self._connection.recv(_MOST_OCTETS)
        except BlockingIOError:
            return
        except OSError:
            octets = b""
        if not octets:
            self.close()
            for answer in self._waiting.values():
                if not answer.done():
                    answer.set_exception(HostError("the process that looks names up has ended"))
            return
        number, found, reason = json.loads(octets)
        asked = self._waiting.get(number)
        if asked is None or asked.done():
            return
        if reason or not found:
            asked.set_exception(PeerUnreachable(reason or "the name has no address"))
        else:
            asked.set_result([(socket.AddressFamily(family), host) for family, host in found])


def _too_many() -> PeerUnreachable:
    return PeerUnreachable("too many names are being looked up", remedy="try again in a moment")
