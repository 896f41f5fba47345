"""FortiGate, Windows, Azure and Apple: what the documents and tables of others say, and ours against ours in memory."""

from __future__ import annotations

import json
import re

import pytest

from ikeway.dialects import for_client
from ikeway.dialects.fortigate import FORTICLIENT_CONNECT, FortiGateOptions, client
from ikeway.dialects.fortigate import VENDOR_IDS as FORTINET
from ikeway.dialects.microsoft import ESP_PROPOSALS, IKE_PROPOSALS, azure, windows
from ikeway.dialects.microsoft import VENDOR_IDS as MICROSOFT
from ikeway.eap.gtc import GtcAuthenticator, GtcPeer
from ikeway.eap.mschapv2 import MsChapV2Authenticator, MsChapV2Peer
from ikeway.eap.questions import Granted, PasswordCheck, PasswordQuestion, SecretQuestion
from ikeway.eap.session import EapAuthenticator, EapPeer
from ikeway.ike import events
from ikeway.ike.proposals import (
    DEFAULT_ESP_PROPOSALS,
    DEFAULT_IKE_PROPOSALS,
    parse_proposals,
    select,
    weaknesses,
)
from ikeway.ike.settings import (
    CertificateExpected,
    EapCredential,
    EapExpected,
    FurtherCredential,
    FurtherExpectation,
    ResponderSettings,
)
from ikeway.wire.payloads import IdResponder, VendorId
from ikeway.wire.registry import ExchangeType, NotifyType, ProtocolId
from ikeway.wire.vendors import vendor_name
from tests.dialects.anyconnect import answer_user, pki
from tests.ike.pair import Pair, connection, connection_b
from tests.vectors import vector

USERS = {b"alice": "wonderland"}


def fortigate(*, then_gtc: bool = False, options: FortiGateOptions | None = None) -> Pair:
    """Our client as FortiClient, our gateway as it is."""
    ours = pki()

    def peer(method):
        return EapCredential(lambda ask: EapPeer(ask, b"alice", [lambda: method(b"alice")]))

    def server(method):
        return EapExpected(lambda ask: EapAuthenticator(ask, [method]))

    a = connection(
        local_credential=peer(MsChapV2Peer),
        further_credentials=(FurtherCredential(peer(GtcPeer)),) if then_gtc else (),
        remote_expectation=CertificateExpected(ours.trust),
    )
    b = connection_b(
        local_credential=ours.gateway,
        remote_identity=None,
        remote_expectation=server(lambda: MsChapV2Authenticator(b"gw")),
        further_expectations=(FurtherExpectation(server(GtcAuthenticator)),) if then_gtc else (),
    )
    from tests.auth.pki import NOW

    responder = ResponderSettings(ike_proposals=b.ike_proposals, cookie_threshold=1000, multiple_auth=then_gtc)
    told = options or FortiGateOptions(host="pc", user="alice")
    made = Pair(for_client(client(told), a), b, responder=responder, epoch=NOW)
    made.a.answers[PasswordQuestion] = answer_user()
    made.b.answers[SecretQuestion] = lambda question: USERS.get(question.identity)
    made.b.answers[PasswordCheck] = lambda question: Granted()
    return made


def first_auth(made: Pair):
    return next(
        event.message
        for event in made.b.happened(events.MessageReceived)
        if event.message.exchange_type == ExchangeType.IKE_AUTH
    )


def test_forticlient_s_vendor_ids_and_notify():
    made = fortigate()
    made.connect()
    made.agree()
    assert len(made.a.inbound) == 1, made.a.errors + made.b.errors
    init = made.b.happened(events.MessageReceived)[0].message
    assert [payload.value.hex() for payload in init.find_all(VendorId)] == [
        "4c53427b6d465d1b337bb755a37a7fef",
        "b4f01ca951e9da8d0bafbbd34ad3044e",
        "c1dc4350476b98a429b91781914ca43e",
    ]
    message = first_auth(made)
    assert message.find(IdResponder) is None
    notify = message.notify(FORTICLIENT_CONNECT)
    assert notify is not None and int(notify.type) == 61696
    assert notify.value == (
        b"VER=1\nFCTVER=7.4.8.2066\nUID="
        + b"0" * 32
        + b"\nIP=192.0.2.1\nMAC=\nHOST=pc\nUSER=alice\nOSVER=\nREG_STATUS=0\n\0"
    )
    assert all(vendor_name(octets) for octets in FORTINET)


