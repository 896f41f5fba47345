"""What must not come about: each refusal is told to the peer by the right notify, and to the user in clear words."""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Callable
from dataclasses import dataclass

import pytest

from tests.interop.agreement import CLIENT_NAME, GATEWAY_NAME, Agreement, agreement
from tests.interop.lab import PAIRS, Lab, Pair, Tunnel
from tests.interop.network import Way
from tests.interop.ours import IkewayClient
from tests.interop.pki import issue
from tests.interop.strongswan import ConnectFailed
from tests.interop.waiting import wait_until

pytestmark = pytest.mark.peer

Make = Callable[[Pair, Agreement], Tunnel]
LONG_AGO = {"begins": dt.timedelta(days=-20), "ends": dt.timedelta(days=-10)}

TOLD = "the gateway refused the log-in with AUTHENTICATION_FAILED"  # the client learns no more than that
HEARD = "the peer refused our log-in with AUTHENTICATION_FAILED"
WIRE_AUTH_FAILED = r"N\(AUTH_FAILED\)"
LOGIN, AGREEMENT, NO_ANSWER = 3, 4, 5  # exit codes of `ikeway up`


@dataclass(frozen=True)
class Refusal:
    """A case that must fail: what strongSwan sees on the wire, and what Ikeway says as client and as gateway."""

    agreed: Callable[[], Agreement]
    wire: str  # in charon's log, whichever side it is
    client: str
    gateway: str
    exit_code: int = LOGIN
    keeps_ike: bool = False  # only the child SA fails


def bad_client(**certificate: object) -> Callable[[], Agreement]:
    name = str(certificate.pop("name", CLIENT_NAME))
    return lambda: agreement("rsa", client={"credential": issue("rsa", name, **certificate)})


def bad_gateway(**certificate: object) -> Callable[[], Agreement]:
    name = str(certificate.pop("name", GATEWAY_NAME))
    return lambda: agreement("rsa", gateway={"credential": issue("rsa", name, server=True, **certificate)})


REFUSALS = {
    "wrong-psk": Refusal(
        lambda: agreement(client={"secret": "another"}),
        WIRE_AUTH_FAILED,
        TOLD,
        "the pre-shared key of alice@lab.test is not the one that we have",
    ),
    "wrong-password": Refusal(
        lambda: agreement("eap-mschapv2", client={"password": "wrong"}),
        r"EAP/FAIL|N\(AUTH_FAILED\)",
        "the gateway refused the password of alice@lab.test",
        "EAP refused alice@lab.test: wrong password, or no such user: 'alice@lab.test'",
    ),
    "unknown-user": Refusal(
        lambda: agreement("eap-mschapv2", client={"identity": "mallory@lab.test"}),
        r"EAP/FAIL|N\(AUTH_FAILED\)",
        "the gateway refused the password of mallory@lab.test",
        "EAP refused mallory@lab.test: wrong password, or no such user: 'mallory@lab.test'",
    ),
    "untrusted-client": Refusal(
        bad_client(ca="Other CA"),
        WIRE_AUTH_FAILED,
        TOLD,
        "no trusted CA vouches for O=Lab, CN=alice@lab.test .*trust O=Lab, CN=Other CA rsa here",
    ),
    "untrusted-gateway": Refusal(
        bad_gateway(ca="Other CA"), WIRE_AUTH_FAILED, "no trusted CA vouches for O=Lab, CN=vpn.lab.test", HEARD
    ),
    "expired-client": Refusal(
        bad_client(**LONG_AGO), WIRE_AUTH_FAILED, TOLD, "O=Lab, CN=alice@lab.test expired on .*renew the certificate"
    ),
    "expired-gateway": Refusal(
        bad_gateway(**LONG_AGO), WIRE_AUTH_FAILED, "O=Lab, CN=vpn.lab.test expired on .*renew the certificate", HEARD
    ),
    "misnamed-client": Refusal(
        bad_client(name="mallory@lab.test"),
        WIRE_AUTH_FAILED,
        TOLD,
        "the certificate is not one of alice@lab.test .*got O=Lab, CN=mallory@lab.test",
    ),
    "misnamed-gateway": Refusal(
        bad_gateway(name="other.lab.test"),
        WIRE_AUTH_FAILED,
        "the certificate is not one of vpn.lab.test.*got: O=Lab, CN=other.lab.test",
        HEARD,
    ),
    "no-common-ike-proposal": Refusal(
        lambda: agreement(client={"ike": "aes256-sha384-ecp384"}, gateway={"ike": "aes128gcm16-prfsha256-x25519"}),
        r"N\(NO_PROP\)",
        "the gateway refused IKE_SA_INIT with NO_PROPOSAL_CHOSEN",
        "refused: nothing in common in encryption: offered aes256, accepted aes128gcm16",
        exit_code=AGREEMENT,
    ),
    "no-common-esp-proposal": Refusal(
        lambda: agreement(client={"esp": "aes256-sha256"}, gateway={"esp": "chacha20poly1305"}),
        r"N\(NO_PROP\)",
        "the peer refused child SA net with NO_PROPOSAL_CHOSEN",
        "no proposal in common for child SA lab: .* offered aes256, accepted chacha20poly1305",
        exit_code=AGREEMENT,
        keeps_ike=True,
    ),
    "no-common-selector": Refusal(
        lambda: agreement(client={"networks": {"net": ("172.16.0.0/24",)}}),
        r"N\(TS_UNACCEPT\)",
        "the peer refused child SA net with TS_UNACCEPTABLE",
        r"expected 10\.91\.0\.0/24 === 10\.92\.0\.1/32, got 172\.16\.0\.0/24",
        exit_code=AGREEMENT,
        keeps_ike=True,
    ),
}


