"""Log-ins by the keys of a SIM card: what a profile says, and the card that answers for it."""

from __future__ import annotations

from pathlib import Path

import pytest

from ikeway.client.card import ClientCard
from ikeway.client.login import FurtherCard
from ikeway.client.profile import Profile, load_profile
from ikeway.config.cards import CardMethod, CardPeerFactory
from ikeway.config.eap import (
    AUTHENTICATORS,
    PEERS,
    AuthenticatorInputs,
    PeerInputs,
    authenticator_factory,
    peer_factory,
)
from ikeway.crypto.milenage import Milenage
from ikeway.eap.aka import AkaPeer
from ikeway.eap.packet import EapCode, EapPacket, EapType
from ikeway.eap.sim_attributes import Attribute, Subtype, encode_message
from ikeway.eap.sim_questions import GsmChallenge, UmtsAnswer, UmtsChallenge
from ikeway.errors import ConfigError, ConfigErrors
from ikeway.ike.settings import EapCredential, EapOnlyExpected
from tests.config.material import make_pki, write_private
from tests.eap.conversations import Asker, finish, log_in
from tests.eap.sim_sides import Centre
from tests.eap.sim_sides import card as software_card

KI, OPC = "465b5ce8b199b49faa5f0a2ee238a6bc", "cd63cb71954a9f4e48a5994e37a02baf"
OP = "cdc202d5123e20f62b6d676ac72cb318"
GATEWAY = '[gateway]\naddress = "vpn.example.com"\nca = "ca.pem"\n'
LOGIN = '[login]\nusername = "001010000000001"\n'
KEYS = f'ki = "{KI}"\nopc = "{OPC}"\n'


@pytest.fixture(scope="module")
def pki(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_pki(tmp_path_factory.mktemp("pki"))


def profile(pki: Path, text: str) -> Profile:
    return load_profile(write_private(pki / "card.toml", text))


@pytest.mark.parametrize("method", ["eap-sim", "eap-aka", "eap-aka-prime"])
def test_a_profile_asks_nobody(pki: Path, method: str) -> None:
    found = profile(pki, GATEWAY + LOGIN + f'method = "{method}"\n' + KEYS)
    assert not found.asks_secret
    assert isinstance(found.connection().local_credential, EapCredential)
    assert KI not in repr(found) and OPC not in repr(found)
    assert any("eap-sim" in warning for warning in found.warnings) is (method == "eap-sim")


def test_with_passwords_beside_it_somebody_may_be_asked(pki: Path) -> None:
    assert profile(pki, GATEWAY + LOGIN + 'method = ["eap-aka", "eap-mschapv2"]\n' + KEYS).asks_secret


@pytest.mark.parametrize("method", ["eap-aka", "eap-aka-prime"])
def test_it_may_stand_alone(pki: Path, method: str) -> None:
    text = '[gateway]\naddress = "vpn.example.com"\nauthentication = "eap-only"\n' + LOGIN
    found = profile(pki, text + f'method = "{method}"\n' + KEYS)
    assert isinstance(found.connection().remote_expectation, EapOnlyExpected)


def test_sim_may_not(pki: Path) -> None:
    text = '[gateway]\naddress = "vpn.example.com"\nauthentication = "eap-only"\n' + LOGIN
    with pytest.raises(ConfigErrors, match="eap-sim does not"):
        profile(pki, text + 'method = "eap-sim"\n' + KEYS)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ('method = "eap-aka"\n', "something of it is missing"),
        (f'method = "eap-aka"\nki = "{KI}"\n', "something of it is missing"),
        (f'method = "eap-aka"\nki = "{KI}"\nopc = "{OPC}"\nop = "{OP}"\n', "both `opc` and `op`"),
        ('method = "eap-aka"\nnetwork_name = "WLAN"\n' + KEYS, "`network_name` is not used"),
        ('method = "eap-mschapv2"\n' + KEYS, "`ki` is not used"),
        ('method = "eap-aka"\npassword = "x"\n' + KEYS, "`password` is not used"),
    ],
)
def test_mistakes(pki: Path, text: str, why: str) -> None:
    with pytest.raises(ConfigErrors, match=why):
        profile(pki, GATEWAY + LOGIN + text)


@pytest.mark.parametrize("keys", [KEYS, f'ki = "{KI}"\nop = "{OP}"\n', f'ki = {{ file = "ki" }}\nopc = "{OPC}"\n'])
async def test_the_card_answers(pki: Path, keys: str) -> None:
    write_private(pki / "ki", KI + "\n")
    answering = ClientCard(profile(pki, GATEWAY + LOGIN + 'method = "eap-aka"\n' + keys))
    milenage = Milenage(bytes.fromhex(KI), bytes.fromhex(OPC))
    vector = milenage.vector(bytes(16), bytes(4) + b"\1\0", bytes(2))
    said = await answering.answer_umts(UmtsChallenge(b"0", vector.rand, vector.autn))
    assert isinstance(said, UmtsAnswer) and (said.res, said.ck, said.ik) == (vector.xres, vector.ck, vector.ik)
    again = await answering.answer_umts(UmtsChallenge(b"0", vector.rand, vector.autn))
    assert not isinstance(again, UmtsAnswer)  # it remembers the sequence number
    assert await answering.answer_gsm(GsmChallenge(b"1", (bytes(16),))) == (milenage.triplet(bytes(16)),)


