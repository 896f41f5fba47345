"""EAP-SIM against appendix A of RFC 4186, EAP-AKA' against appendix D of RFC 9048."""

from __future__ import annotations

import hashlib
import re

import pytest

from ikeway.crypto.milenage import GsmTriplet, Milenage
from ikeway.eap.packet import EapCode, EapPacket
from ikeway.eap.session import EapPeer
from ikeway.eap.sim import SimPeer
from ikeway.eap.sim_attributes import Attribute, decode_attributes, decode_message
from ikeway.eap.sim_identities import PeerIdentities
from ikeway.eap.sim_keys import SIM, aka_prime_keys, bind_to_network, sim_keys
from ikeway.eap.sim_protection import authenticated, decrypted, encrypted, verify
from tests.eap.conversations import Asker, finish
from tests.vectors import vector

NAME = b"1244070100000001@eapsim.foo"
NONCE = bytes.fromhex("0123456789abcdeffedcba9876543210")


@pytest.fixture(scope="module")
def text() -> str:
    return vector("crypto/rfc/rfc4186_eap_sim_appendix_a.txt").read_text()


def octets_of(block: str) -> bytes:
    return bytes.fromhex("".join(re.findall(r"^ +((?:[0-9a-f]{2} ?)+)(?: *;.*)?$", block, re.MULTILINE)))


@pytest.fixture(scope="module")
def packets(text) -> dict[str, bytes]:
    """The packets by the number of their section."""
    found = {}
    for section in re.split(r"\n(?=A\.\d+\.  )", text)[1:]:
        number = section.partition(".  ")[0]
        if packet := re.search(r"(?ms)^ +0[123] +; Code.*", section):
            octets = octets_of(packet[0].replace("01 23 45 67    ; NONCE_S", "\n"))
            found[number] = octets[: int.from_bytes(octets[2:4])]
    return found


@pytest.fixture(scope="module")
def triplets(text) -> list[GsmTriplet]:
    found = re.findall(r"\(RAND\d,SRES\d,Kc\d\) = \(([^,]+),([^,]+),([^)]+)\)", text)
    return [GsmTriplet(*(bytes.fromhex("".join(part.split())) for part in one)) for one in found]


def named(text: str, name: str) -> bytes:
    return bytes.fromhex("".join(re.search(rf"{name} =\s+((?:[0-9a-f]{{8}}\s+)+)", text)[1].split()))


def plaintext(text: str, section: str) -> bytes:
    block = text[text.index(section) :]
    block = block[block.index("AT_ENCR_DATA attribute") : block.index("The EAP packet looks like this")]
    return octets_of(block)


def peer_of(triplets):
    """A peer whose nonce is the RFC's, and whose card has the RFC's answers."""
    identities = PeerIdentities(SIM, NAME)
    ask = Asker(lambda question: tuple(one for rand in question.rands for one in triplets if one.rand == rand))
    peer = EapPeer(ask, identities.offer(), [lambda: SimPeer(identities, random=lambda size: NONCE[:size])])
    return peer, identities


def test_the_keys(text, triplets):
    assert len(triplets) == 3
    keys = sim_keys(NAME, [one.kc for one in triplets], NONCE, b"\0\1", 1)
    assert keys.reauthentication == named(text, "MK")
    assert keys.k_encr == named(text, "K_encr")
    assert keys.k_aut == named(text, "K_aut")
    assert keys.msk == named(text, "MSK")
    assert keys.emsk == named(text, "EMSK")


def test_our_peer_answers_the_rfcs_server_to_the_octet(text, packets, triplets):
    peer, identities = peer_of(triplets)
    for request, response in (("A.1", "A.2"), ("A.3", "A.4"), ("A.5", "A.6")):
        assert finish(peer.receive(packets[request])) == packets[response], request
    assert finish(peer.receive(packets["A.7"])) is None
    assert peer.msk == named(text, "MSK")
    assert identities.pseudonym == b"w8w49PexCazWJ&xCIARmxuMKht5S1sxRDqXSEFBEg3DcZP9cIxTe5J4OyIwNGVzxeJOU1G@eapsim.foo"
    # A.8 and A.9: the next log-in, under the identity of fast re-authentication
    identity = identities.offer()
    ask = Asker(lambda question: None)
    again = EapPeer(ask, identity, [lambda: SimPeer(identities, random=lambda size: bytes(size))])
    assert finish(again.receive(packets["A.1"])) == packets["A.8"]
    response = EapPacket.decode(finish(again.receive(packets["A.9"])))
    assert decode_message(response.data).subtype == 13
    assert identities.next.identity.startswith(b"uta0M0iyIsMwWp5TTdSdnOLvg2XDVf21OYt1vnfiMcs5dnIDHOIFVavIRzMR")
    assert hashlib.sha1(identity + b"\0\1" + NONCE + named(text, "MK")).digest() == named(text, "XKEY'")


@pytest.mark.parametrize(("section", "extra"), [("A.5", NONCE), ("A.9", b"")])
def test_the_rfcs_protected_packets_are_made_to_the_octet(text, packets, section, extra):
    k_encr, k_aut = named(text, "K_encr"), named(text, "K_aut")
    packet = EapPacket.decode(packets[section])
    message = decode_message(packet.data)
    verify(SIM, k_aut, EapCode.REQUEST, packet.identifier, packet.data, message, extra)
    plain = decode_attributes(plaintext(text, section))
    inside = [pair for pair in plain.pairs if pair[0] is not Attribute.AT_PADDING]
    assert list(decrypted(k_encr, message).pairs) == inside
    iv = message.need(Attribute.AT_IV)
    pairs = [pair for pair in message.pairs if pair[0] is Attribute.AT_RAND]
    pairs += encrypted(k_encr, inside, lambda size: iv)
    made = authenticated(SIM, k_aut, EapCode.REQUEST, packet.identifier, message.subtype, pairs, extra)
    assert made == packet.data