def test_the_notify_and_its_address_are_settings():
    for options, found in (
        (FortiGateOptions(notify=False), None),
        (FortiGateOptions(address="192.0.2.9"), b"\nIP=192.0.2.9\n"),
        (FortiGateOptions(), b"\nIP=192.0.2.1\n"),  # that of the IKE SA
    ):
        made = fortigate(options=options)
        made.connect()
        made.agree()
        notify = first_auth(made).notify(FORTICLIENT_CONNECT)
        assert notify is None if found is None else found in notify.value


def test_the_network_id_goes_into_ike_sa_init():
    for number in (None, 0, 7):
        made = fortigate(options=FortiGateOptions(network_id=number))
        made.connect()
        made.agree()
        notify = made.b.happened(events.MessageReceived)[0].message.notify(NotifyType(61520))
        assert (notify.value if notify is not None else None) == (bytes((number,)) if number is not None else None)


def test_a_password_and_then_gtc_as_rfc_4739_has_it():
    """A FortiGate does it in its own way; a gateway of ours does it in this one, and the dialect is not in the way."""
    made = fortigate(then_gtc=True)
    made.connect()
    made.agree()
    assert len(made.a.inbound) == 1, made.a.errors + made.b.errors


# --- Microsoft --------------------------------------------------------------------------------------------------------


def test_windows_vendor_ids_are_those_of_ike_scan_s_table():
    table = {}
    for line in (vector("pcap/ike-scan/ike-vendor-ids")).read_text(errors="replace").splitlines():
        if line and not line.startswith("#"):
            name, _, pattern = line.rpartition("\t")
            table[name.strip()] = pattern.strip()
    assert re.match(table["MS NT5 ISAKMPOAKLEY"], MICROSOFT[0].hex())
    assert re.match(table["Windows-8"], MICROSOFT[0].hex())
    assert re.match(table["MS-Negotiation Discovery Capable"], MICROSOFT[1].hex())
    assert any(re.match(pattern, MICROSOFT[2].hex()) for name, pattern in table.items() if "Initial-Contact" in name)
    assert all((vendor_name(octets) or "").startswith("Microsoft") for octets in MICROSOFT)


def test_a_client_passes_for_windows():
    a = connection(ike_proposals=IKE_PROPOSALS)
    made = Pair(for_client(windows(), a), connection_b())
    made.connect()
    made.agree()
    assert made.b.sa.peer.vendor_ids == MICROSOFT


OLD = ("aes256-sha1-modp1024", "aes256-sha256-modp1024", "aes128-sha1-modp1024", "aes128-sha256-modp1024")


@pytest.mark.parametrize("policy", OLD)
@pytest.mark.parametrize("dialect", [azure(), windows()], ids=["azure", "windows"])
def test_a_default_policy_of_azure_finds_a_proposal(dialect, policy):
    """Phase 1 of the default policies: learn.microsoft.com/azure/virtual-wan/virtual-wan-ipsec."""
    assert select(dialect.ike_proposals, parse_proposals(policy)) is not None
    assert select(DEFAULT_IKE_PROPOSALS, parse_proposals(policy)) is None


# Of the values of New-AzVpnClientIpsecParameter: SHA-1 and MODP-1024 only together, as in the default policies.
CUSTOM = [
    f"{cipher}-{prf}{integrity}-{group}"
    for cipher, prf in (("aes128", ""), ("aes256", ""), ("aes128gcm16", "prf"), ("aes256gcm16", "prf"))
    for integrity in ("sha256", "sha384")
    for group in ("modp2048", "ecp256", "ecp384")
]


@pytest.mark.parametrize("policy", CUSTOM)
def test_a_custom_policy_of_azure_finds_a_proposal(policy):
    assert select(azure().ike_proposals, parse_proposals(policy)) is not None


