"""Every kind of log-in, road, algorithm and selector: connect, ping, transfer with hash, take leave."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.interop.agreement import GATEWAY_NAME, Agreement, agreement
from tests.interop.half_open import leave_half_open
from tests.interop.lab import PAIRS, Pair, Tunnel
from tests.interop.network import LAN_NETWORK, LAN_SECOND_NETWORK, POOL, Network, Way
from tests.interop.pki import issue
from tests.interop.waiting import wait_until

pytestmark = pytest.mark.peer

Make = Callable[[Pair, Agreement], Tunnel]
every_pair = pytest.mark.parametrize("pair", PAIRS, ids=str)

CBC_IKE, CBC_ESP = "aes256-sha256-modp2048", "aes256-sha256"


def carries(made: Tunnel) -> None:
    """The whole life of a tunnel."""
    made.client.connect()
    made.check_ping()
    made.check_transfer()
    made.check_ping()
    made.client.close()
    wait_until(lambda: made.charon.sas() == [], "strongSwan still has the SA", logs=made.logs)


@every_pair
@pytest.mark.parametrize("auth", ["psk", "rsa", "ecdsa", "ed25519", "eap-mschapv2"])
def test_log_in(tunnel: Make, pair: Pair, auth: str) -> None:
    carries(tunnel(pair, agreement(auth)))


@every_pair
@pytest.mark.parametrize("way", [Way.WAN6, Way.NAT], ids=lambda way: way.name.lower())
def test_road(tunnel: Make, pair: Pair, way: Way) -> None:
    carries(tunnel(pair, agreement(way=way)))


@every_pair
def test_certificates_in_fragments_over_a_path_of_576_octets(tunnel: Make, network: Network, pair: Pair) -> None:
    """The path drops longer IKE messages, fragments of IP too, so that only RFC 7383 gets the certificates through."""
    gateway = issue("rsa", GATEWAY_NAME, server=True, padding=1500)
    made = tunnel(
        pair,
        agreement("rsa", way=Way.NARROW, both={"fragment_size": 576}, gateway={"credential": gateway}),
    )
    before = network.narrow_drops()
    made.client.connect()
    assert network.narrow_drops() == before, f"messages were too long for the path\n{made.logs()}"
    assert " EF(" in made.charon.log()
    made.check_ping()
    made.check_transfer(20)
    made.client.close()


@every_pair
@pytest.mark.parametrize("families", [(6,), (4, 6)], ids=["ipv6", "ipv4-and-ipv6"])
def test_families_inside(tunnel: Make, pair: Pair, families: tuple[int, ...]) -> None:
    networks = {"net": tuple(LAN_NETWORK[family] for family in families)}
    pool = {family: POOL[family] for family in families}
    carries(tunnel(pair, agreement(both={"networks": networks}, pool=pool)))


@every_pair
def test_ipv6_inside_ipv6(tunnel: Make, pair: Pair) -> None:
    carries(tunnel(pair, agreement(way=Way.WAN6, both={"networks": {"net": (LAN_NETWORK[6],)}}, pool={6: POOL[6]})))


@every_pair
@pytest.mark.parametrize(
    ("proposal", "seen"),
    [
        ("aes128gcm16", ("AES_GCM_16", 128, "")),
        ("chacha20poly1305", ("CHACHA20_POLY1305", 0, "")),
        (CBC_ESP, ("AES_CBC", 256, "HMAC_SHA2_256_128")),
    ],
)
def test_esp_algorithms(tunnel: Make, pair: Pair, proposal: str, seen: tuple[str, int, str]) -> None:
    made = tunnel(pair, agreement(both={"esp": proposal}))
    made.client.connect()
    (child,) = made.sa().installed
    assert (child.encryption, child.key_bits, child.integrity) == seen
    made.check_ping()
    made.check_transfer()
    made.client.close()


@every_pair
@pytest.mark.parametrize(
    ("proposal", "seen"),
    [
        ("aes128gcm16-prfsha256-x25519", ("AES_GCM_16", "CURVE_25519")),
        ("chacha20poly1305-prfsha384-ecp256", ("CHACHA20_POLY1305", "ECP_256")),
        (CBC_IKE, ("AES_CBC", "MODP_2048")),
    ],
)
def test_ike_algorithms(tunnel: Make, pair: Pair, proposal: str, seen: tuple[str, str]) -> None:
    made = tunnel(pair, agreement(both={"ike": proposal}))
    made.client.connect()
    sa = made.sa()
    assert (sa.encryption, sa.key_exchange) == seen
    made.check_ping()
    made.check_transfer()
    made.client.close()


@every_pair
def test_another_key_exchange_is_asked_for(tunnel: Make, pair: Pair) -> None:
    """INVALID_KE_PAYLOAD: the client guesses X25519, the gateway wants ECP-256."""
    both_methods = "aes256gcm16-prfsha256-x25519, aes256gcm16-prfsha256-ecp256"
    made = tunnel(pair, agreement(client={"ike": both_methods}, gateway={"ike": "aes256gcm16-prfsha256-ecp256"}))
    made.client.connect()
    assert made.sa().key_exchange == "ECP_256"
    assert "N(INVAL_KE)" in made.charon.log()
    made.check_ping()
    made.check_transfer()
    made.client.close()


@every_pair
def test_cookies(tunnel: Make, network: Network, pair: Pair) -> None:
    made = tunnel(pair, agreement(always_cookie=True))
    if pair.gateway == "charon":  # it demands cookies only after somebody was seen to leave something open
        leave_half_open(network, Way.WAN)
    made.client.connect()
    assert "N(COOKIE)" in made.charon.log()
    made.check_ping()
    made.check_transfer()
    made.client.close()


@every_pair
def test_several_child_sas(tunnel: Make, pair: Pair) -> None:
    networks = {"net": (LAN_NETWORK[4],), "second": (LAN_SECOND_NETWORK,)}
    made = tunnel(pair, agreement(both={"networks": networks}))
    made.client.connect()
    wait_until(lambda: len(made.sa().installed) == 2, "there are not two child SAs", logs=made.logs)
    made.check_ping()
    made.check_transfer()
    assert all(child.octets_in > 0 and child.octets_out > 0 for child in made.sa().installed)
    made.client.close()
    wait_until(lambda: made.charon.sas() == [], "strongSwan still has the SA", logs=made.logs)