def fails(made: Tunnel, refusal: Refusal) -> None:
    """Connecting fails, both sides know why, and nothing is left."""
    with pytest.raises(ConnectFailed):
        made.client.connect()
    made.charon.charon.wait_for_log(refusal.wire)
    both_say_why(made, refusal)
    wait_until(
        lambda: not any(sa.children for sa in made.charon.sas()) and (refusal.keeps_ike or not made.charon.sas()),
        "an SA is left",
        logs=made.logs,
    )


def both_say_why(made: Tunnel, refusal: Refusal) -> None:
    """What Ikeway tells its user, on whichever side it is."""
    for side, words in ((made.client, refusal.client), (made.gateway, refusal.gateway)):
        if side.is_ours:
            wait_until(lambda side=side, words=words: says(side.log(), words), f"no {words!r}", 5, made.logs)
    if isinstance(made.client, IkewayClient):
        assert made.client.process.wait(5) == refusal.exit_code


def says(log: str, words: str) -> bool:
    """True when a line of the log matches, and no traceback is in it."""
    assert "Traceback" not in log, log
    return re.search(words, log, re.DOTALL) is not None


@pytest.mark.parametrize("pair", PAIRS, ids=str)
@pytest.mark.parametrize("case", REFUSALS)
def test_refusal(tunnel: Make, pair: Pair, case: str) -> None:
    refusal = REFUSALS[case]
    fails(tunnel(pair, refusal.agreed()), refusal)


@pytest.mark.parametrize("pair", PAIRS, ids=str)
def test_full_pool(tunnel: Make, lab: Lab, pair: Pair) -> None:
    """One address, and somebody has it: a second client, on another host, gets none."""
    made = tunnel(pair, agreement(gateway={"expects": "*"}, pool={4: "10.92.0.7-10.92.0.7"}))
    first = agreement(client={"identity": "bob@lab.test"}, way=Way.NAT)
    holder = lab.client("charon", first, lab.network.nat)
    try:
        holder.connect()
        refusal = Refusal(
            lambda: made.agreed,
            r"N\(INT_ADDR_FAIL\)",
            "refused .*with INTERNAL_ADDRESS_FAILURE",
            "(?i)pool.*alice@lab.test|alice@lab.test.*pool",
            exit_code=AGREEMENT,
        )
        with pytest.raises(ConnectFailed):
            made.client.connect()
        made.charon.charon.wait_for_log(refusal.wire)
        both_say_why(made, refusal)
    finally:
        holder.stop()
        lab.without_charon(lab.network.nat)


@pytest.mark.parametrize("client", ["charon", "ikeway"])
def test_nobody_there(lab: Lab, client: str) -> None:
    """No gateway runs: the client gives up, and says which address it tried."""
    lab.without_charon(lab.network.gateway)
    made = lab.client(client, agreement(client={"patient": False}))
    try:
        with pytest.raises(ConnectFailed) as caught:
            made.connect(20)
        if isinstance(made, IkewayClient):
            assert made.process.wait(5) == NO_ANSWER
            assert Way.WAN.gateway in str(caught.value)
            assert "500" in str(caught.value)
    finally:
        made.stop()
