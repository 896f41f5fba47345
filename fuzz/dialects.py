"""Fuzz what a dialect reads of strangers with atheris: `python -m fuzz.dialects -runs=20000`.

XML, TLVs, PKCS #7, Cisco's fragments and attributes, and whole answers to either side of AnyConnect-EAP. Anything but an
`IkewayError` is a finding, and so is an element that does not go back as it came.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["ikeway.dialects"]):
    from ikeway.dialects.anyconnect import document, messages, packet, pkcs7, unity
    from ikeway.dialects.anyconnect.fragments import MAX_PARTIAL, CiscoFragmentation

from tests.dialects import test_anyconnect_hostile as hostile
from tests.dialects.test_anyconnect_wire import message_of

from ikeway.eap.packet import EapCode
from ikeway.errors import IkewayError
from ikeway.wire.message import Header
from ikeway.wire.payloads import ConfigurationAttribute

DEFAULT_RUNS = 20_000


def _document(octets: bytes) -> None:
    root = document.decode(octets)
    if document.decode(root.source) != root:
        raise AssertionError("an element did not go back as it came")


def _peer(octets: bytes) -> None:
    hostile.run(hostile.new_peer().receive(hostile.xml_packet(EapCode.REQUEST, 1, octets)))


def _server(octets: bytes) -> None:
    server = hostile.new_server()
    hostile.run(server.start())
    hostile.run(server.receive(hostile.xml_packet(EapCode.RESPONSE, 1, octets)))


def _fragments(octets: bytes) -> None:
    receiver = CiscoFragmentation()
    head = message_of(b"")[:16] + bytes.fromhex("8420230800000002")
    for start in range(0, len(octets), 24):
        piece = octets[start : start + 24]
        whole = head + (28 + len(piece)).to_bytes(4) + piece
        try:
            receiver.join(Header.decode(whole), whole, float(start))
        finally:
            if len(receiver._partial) > MAX_PARTIAL:
                raise AssertionError("more messages in the making than there may be")


TARGETS = (
    _document,
    messages.decode_client,
    messages.decode_gateway,
    packet.decode,
    pkcs7.decode,
    lambda octets: unity.read_reply((ConfigurationAttribute(unity.SPLIT_INCLUDE, octets),)),
    lambda octets: unity.read_reply((ConfigurationAttribute(unity.SPLITDNS_NAME, octets),)),
    _peer,
    _server,
    _fragments,
)


def target(octets: bytes) -> None:
    """One input: the first octet says who reads it."""
    if not octets:
        return
    try:
        TARGETS[octets[0] % len(TARGETS)](octets[1:])
    except IkewayError:
        pass


def main() -> None:
    """Write the seeds where libFuzzer finds them, and run."""
    arguments = sys.argv[1:]
    if not any(argument.startswith(("-runs=", "-max_total_time=")) for argument in arguments):
        arguments.append(f"-runs={DEFAULT_RUNS}")
    hello = messages.encode_gateway(messages.FromGateway(messages.Kind.HELLO))
    init = messages.encode_client(messages.FromClient(messages.Kind.INIT))
    seeds = [
        hello,
        init,
        pkcs7.encode([b"\x30\x00"]),
        packet.encode((packet.Tlv(0, hello),)),
        b"\0\0\0\x18\0\1\1\1" * 3,
    ]
    with tempfile.TemporaryDirectory() as folder:
        for number, octets in enumerate(seeds):
            for choice in range(len(TARGETS)):
                Path(folder, f"{number}-{choice}").write_bytes(bytes((choice,)) + octets)
        atheris.Setup([sys.argv[0], *arguments, "-max_len=4096", folder], target)
        atheris.Fuzz()


if __name__ == "__main__":
    main()