# RFC 9048 appendix D, cases 1 to 4, all for the identity 0555444333222111: network name, AUTN, CK, IK; CK', IK'; K_encr,
# K_aut; K_re; MSK; EMSK.
CASES = """
WLAN bb52e91c747ac3ab2a5c23d15ee351d5 5349fbe098649f948f5d2e973a81c00f 9744871ad32bf9bbd1dd5ce54e3e2e5a
0093962d0dd84aa5684b045c9edffa04 ccfc230ca74fcc96c0a5d61164f5a76c
766fa0a6c317174b812d52fbcd11a179 0842ea722ff6835bfa2032499fc3ec23c2f0e388b4f07543ffc677f1696d71ea
cf83aa8bc7e0aced892acc98e76a9b2095b558c7795c7094715cb3393aa7d17a
67c42d9aa56c1b79e295e3459fc3d187d42be0bf818d3070e362c5e967a4d544e8ecfe19358ab3039aff03b7c930588c055babee58a02650b06\
7ec4e9347c75a
f861703cd775590e16c7679ea3874ada866311de290764d760cf76df647ea01c313f69924bdd7650ca9bac141ea075c4ef9e8029c0e290cdbad\
5638b63bc23fb

HRPD bb52e91c747ac3ab2a5c23d15ee351d5 5349fbe098649f948f5d2e973a81c00f 9744871ad32bf9bbd1dd5ce54e3e2e5a
3820f0277fa5f77732b1fb1d90c1a0da db94a0ab557ef6c9ab48619ca05b9a9f
05ad73ac915fce89ac77e1520d82187b 5b4acaef62c6ebb8882b2f3d534c4b35277337a00184f20ff25d224c04be2afd
3f90bf5c6e5ef325ff04eb5ef6539fa8cca8398194fbd00be425b3f40dba10ac
87b321570117cd6c95ab6c436fb5073ff15cf85505d2bc5bb7355fc21ea8a75757e8f86a2b138002e05752913bb43b82f868a96117e91a2d95f\
526677d572900
c891d5f20f148a1007553e2dea555c9cb672e9675f4a66b4bafa027379f93aee539a5979d0a0042b9d2ae28bed3b17a31dc8ab75072b80bd0c1\
da612466e402c

WLAN a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0 c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0 b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0
cd4c8e5c68f57dd1d7d7dfd0c538e577 3ece6b705dbbf7dfc459a11280c65524
897d302fa2847416488c28e20dcb7be4 c40700e7722483ae3dc7139eb0b88bb558cb3081eccd057f9207d1286ee7dd53
0a591a22dd8b5b1cf29e3d508c91dbbdb4aee23051892c42b6a2de66ea504473
9f7dca9e37bb22029ed986e7cd09d4a70d1ac76d95535c5cac40a7504699bb8961a29ef6f3e90f183de5861ad1bedc81ce9916391b401aa006c\
98785a5756df7
724de00bdb9e568187be3fe746114557d5018779537ee37f4d3c6c738cb97b9dc651bc19bfadc344ffe2b52ca78bd8316b51dacc5f2b1440cb9\
515521cc7ba23

HRPD a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0 c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0 b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0
8310a71ce6f754889613da8f64d5fb46 5adf14360ae838192db23f6fcb7f8c76
745e7439ba238f50fcac4d15d47cd1d9 3e1d2aa4e677025cfd862a4be18361a13a645765571463df833a9759e8099879
99da835e2ae82462576fe6516fad1f802f0fa1191655dd0a273da96d04e0fcd3
c6d3a6e0ceea951eb20d74f32c3061d0680a04b0b086ee8700ace3e0b95fa02683c287beee44432294ff98af26d2cc783bace75c4b0af7fdfeb\
5511ba8e4cbd0
7fb56813838adafa99d140c2f198f6dacebfb6afee444961105402b508c7f363352cb2919644b50463e6a69354150147ae09cbc54b8a651d878\
7a6893ed8536d
"""


@pytest.mark.parametrize("block", CASES.split("\n\n"), ids=lambda block: block.split()[0])
def test_the_cases_of_rfc_9048(block):
    name, *values = block.split()
    autn, ck, ik, ck_prime, ik_prime, k_encr, k_aut, k_re, msk, emsk = map(bytes.fromhex, values)
    assert bind_to_network(ck, ik, name.encode(), autn) == (ck_prime, ik_prime)
    keys = aka_prime_keys(b"0555444333222111", ck_prime, ik_prime)
    assert (keys.k_encr, keys.k_aut, keys.reauthentication) == (k_encr, k_aut, k_re)
    assert (keys.msk, keys.emsk) == (msk, emsk)


def test_the_first_case_is_a_vector_of_milenage():
    milenage = Milenage(
        bytes.fromhex("5122250214c33e723a5dd523fc145fc0"), bytes.fromhex("981d464c7c52eb6e5036234984ad0bcf")
    )
    made = milenage.vector(
        bytes.fromhex("81e92b6c0ee0e12ebceba8d92a99dfa5"), bytes.fromhex("16f3b3f70fc2"), bytes.fromhex("c3ab")
    )
    assert made.autn.hex() == "bb52e91c747ac3ab2a5c23d15ee351d5"
    assert made.xres.hex() == "28d7b0f2a2ec3de5"
