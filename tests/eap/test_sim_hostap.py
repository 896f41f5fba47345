"""EAP-SIM, EAP-AKA and EAP-AKA' with hostap's `eapol_test` as the peer of our authenticator, and with `hostapd` as the
server of our peer: full authentications, fast ones, pseudonyms, synchronisation, and what is refused."""

from __future__ import annotations

import pytest

from ikeway.eap.errors import EapFailed
from ikeway.eap.session import EapAuthenticator, EapPeer
from ikeway.eap.sim_identities import PeerIdentities, TemporaryIdentities
from ikeway.eap.usim import Usim
from tests.eap.hostap import EapolTest, hostapd
from tests.eap.radius_stage import log_in_by_radius, serving
from tests.eap.sim_sides import IMSI, KI, METHODS, OPC, REALM, Centre, Pair, card

every = pytest.mark.parametrize("method", list(METHODS))
with_umts = pytest.mark.parametrize("method", ["aka", "aka-prime"])
with_eapol_test = pytest.mark.programs("eapoltest")
with_hostapd = pytest.mark.programs("hostapd")


def authenticators(pair: Pair):
    return lambda: EapAuthenticator(pair.ask_centre, [lambda: pair.authenticator_class(pair.given)])


def identity_of(pair: Pair) -> str:
    return (pair.family.permanent + IMSI + REALM).decode()


@with_eapol_test
@every
def test_their_peer_logs_in_and_again_fast(tmp_path, method):
    pair = Pair(method)
    with serving(authenticators(pair)) as stage:
        run = EapolTest(tmp_path, stage.port, method, identity_of(pair), card(), times=3)
    assert run.status == 0 and "MPPE keys OK: 3  mismatch: 0" in run.log
    assert [one.identity for one in stage.finished] == [IMSI] * 3
    assert len(run.asked) == pair.centre.vectors == 1  # the other two were fast


@with_eapol_test
@every
def test_their_peer_is_asked_for_its_permanent_identity_when_ours_forgot(tmp_path, method):
    pair = Pair(method)
    made = iter(range(9))

    def forgetful():
        if next(made) == 1:
            pair.given = TemporaryIdentities(pair.family)
        return authenticators(pair)()

    with serving(forgetful) as stage:
        run = EapolTest(tmp_path, stage.port, method, identity_of(pair), card(), times=3)
    assert run.status == 0 and "MPPE keys OK: 3  mismatch: 0" in run.log, run.log
    assert [one.succeeded for one in stage.finished] == [True] * 3
    assert pair.centre.vectors == 2


@with_eapol_test
@with_umts
def test_their_peer_with_a_card_that_is_further_on(tmp_path, method):
    usim = Usim(KI, OPC)
    usim._taken, usim._highest = [1 << 42] * 32, (1 << 47) + 7
    pair = Pair(method)
    with serving(authenticators(pair)) as stage:
        run = EapolTest(
            tmp_path,
            stage.port,
            method,
            identity_of(pair),
            lambda question: usim.authenticate(question.rand, question.autn),
        )
    assert run.status == 0 and "MPPE keys OK: 1  mismatch: 0" in run.log
    assert run.asked == ["UMTS-AUTH"] * 2


@with_eapol_test
@every
@pytest.mark.parametrize("who", ["another key", "nobody"])
def test_their_peer_is_refused(tmp_path, method, who):
    pair = Pair(method, centre=Centre(b"001010000000009") if who == "nobody" else None)
    with serving(authenticators(pair)) as stage:
        run = EapolTest(tmp_path, stage.port, method, identity_of(pair), card(ki=bytes(16)))
    assert run.status != 0
    (one,) = stage.finished
    assert one.failed and ("no subscriber" if who == "nobody" else "Ki and OPc") in one.reason


class Client:
    """Our peer, which remembers identities from log-in to log-in."""

    def __init__(self, method: str, answers=None) -> None:
        self.pair = Pair(method, answers=answers)

    def log_in(self, port: int) -> None:
        pair = self.pair
        identity = pair.identities.offer()
        peer = EapPeer(pair.ask_card, identity, [lambda: pair.peer_class(pair.identities)])
        msk = log_in_by_radius(port, peer, identity)
        assert peer.succeeded and peer.msk == msk and msk is not None and len(msk) == 64


@with_hostapd
@every
@pytest.mark.parametrize("result_indication", [True, False], ids=["indication", "plain"])
def test_our_peer_logs_in_and_again_fast(tmp_path, method, result_indication):
    client = Client(method)
    with hostapd(tmp_path, result_indication=result_indication) as server:
        for _ in range(3):
            client.log_in(server.port)
        assert len(server.asked) == 1
        # without the fast identity: full, under the pseudonym
        client.pair.identities.next = None
        client.log_in(server.port)
        assert len(server.asked) == 2 and client.pair.identities.pseudonym is not None
        # and one that has forgotten all
        client.pair.identities = PeerIdentities(client.pair.family, IMSI + REALM)
        client.log_in(server.port)
        assert len(server.asked) == 3


@with_hostapd
@every
def test_our_peer_tells_the_permanent_identity_to_a_server_that_forgot(tmp_path, method):
    client = Client(method)
    for number in range(2):
        folder = tmp_path / str(number)
        folder.mkdir()
        with hostapd(folder, sqn=(1 + number) << 16) as server:
            client.log_in(server.port)
            assert len(server.asked) == 1


@with_hostapd
@with_umts
def test_our_card_brings_their_server_into_step(tmp_path, method):
    usim = Usim(KI, OPC)
    usim._taken, usim._highest = [1 << 25] * 32, 1 << 30
    client = Client(method, lambda question: usim.authenticate(question.rand, question.autn))
    with hostapd(tmp_path) as server:
        client.log_in(server.port)
    assert server.asked == ["AKA-REQ-AUTH", "AKA-AUTS", "AKA-REQ-AUTH"]


@with_hostapd
@every
def test_our_peer_refuses_a_server_with_another_key(tmp_path, method):
    client = Client(method)
    with hostapd(tmp_path, ki=bytes(16)) as server, pytest.raises(EapFailed, match="Ki and OPc"):
        client.log_in(server.port)
    assert ("Client reported error" if method == "sim" else "Client rejected authentication") in server.log
