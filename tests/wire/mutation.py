"""Seeds for fuzzing the decoder, and cheap mutations that know where lengths, counts and types stand."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

from bench.wire import authentication_request

from ikeway.wire import Encrypted, EncryptedFragment, ExchangeType, Message, PayloadType
from tests.wire.captures import ike_payloads

SPI = bytes(range(8))
EDGES = (0, 1, 2, 3, 4, 7, 8, 9, 16, 0x7F, 0x80, 0xFF)
PAYLOADS = [0, *range(33, 55), 200]


def own_messages() -> Iterator[bytes]:
    """Messages that hold every payload, plain and encrypted."""
    payloads = authentication_request()
    for exchange in (ExchangeType.IKE_SA_INIT, ExchangeType.IKE_AUTH):
        yield Message(SPI, SPI, exchange, True, False, 1, payloads).encode()
    for payload in payloads:
        yield Message(SPI, SPI, ExchangeType.INFORMATIONAL, False, True, 2, (payload,)).encode()
    for last in (Encrypted(PayloadType.IDI, bytes(40)), EncryptedFragment(PayloadType.NONE, 2, 3, bytes(40))):
        yield Message(SPI, SPI, ExchangeType.IKE_AUTH, True, False, 1, (*payloads[:2], last)).encode()


def captured(folder: Path) -> Iterator[bytes]:
    """IKE packets of all captures in a folder that can be read, IKEv1 and broken ones included."""
    for path in sorted(folder.rglob("*.pcap*")):
        yield from (octets for _, octets in ike_payloads(path))


def mutated(seed: bytes, source: random.Random) -> bytes:
    """One seed with a few octets changed; most keep a true length in the header, so that the rest is looked at."""
    octets = bytearray(seed)
    for _ in range(source.randint(1, 4)):
        if len(octets) < 2:
            break
        place = source.randrange(len(octets))
        match source.randrange(7):
            case 0:
                octets[place] = source.randrange(256)
            case 1:
                octets[place] = source.choice(EDGES)
            case 2:
                octets[place] ^= 1 << source.randrange(8)
            case 3:
                del octets[place : place + source.randint(1, 8)]
            case 4:
                octets[place:place] = source.randbytes(source.randint(1, 8))
            case 5:
                octets[place : place + 2] = source.randrange(0x10000).to_bytes(2, "big")
            case 6:
                start = source.randrange(len(octets))
                octets[place:place] = octets[start : start + source.randint(1, 64)]
    if len(octets) >= 28 and source.random() < 0.9:
        octets[17] = 0x20
        octets[24:28] = len(octets).to_bytes(4, "big")
        if source.random() < 0.2:
            octets[16] = source.choice(PAYLOADS)
    return bytes(octets)


def mutated_by_number(seed: bytes, number: int) -> bytes:
    """The mutation of that number."""
    return mutated(seed, random.Random(number))