async def test_each_log_in_has_a_card_of_its_own(pki: Path) -> None:
    """The further log-in's questions reach the card with the keys of that log-in."""
    then = '[[login.then]]\nmethod = "eap-aka"\nusername = "001010000000002"\n' + KEYS.replace("46", "47", 1)
    found = profile(pki, GATEWAY + LOGIN + 'method = "eap-aka"\n' + KEYS + then)
    assert not found.asks_secret
    answering, asked = ClientCard(found), Asker(lambda question: UmtsAnswer(b"", b"", b""))
    credential = found.connection().further_credentials[0].credential
    assert isinstance(credential, EapCredential)
    peer = credential.new_peer(asked)
    finish(peer.receive(EapPacket(EapCode.REQUEST, 1, EapType.IDENTITY).encode()))
    vector = Milenage(bytes.fromhex(KI.replace("46", "47", 1)), bytes.fromhex(OPC)).vector(
        bytes(16), b"\0" * 5 + b"\xff", bytes(2)
    )
    pairs = [(Attribute.AT_RAND, vector.rand), (Attribute.AT_AUTN, vector.autn), (Attribute.AT_MAC, bytes(16))]
    finish(
        peer.receive(EapPacket(EapCode.REQUEST, 2, EapType.AKA, encode_message(Subtype.AKA_CHALLENGE, pairs)).encode())
    )
    (question,) = asked.questions
    assert isinstance(question, FurtherCard) and question.number == 0
    said = await answering.answer_further(question)
    assert isinstance(said, UmtsAnswer) and said.res == vector.xres
    gsm = FurtherCard(0, GsmChallenge(b"1", (bytes(16),)))
    assert await answering.answer_further(gsm) != await answering.answer_gsm(GsmChallenge(b"1", (bytes(16),)))


@pytest.mark.parametrize("key", ["ki", "opc"])
async def test_a_key_that_is_none(pki: Path, key: str) -> None:
    keys = {"ki": KI, "opc": OPC} | {key: "not a key"}
    text = "".join(f'{name} = "{value}"\n' for name, value in keys.items())
    answering = ClientCard(profile(pki, GATEWAY + LOGIN + 'method = "eap-aka"\n' + text))
    with pytest.raises(ConfigError, match=f"`{key}` is no key of a card") as raised:
        await answering.answer_gsm(GsmChallenge(b"1", (bytes(16),)))
    assert "not a key" not in str(raised.value)


CARDS = ("eap-sim", "eap-aka", "eap-aka-prime")


@pytest.mark.parametrize("logins", [["eap-aka-prime", "eap-aka"], ["eap-aka", "eap-aka-prime"], ["eap-sim"]])
@pytest.mark.parametrize("offered", [["eap-aka-prime", "eap-aka", "eap-sim"], ["eap-sim", "eap-aka"]])
def test_methods_are_agreed_on_and_remember_each_their_own(logins: list[str], offered: list[str]) -> None:
    centre, card = Asker(Centre()), Asker(software_card())
    inputs = PeerInputs(username=b"001010000000001")
    new_peer = peer_factory(logins, inputs)
    new_authenticator = authenticator_factory(offered, AuthenticatorInputs(server_name=b"vpn"), lambda ask: ask)
    agreed = next(login for login in offered if login in logins)
    for number in range(4):
        peer, authenticator = new_peer(card), new_authenticator(centre)
        log_in(peer, authenticator)
        assert peer.msk == authenticator.msk is not None
        assert (peer.method, authenticator.identity) == (PEERS[agreed].make(inputs)().name, b"001010000000001")
        # The first method of the profile says who logs in; only then the others need not be full authentications.
        assert len(card.questions) == (1 if agreed == logins[0] else number + 1)


def test_aka_is_taken_only_where_aka_prime_was_not_to_be_had() -> None:
    """Who made EAP-AKA' impossible on the way is found out by AT_BIDDING."""
    both = ("eap-aka-prime", "eap-aka")
    assert CardMethod.AKA.prefers_prime(both) and not CardMethod.AKA.prefers_prime(both[::-1])
    assert not CardMethod.AKA.prefers_prime(("eap-aka",))
    factory = PEERS["eap-aka"].make(PeerInputs(username=b"1", logins=both))
    assert isinstance(factory, CardPeerFactory) and isinstance(factory(), AkaPeer)


@pytest.mark.parametrize("name", CARDS)
def test_both_sides_of_a_name_are_one_method(name: str) -> None:
    peer = PEERS[name].make(PeerInputs(username=b"1"))()
    authenticator = AUTHENTICATORS[name].make(AuthenticatorInputs(server_name=b"vpn"))()
    assert (peer.type, peer.name, peer.mutual) == (authenticator.type, authenticator.name, authenticator.mutual)
    assert peer.mutual is PEERS[name].mutual is AUTHENTICATORS[name].mutual
