"""ESP packets that others made: RFC 7634 appendix A, GCM-ESP cases, Linux (through scapy), tcpdump's captures."""

from __future__ import annotations

import json
import re
from typing import Any

import dpkt
import pytest

from ikeway.crypto import new_cipher
from ikeway.errors import UnsupportedAlgorithm
from ikeway.esp.drops import Drop
from ikeway.esp.inbound import InboundSa, Opened
from ikeway.esp.inner import parse
from ikeway.esp.outbound import OutboundSa
from ikeway.esp.parameters import EspTransforms
from ikeway.wire.registry import EncryptionAlgorithm as Encr
from ikeway.wire.registry import IntegrityAlgorithm as Integ
from tests.esp.material import esp_sa
from tests.vectors import vector

OUR_CHECK = Integ.AUTH_HMAC_SHA2_256_128
OUR_CHECK_KEY = bytes(range(32))


def with_our_icv(encryption: Encr, key_bits: int | None, key: bytes, packet: bytes) -> tuple[InboundSa, bytes]:
    """An SA and a packet whose ICV is missing or was made with an unknown key: one of ours is put behind it."""
    transforms = EspTransforms(encryption=encryption, key_bits=key_bits, integrity=OUR_CHECK)
    receiver = InboundSa(esp_sa(transforms=transforms, encryption_key=key, integrity_key=OUR_CHECK_KEY))
    icv = receiver._cipher.integrity.icv(packet)
    return receiver, packet + icv


def test_rfc_7634_appendix_a() -> None:
    inner, key, packet = (
        bytes.fromhex(value)
        for value in json.loads(vector("crypto/rfc/rfc7634_appendix_a_esp_hex.json").read_text())[
            "values_in_order_of_appearance"
        ]
    )
    sa = esp_sa("chacha20poly1305", encryption_key=key, spi=0x01020304)
    assert InboundSa(sa).open(packet) == Opened(inner, 4)
    sender = OutboundSa(sa)
    sender.sequence = 4
    assert sender.seal_padded(inner + sender.trailer(len(inner), 4), len(inner), iv=packet[8:16]) == packet


GCM_CASES = json.loads(vector("crypto/rfc/draft_mcgrew_gcm_test_esp.json").read_text())


@pytest.mark.parametrize("case", GCM_CASES, ids=lambda case: case["name"])
def test_gcm_esp(case: dict[str, Any]) -> None:
    key = bytes.fromhex(case["key"])
    nonce, plaintext, packet = (bytes.fromhex(case[name]) for name in ("nonce", "plaintext", "packet"))
    sequence = int(case["seq"], 16)
    transforms = EspTransforms(
        encryption=Encr.ENCR_AES_GCM_16, key_bits=len(key) * 8, integrity=None, extended_sequence_numbers=case["esn"]
    )
    sa = esp_sa(transforms=transforms, encryption_key=key + nonce[:4], spi=int(case["spi"], 16))
    sender, receiver = OutboundSa(sa), InboundSa(sa)
    sender.sequence = sequence - 1
    assert sender.seal_padded(plaintext, len(plaintext), iv=nonce[4:]) == packet
    receiver.window.highest = max(sequence - 1, 0)
    opened = receiver.open(packet)
    if plaintext[-1] == 59:
        assert opened == Drop.DUMMY
    else:
        assert opened == Opened(plaintext[: -2 - plaintext[-2]], plaintext[-1])


LINUX = json.loads(vector("crypto/scapy-esp/reference-packets.json").read_text())
ALGORITHMS = {
    "AES-GCM": (Encr.ENCR_AES_GCM_16, 128),
    "AES-CCM": (Encr.ENCR_AES_CCM_8, 128),
    "AES-CBC": (Encr.ENCR_AES_CBC, 128),
    "AES-CTR": (Encr.ENCR_AES_CTR, 128),
    "3DES": (Encr.ENCR_3DES, None),
}
NOT_OURS = {
    "DES": Encr.ENCR_DES,
    "Blowfish": Encr.ENCR_BLOWFISH,
    "CAST": Encr.ENCR_CAST,
    "AES-NULL-GMAC": Encr.ENCR_NULL_AUTH_AES_GMAC,
}


def octets(text: str) -> bytes:
    return bytes.fromhex(text.removeprefix("hex:"))


