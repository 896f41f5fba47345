"""Log-ins by passwords and codes: EAP methods without TLS, second factors, against strongSwan in both directions."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime

import pytest

from ikeway.auth.totp import Totp
from tests.interop.agreement import CLIENT_NAME, PASSWORD, Agreement, agreement
from tests.interop.lab import PAIRS, Lab, Pair, Tunnel
from tests.interop.network import Way
from tests.interop.pki import issue
from tests.interop.strongswan import ConnectFailed
from tests.interop.test_refusals import Refusal, fails
from tests.interop.waiting import wait_until

pytestmark = pytest.mark.peer

Make = Callable[[Pair, Agreement], Tunnel]
every_pair = pytest.mark.parametrize("pair", PAIRS, ids=str)
TO_OURS = Pair("charon", "ikeway")
OURS = Pair("ikeway", "ikeway")
SEED = "GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ"


def carries(made: Tunnel) -> None:
    made.client.connect()
    made.check_ping()
    made.client.close()


@every_pair
@pytest.mark.parametrize("auth", ["eap-md5", "eap-gtc"])
def test_log_in(tunnel: Make, pair: Pair, auth: str) -> None:
    carries(tunnel(pair, agreement(auth)))


@every_pair
@pytest.mark.parametrize("auth", ["eap-md5", "eap-gtc"])
@pytest.mark.parametrize("wrong", [{"password": "wrong"}, {"identity": "mallory@lab.test"}], ids=["password", "user"])
def test_wrong(tunnel: Make, pair: Pair, auth: str, wrong: dict[str, str]) -> None:
    name = wrong.get("identity", "alice@lab.test")
    refusal = Refusal(
        lambda: agreement(auth, client=wrong),
        r"EAP/FAIL|N\(AUTH_FAILED\)",
        "the server refused user name or password",
        f"EAP refused {name}: wrong password, or no such user: '{name}'",
    )
    fails(tunnel(pair, refusal.agreed()), refusal)


@pytest.mark.parametrize("method", ["eap-gtc", "eap-mschapv2"])
def test_ours_declines_a_method_that_its_profile_does_not_name(tunnel: Make, method: str) -> None:
    """Charon without eap-dynamic has only the one that its connection names: both sides have to say so."""
    other = {"eap-gtc": "eap-md5", "eap-mschapv2": "eap-gtc"}[method]
    made = tunnel(Pair("ikeway", "charon"), agreement(method, client={"ours": {"login": {"method": [other]}}}))
    with pytest.raises(ConnectFailed, match="no EAP method that we take"):
        made.client.connect()


@pytest.mark.parametrize("offered", [["eap-gtc", "eap-md5"], ["eap-md5", "eap-mschapv2"]], ids=", ".join)
def test_charon_declines_a_method_of_ours(tunnel: Make, offered: list[str]) -> None:
    """Its connection wants the second one."""
    made = tunnel(TO_OURS, agreement(offered[1], gateway={"ours": {"connections": {"lab": {"login": offered}}}}))
    carries(made)
    assert "EAP/RES/NAK" in made.charon.log()


def test_a_code_behind_charons_password(tunnel: Make) -> None:
    """Charon's users type both into one field."""
    code = Totp.parse(SEED).code(datetime.now(UTC))
    user = {"user": {"password": PASSWORD, "totp": SEED}}
    carries(tunnel(TO_OURS, agreement("eap-gtc", client={"password": PASSWORD + code}, gateway=user)))


def test_a_code_is_asked_for_after_the_password(tunnel: Make) -> None:
    user = {"user": {"password": PASSWORD, "totp": SEED}}
    client = {"ours": {"login": {"totp": SEED}}}
    made = tunnel(OURS, agreement("eap-gtc", client=client, gateway=user))
    made.client.connect()
    made.check_ping()


def test_a_client_that_does_not_try_again_where_it_may(tunnel: Make) -> None:
    retries = {"ours": {"connections": {"lab": {"retries": 2}}}}
    made = tunnel(TO_OURS, agreement("eap-mschapv2", client={"password": "wrong"}, gateway=retries))
    with pytest.raises(ConnectFailed):  # charon does not ask again, and says so to nobody
        made.client.connect()
    wait_until(
        lambda: "wrong password, or no such user: 'alice@lab.test'" in made.gateway.log(), "unsaid", 5, made.logs
    )
    wait_until(lambda: not made.charon.sas(), "an SA is left", logs=made.logs)


LIMITS = {"limits": {"login_failures": 2, "login_wait": 4.0}}


@pytest.mark.parametrize("auth", ["psk", "eap-mschapv2", "eap-md5", "eap-gtc"])
def test_who_fails_too_often_waits(tunnel: Make, lab: Lab, auth: str) -> None:
    """Refused before the password is looked at, with a notify and not by EAP; elsewhere the user gets in."""
    expects = {"expects": "*"}
    wrong = {"secret": "wrong"} if auth == "psk" else {"password": "wrong"}
    made = tunnel(TO_OURS, agreement(auth, client=wrong, gateway={"ours": LIMITS} | expects))
    for _ in range(2):
        with pytest.raises(ConnectFailed):
            made.client.connect()
    began = time.monotonic()
    made.gateway.wait_for_log(
        r"2 log-ins of 'alice@lab.test' from 10\.90\.0\.2 have failed; the next is refused for 4 s"
    )  # type: ignore[attr-defined]
    made.client.stop()
    made.client = lab.client("charon", agreement(auth))
    with pytest.raises(ConnectFailed):
        made.client.connect()
    assert "parsed IKE_AUTH response 1 [ N(AUTH_FAILED) ]" in made.client.log()
    made.gateway.wait_for_log(r"too many log-ins of 'alice@lab\.test' from 10\.90\.0\.2")  # type: ignore[attr-defined]
    elsewhere = lab.client("charon", agreement(auth, way=Way.NAT), lab.network.nat)
    try:
        elsewhere.connect()
        elsewhere.close()
    finally:
        elsewhere.stop()
        lab.without_charon(lab.network.nat)
    time.sleep(max(0.0, began + 4.5 - time.monotonic()))
    made.client.connect()
    made.check_ping()


def by_certificate(user: dict[str, object], identities: str = "*") -> Agreement:
    """EAP-TLS, at which no secret of the user is looked up."""
    credential = issue("ecdsa", CLIENT_NAME)
    client = {"credential": credential, "identity": "10.0.0.3"}  # IDi, as Windows says it
    gateway = {"trusts": credential, "expects": identities, "user": user}
    return agreement("eap-tls", client=client, gateway=gateway)


@pytest.mark.parametrize(
    ("agreed", "words"),
    [
        (lambda: by_certificate({"disabled": True}), "the user alice@lab.test is disabled"),
        (lambda: by_certificate({}, "*@other.test"), "the certificate of the client is for somebody else"),
    ],
    ids=["disabled", "of-another-connection"],
)
def test_a_certificate_in_eap_does_not_let_everybody_in(
    tunnel: Make, agreed: Callable[[], Agreement], words: str
) -> None:
    made = tunnel(OURS, agreed())
    with pytest.raises(ConnectFailed):
        made.client.connect()
    wait_until(lambda: words in made.gateway.log(), "unsaid", 5, made.logs)


def test_a_certificate_in_eap(tunnel: Make) -> None:
    made = tunnel(OURS, by_certificate({}, "*@lab.test"))
    made.client.connect()
    made.check_ping()
