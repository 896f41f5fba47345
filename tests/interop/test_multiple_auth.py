"""Several log-ins after each other (RFC 4739) against strongSwan's rounds, in both directions."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.interop.agreement import GATEWAY_NAME, Agreement, agreement
from tests.interop.lab import PAIRS, Lab, Pair, Tunnel
from tests.interop.pki import issue
from tests.interop.strongswan import ConnectFailed
from tests.interop.test_passwords import SEED
from tests.interop.test_refusals import TOLD, Refusal, fails
from tests.interop.waiting import wait_until

pytestmark = pytest.mark.peer

Make = Callable[[Pair, Agreement], Tunnel]
every_pair = pytest.mark.parametrize("pair", PAIRS, ids=str)
TO_CHARON, TO_OURS, OURS = Pair("ikeway", "charon"), Pair("charon", "ikeway"), Pair("ikeway", "ikeway")
BOTH_WAYS = pytest.mark.parametrize("pair", [TO_CHARON, TO_OURS], ids=str)
LOG_INS = [
    ("rsa", ("eap-mschapv2",)),
    ("ecdsa", ("eap-gtc",)),
    ("psk", ("eap-mschapv2",)),
    ("eap-md5", ("eap-mschapv2",)),
    ("eap-gtc", ("eap-mschapv2",)),
    ("eap-mschapv2", ("eap-md5",)),
    ("rsa", ("eap-md5", "eap-mschapv2")),
]


@every_pair
@pytest.mark.parametrize(
    ("auth", "then"), LOG_INS, ids=lambda value: value if isinstance(value, str) else "+".join(value)
)
def test_log_ins_after_each_other(tunnel: Make, pair: Pair, auth: str, then: tuple[str, ...]) -> None:
    made = tunnel(pair, agreement(auth, client={"then": then}))
    made.client.connect()
    assert made.sa().state == "ESTABLISHED"
    assert made.charon.log().count("N(AUTH_FOLLOWS)") == len(then)
    if pair == TO_OURS:
        (session,) = made.gateway.sessions()  # type: ignore[attr-defined]
        assert len(session.proofs) == 1 + len(then)
        assert session.eap_identity == "alice@lab.test"
    made.check_ping()
    made.client.rekey("ike")
    made.check_ping()
    made.client.close()
    wait_until(lambda: made.charon.sas() == [], "strongSwan still has the SA", logs=made.logs)


@every_pair
@pytest.mark.parametrize("auth", ["rsa", "psk"])
def test_a_wrong_password_after_a_right_key(tunnel: Make, pair: Pair, auth: str) -> None:
    refusal = Refusal(
        lambda: agreement(auth, client={"then": ("eap-mschapv2",), "then_password": "wrong", "password": "wrong"}),
        r"EAP/FAIL|N\(AUTH_FAILED\)",
        "the gateway refused the password of alice@lab.test",
        "EAP refused alice@lab.test: wrong password, or no such user: 'alice@lab.test'",
    )
    fails(tunnel(pair, refusal.agreed()), refusal)


def test_a_wrong_second_password_to_charon(tunnel: Make) -> None:
    refusal = Refusal(
        lambda: agreement("eap-mschapv2", client={"then": ("eap-md5",), "then_password": "wrong"}),
        r"EAP/FAIL|N\(AUTH_FAILED\)",
        "the server refused user name or password",
        "",
    )
    fails(tunnel(TO_CHARON, refusal.agreed()), refusal)


def test_a_wrong_code_after_charons_password(tunnel: Make) -> None:
    """Charon answers with its password when the code is asked for."""
    user = {"user": {"password": agreement().client.password, "totp": SEED}}
    made = tunnel(TO_OURS, agreement("eap-mschapv2", client={"then": ("eap-gtc",)}, gateway=user))
    with pytest.raises(ConnectFailed):
        made.client.connect()
    wait_until(lambda: "EAP refused alice@lab.test: wrong code" in made.gateway.log(), "unsaid", 5, made.logs)
    wait_until(lambda: not made.charon.sas(), "an SA is left", logs=made.logs)


def test_a_password_and_then_a_code(tunnel: Make) -> None:
    """Both sides ours: the code alone in the second log-in, by a method that has no place for it in the first."""
    user = {"user": {"password": agreement().client.password, "totp": SEED}}
    further = {"method": "eap-gtc", "username": "alice@lab.test", "totp": SEED}
    client = {"then": ("eap-gtc",), "ours": {"login": {"then": [further]}}}
    made = tunnel(OURS, agreement("eap-mschapv2", client=client, gateway=user))
    made.client.connect()
    made.check_ping()
    (session,) = made.gateway.sessions()  # type: ignore[attr-defined]
    assert session.proofs == ("alice@lab.test by EAP-MSCHAPv2", "alice@lab.test by EAP-GTC")


@BOTH_WAYS
@pytest.mark.parametrize("auth", ["rsa", "psk", "eap-mschapv2"])
def test_a_client_with_one_log_in_where_two_are_due(lab: Lab, pair: Pair, auth: str) -> None:
    """It has the first proof, and says nothing of a second one."""
    gateway = lab.gateway(pair.gateway, agreement(auth, client={"then": ("eap-md5",)}))
    agreed = agreement(auth)
    made = Tunnel(lab.network, agreed, lab.client(pair.client, agreed), gateway)
    try:
        with pytest.raises(ConnectFailed):
            made.client.connect()
        if pair == TO_CHARON:
            side, words = made.client, "perhaps this gateway wants a further log-in"
            assert TOLD in made.client.log()
        else:
            side, words = made.gateway, "the client stops before the further authentication"
        wait_until(lambda: words in side.log(), f"no {words!r}", 5, made.logs)
        wait_until(lambda: not any(sa.children for sa in made.charon.sas()), "an SA is left", logs=made.logs)
    finally:
        made.stop()


def test_a_gateway_that_takes_one_log_in_only(lab: Lab) -> None:
    """Nothing is shown to it. (Charon as the client leaves its second round out then, and is content.)"""
    gateway = lab.gateway("charon", agreement("rsa", gateway={"charon": {"multiple_authentication": "no"}}))
    agreed = agreement("rsa", client={"then": ("eap-md5",)})
    made = Tunnel(lab.network, agreed, lab.client("ikeway", agreed), gateway)
    try:
        with pytest.raises(ConnectFailed):
            made.client.connect()
        assert "the gateway does not take more than one authentication (RFC 4739)" in made.client.log()
        assert "IKE_AUTH" not in made.charon.log()
    finally:
        made.stop()


@pytest.mark.parametrize("auth", ["rsa", "psk", "eap-mschapv2"])
@pytest.mark.parametrize("then", [(), ("eap-md5",)], ids=["once", "twice"])
def test_charon_proves_itself_twice(tunnel: Make, tmp_path: Path, auth: str, then: tuple[str, ...]) -> None:
    """Its second certificate is of another authority, which the profile names."""
    second = issue("ecdsa", "second.lab.test", server=True, ca="Other CA")
    expected = {"ca": str(second.write(tmp_path, "second")[2])}
    client = {"then": then, "ours": {"gateway": {"then": [expected]}}}
    made = tunnel(TO_CHARON, agreement(auth, client=client, gateway={"second": second}))
    made.client.connect()
    (session,) = made.client.sessions()  # type: ignore[attr-defined]
    assert len(session.proofs) == 2 and session.proofs[1].endswith("by certificate")
    assert session.remote_identity == GATEWAY_NAME
    made.check_ping()


def test_charon_with_one_proof_where_two_are_expected(tunnel: Make, tmp_path: Path) -> None:
    second = issue("ecdsa", "second.lab.test", server=True, ca="Other CA")
    expected = {"ca": str(second.write(tmp_path, "second")[2])}
    made = tunnel(TO_CHARON, agreement("rsa", client={"ours": {"gateway": {"then": [expected]}}}))
    with pytest.raises(ConnectFailed, match="the gateway does not go on to prove again who it is"):
        made.client.connect()
    wait_until(lambda: not any(sa.children for sa in made.charon.sas()), "an SA is left", logs=made.logs)


def test_charon_with_a_second_certificate_of_nobody(tunnel: Make, tmp_path: Path) -> None:
    second = issue("ecdsa", "second.lab.test", server=True, ca="Other CA")
    expected = {"ca": str(issue("ecdsa", GATEWAY_NAME, server=True).write(tmp_path, "first")[2])}
    client = {"ours": {"gateway": {"then": [expected]}}}
    made = tunnel(TO_CHARON, agreement("rsa", client=client, gateway={"second": second}))
    with pytest.raises(ConnectFailed, match="no trusted CA vouches for"):
        made.client.connect()