@pytest.mark.parametrize("policy", ["aes256gcm16", "aes256-sha1", "aes256-sha256", "aes128-sha1", "aes128-sha256"])
def test_child_sas_of_azure(policy):
    wanted = parse_proposals(policy, ProtocolId.ESP)
    assert select(ESP_PROPOSALS, wanted) is not None


def test_what_is_old_comes_last():
    first_weak = next(i for i, each in enumerate(IKE_PROPOSALS) if weaknesses(each))
    assert IKE_PROPOSALS[:first_weak] == DEFAULT_IKE_PROPOSALS
    assert ESP_PROPOSALS[: len(DEFAULT_ESP_PROPOSALS)] == DEFAULT_ESP_PROPOSALS


def test_windows_policies_of_phone_books_find_a_proposal_without_a_dialect():
    samples = json.loads(vector("windows/rasphone-CustomIPSecPolicies.json").read_text())["samples"]
    names = {"SHA256": "sha256", "SHA384": "sha384", "AES256": "aes256", "AES128": "aes128", "Group14": "modp2048"}
    assert samples
    for sample in samples:
        shell = sample["powershell"]
        wanted = [names[shell[key]] for key in ("EncryptionMethod", "IntegrityCheckMethod", "DHGroup")]
        assert select(parse_proposals("-".join(wanted)), DEFAULT_IKE_PROPOSALS) is not None
        cipher = names[shell["CipherTransformConstants"]]
        assert select(parse_proposals(f"{cipher}-sha256", ProtocolId.ESP), DEFAULT_ESP_PROPOSALS) is not None


# --- Apple ------------------------------------------------------------------------------------------------------------

APPLE = {
    "AES-128": "aes128",
    "AES-256": "aes256",
    "AES-128-GCM": "aes128gcm16",
    "AES-256-GCM": "aes256gcm16",
    "ChaCha20Poly1305": "chacha20poly1305",
    "SHA2-256": "sha256",
    "SHA2-384": "sha384",
    "SHA2-512": "sha512",
}
APPLE_GROUPS = {14: "modp2048", 15: "modp3072", 16: "modp4096", 19: "ecp256", 20: "ecp384", 21: "ecp521", 31: "x25519"}


def apple_default(key: str) -> str:
    """What Apple's own schema of profiles says of an IKE parameter that a profile leaves out."""
    text = vector("apple/com.apple.vpn.managed.yaml").read_text()
    found = re.search(rf"- key: {key}\n.*?\n +default: (\S+)\n", text, re.DOTALL)
    assert found, key
    return found[1]


def test_apple_needs_no_dialect():
    """What its devices use when a profile says nothing, a gateway of ours takes; there is nothing else to change."""
    cipher, integrity = (APPLE[apple_default(key)] for key in ("EncryptionAlgorithm", "IntegrityAlgorithm"))
    group = APPLE_GROUPS[int(apple_default("DiffieHellmanGroup"))]
    assert (cipher, integrity, group) == ("aes256", "sha256", "modp2048")
    assert select(parse_proposals(f"{cipher}-{integrity}-{group}"), DEFAULT_IKE_PROPOSALS) is not None
    assert select(parse_proposals(f"{cipher}-{integrity}", ProtocolId.ESP), DEFAULT_ESP_PROPOSALS) is not None


@pytest.mark.parametrize("name", ["algo-mobileconfig.j2", "hwdsl2-ikev2-0.mobileconfig.template"])
def test_apple_profiles_of_others_find_a_proposal(name):
    text = vector(f"apple/{name}").read_text()

    def value(key: str) -> str:
        found = re.search(rf"<key>{key}</key>\s*<(?:string|integer)>([^<]*)<", text)
        assert found, key
        return found[1]

    cipher, integrity = APPLE[value("EncryptionAlgorithm")], APPLE[value("IntegrityAlgorithm")]
    group = APPLE_GROUPS[int(value("DiffieHellmanGroup"))]
    prf = "prf" if cipher.endswith(("gcm16", "poly1305")) else ""
    assert select(parse_proposals(f"{cipher}-{prf}{integrity}-{group}"), DEFAULT_IKE_PROPOSALS) is not None
