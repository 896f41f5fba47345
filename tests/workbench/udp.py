"""A gateway on loopback that answers as a test wants, for probes."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from ikeway.errors import WireError
from ikeway.wire import ExchangeType, Message
from ikeway.workbench.probe import ProbeSettings

QUICK = ProbeSettings(transforms=False, ikev1=False, patience=0.1, rate=50)


def reply(question: Message, *payloads: object) -> Message:
    return Message(question.initiator_spi, os.urandom(8), ExchangeType.IKE_SA_INIT, False, True, 0, tuple(payloads))  # type: ignore[arg-type]


@contextmanager
def gateway(behave: Callable[[bytes], list[bytes]]) -> Iterator[int]:
    """A UDP port of loopback."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as opened:
        opened.bind(("127.0.0.1", 0))
        opened.settimeout(0.05)
        stop = threading.Event()

        def serve() -> None:
            while not stop.is_set():
                try:
                    octets, sender = opened.recvfrom(65535)
                except TimeoutError:
                    continue
                for each in behave(octets):
                    opened.sendto(each, sender)

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield opened.getsockname()[1]
        finally:
            stop.set()
            thread.join()


def in_ikev2(behave: Callable[[Message], list[bytes]]) -> Callable[[bytes], list[bytes]]:
    """What answers questions of IKEv2 only."""

    def answer(octets: bytes) -> list[bytes]:
        try:
            question = Message.decode(octets)
        except WireError:  # of IKEv1, or of version 3
            return []
        return behave(question)

    return answer