@pytest.mark.parametrize("case", LINUX, ids=lambda case: case["title"].split(" - ", 2)[2])
def test_packets_of_linux(case: dict[str, Any]) -> None:
    """An echo request in each, under the algorithms that we have; the others are refused by name."""
    sa, esp = case["sa"]["kw"], case["ref"][1]["kw"]
    key, packet = octets(sa["crypt_key"]), esp["spi"].to_bytes(4, "big") + esp["seq"].to_bytes(4, "big")
    packet += octets(esp["data"])
    if sa["crypt_algo"] in NOT_OURS:
        with pytest.raises(UnsupportedAlgorithm):
            new_cipher(NOT_OURS[sa["crypt_algo"]], 128, None, key, b"")
        return
    encryption, key_bits = ALGORITHMS[sa["crypt_algo"]]
    if encryption in (Encr.ENCR_AES_GCM_16, Encr.ENCR_AES_CCM_8):
        transforms = EspTransforms(
            encryption=encryption, key_bits=key_bits, integrity=None, extended_sequence_numbers=sa.get("esn_en", False)
        )
        receiver = InboundSa(esp_sa(transforms=transforms, encryption_key=key))
        receiver.window.highest = sa.get("esn", 0) << 32
    else:
        receiver, packet = with_our_icv(encryption, key_bits, key, packet)
    opened = receiver.open(packet)
    assert isinstance(opened, Opened)
    inner = bytes(opened.payload)
    if opened.next_header == 4:
        flow = parse(inner)
        assert flow is not None
        assert flow.protocol == 1
        inner = inner[flow.header :]
    else:
        assert opened.next_header == 1
    assert inner[0] in (0, 8)


def captured(name: str) -> list[bytes]:
    """The IP packets of a capture."""
    with vector(f"pcap/tcpdump/{name}").open("rb") as file:
        return [bytes(dpkt.ethernet.Ethernet(frame).data) for _, frame in dpkt.pcap.Reader(file)]


def secrets() -> dict[int, tuple[Encr, int | None, bytes]]:
    kinds = {"3des-cbc-hmac96": (Encr.ENCR_3DES, None), "aes256-cbc-hmac96": (Encr.ENCR_AES_CBC, 256)}
    found = re.findall(r"0x([0-9a-f]{8})@\S+\s+(\S+):0x([0-9a-f]+)", vector("pcap/tcpdump/esp-secrets.txt").read_text())
    return {int(spi, 16): (*kinds[kind], bytes.fromhex(key)) for spi, kind, key in found}


def described(inner: bytes) -> str:
    """An echo request in tcpdump's words."""
    packet = dpkt.ip.IP(inner)
    echo = packet.data.data
    source, destination = (".".join(map(str, address)) for address in (packet.src, packet.dst))
    length = len(inner) - packet.hl * 4
    return f"IP {source} > {destination}: ICMP echo request, id {echo.id}, seq {echo.seq}, length {length}"


FIRST_KEY = bytes.fromhex("4043434545464649494a4a4c4c4f4f515152525454575758")


@pytest.mark.parametrize(
    ("capture", "expected", "keys"),
    [
        ("02-sunrise-sunset-esp.pcap", "esp1.out", {0x12345678: (Encr.ENCR_3DES, None, FIRST_KEY)}),
        ("08-sunrise-sunset-esp2.pcap", "esp2.out", None),
        ("08-sunrise-sunset-aes.pcap", "esp5.out", None),
    ],
)
def test_captures_of_tcpdump(capture: str, expected: str, keys: dict[int, Any] | None) -> None:
    """The integrity keys are not known: the ICV of 12 octets is replaced by ours. One capture has ESP inside ESP."""
    keys = keys or secrets()
    lines = vector(f"pcap/tcpdump/{expected}").read_text().splitlines()
    packets = captured(capture)
    assert len(packets) == len(lines) > 0
    for packet, line in zip(packets, lines, strict=True):
        inner, protocol = packet, 50
        while protocol == 50:
            esp = inner[(inner[0] & 15) * 4 :]
            receiver, sealed = with_our_icv(*keys[int.from_bytes(esp[:4], "big")], esp[:-12])
            opened = receiver.open(sealed)
            assert isinstance(opened, Opened)
            assert opened.next_header == 4
            inner = bytes(opened.payload)
            protocol = inner[9]
        assert line.endswith(described(inner))


def test_capture_of_esp_in_udp() -> None:
    """The outer form of RFC 3948; the key that tcpdump's case gives is another one's, so the ICV check refuses it."""
    for number, packet in enumerate(captured("espudp1.pcap"), 1):
        datagram = packet[20:]
        assert datagram[:4] == bytes.fromhex("11941194")
        esp = datagram[8:]
        assert (int.from_bytes(esp[:4], "big"), int.from_bytes(esp[4:8], "big")) == (0x12345678, number)
        assert InboundSa(esp_sa("3des-sha1")).open(esp) == Drop.INTEGRITY


def test_truncated_capture_is_refused() -> None:
    for packet in captured("esp_truncated.pcap"):
        for end in range(len(packet) + 1):
            assert isinstance(InboundSa(esp_sa()).open(packet[:end]), Drop)
