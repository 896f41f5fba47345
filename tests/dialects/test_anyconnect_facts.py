"""What our two sides of AnyConnect say, octet by octet, against what is publicly known of it (docs/anyconnect.md), read
here with nothing of our own code: TLVs by hand, XML by ElementTree, HMAC by the standard library."""

from __future__ import annotations

import hmac
import re
import struct
from dataclasses import replace
from functools import cache
from xml.etree import ElementTree

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding
from cryptography.hazmat.primitives.serialization import pkcs7

from ikeway.dialects.anyconnect.messages import Device
from ikeway.dialects.anyconnect.options import ClientOptions, GatewayOptions
from ikeway.ike import events
from ikeway.ike.interception import combine
from ikeway.ike.proposals import parse_proposals
from ikeway.wire.registry import NotifyType
from tests.dialects.anyconnect import pair, pki

VENDOR_IDS = [
    "434953434f2d44454c4554452d524541534f4e",
    "434953434f28434f505952494748542926436f7079726967687420286329203230303920436973636f2053797374656d732c20496e632e",
    "4048b7d56ebce88525e7de7f00d6c2d3",
    "434953434f2d4752452d4d4f4445",
    "434953434f2d414e59434f4e4e4543542d5354524150",
    "434953434f2d414e59434f4e4e4543542d454150",
    "434953434f2d4e47452d4c4556454c",
]
IDI = bytes.fromhex("c90000002a24416e79436f6e6e656374436c69656e74242a")
HEAD = bytes.fromhex("fe00000944425250")
DEVICE = Device(
    "4.9.01095",
    "win",
    (
        ("computer-name", "MyPC1"),
        ("device-type", "PC Vendor Notebook G1"),
        ("platform-version", "10.0.18363"),
        ("unique-id", "a1" * 32),
        ("unique-id-global", "b2" * 20),
    ),
    ("82-00-11-aa-bb-cc", "82-00-11-aa-bb-cd"),
)
CLIENT_HEADER = ["version", "device-id", "mac-address-list"]
SHAPE = {
    "hello": ["version"],
    "auth-request by certificate": ["csport", "client-cert-request"],
    "auth-request with host-scan": ["opaque", "csport", "auth", "host-scan"],
    "auth-request with form": ["opaque", "csport", "auth"],
    "complete": ["session-id", "session-token", "auth", "capabilities", "config"],
    "init": [*CLIENT_HEADER, "group-access", "capabilities"],
    "auth-reply": [*CLIENT_HEADER, "session-id", "session-token", "opaque", "auth"],
    "ack": CLIENT_HEADER,
}


class Quiet:
    """A client that announces no hashes (RFC 7427), as the known one does not."""

    def sending(self, sa, message):
        kept = (
            each for each in message.payloads if getattr(each, "type", None) != NotifyType.SIGNATURE_HASH_ALGORITHMS
        )
        return replace(message, payloads=tuple(kept)) if message.message_id == 0 else message

    def received(self, sa, message):
        return message


def walk(octets: bytes) -> list[tuple[int, bytes]]:
    """The payloads of a plaintext message: type and body."""
    kind, rest, found = octets[16], octets[28:], []
    while kind:
        following, _, length = struct.unpack(">BBH", rest[:4])
        found.append((kind, rest[4:length]))
        kind, rest = following, rest[length:]
    assert not rest
    return found


class Seen:
    """A conversation: payloads as (from the client, message ID, payload type, body), and the EAP packets, in order."""

    def __init__(self, *, quiet: bool = False, **settings) -> None:
        made = self.made = pair(**settings)
        if quiet:
            made.a.connection = replace(
                made.a.connection, interception=combine(made.a.connection.interception, Quiet())
            )
        made.connect()
        made.agree()
        assert len(made.a.inbound) == 1, made.a.errors + made.b.errors
        self.init = [datagram.octets for datagram in made.sent[:2]]
        self.payloads = [
            (isinstance(event, events.MessageSent), event.message.message_id, kind, body)
            for event in made.a.log
            if isinstance(event, events.MessageSent | events.MessageReceived)
            for kind, body in walk(event.message.encode())
        ]
        self.eap = [body for _, _, kind, body in self.payloads if kind == 48]


def tlvs(packet: bytes) -> dict[int, bytes]:
    """The TLVs of an EAP packet of the method, in their order."""
    code, _, length = struct.unpack(">BBH", packet[:4])
    assert code in (1, 2) and length == len(packet) and packet[4:12] == HEAD
    found, rest = {}, packet[12:]
    while rest:
        kind, size = struct.unpack(">HH", rest[:4])
        assert kind not in found
        found[kind], rest = rest[4 : 4 + size], rest[4 + size :]
    return found


def document(packet: bytes) -> ElementTree.Element:
    xml = tlvs(packet)[0]
    assert xml.startswith(b'<?xml version="1.0" encoding="UTF-8"?>\n') and xml.endswith(b"\n")
    root = ElementTree.fromstring(xml)
    assert root.tag == "config-auth"
    assert next(iter(root.items())) == ("client", "vpn") and root.get("aggregate-auth-version") == "2"
    assert set(root.keys()) == {"client", "type", "aggregate-auth-version"}
    return root


def children(root: ElementTree.Element) -> list[str]:
    return [child.tag for child in root]


@cache
def by_certificate() -> Seen:
    """The conversation of the one implementation that is known: a certificate, and the host examined."""
    return Seen(
        client=ClientOptions(device=DEVICE, group="Tunnel-Group1", host_scan="echo"),
        gateway=GatewayOptions(
            password=False, certificate=True, host_scan=True, groups=("Tunnel-Group1",), server_cert_hash="AB" * 20
        ),
        credential=pki().alice,
        fragment_size=65000,
    )


@cache
def by_password() -> Seen:
    return Seen(client=ClientOptions(device=DEVICE, group="Staff"), gateway=GatewayOptions(groups=("Staff",)))


@pytest.mark.parametrize("conversation", [by_certificate, by_password])
def test_around_eap(conversation):
    seen = conversation()
    for sent in (True, False):
        mine = [(mid, kind, body) for who, mid, kind, body in seen.payloads if who is sent]
        assert [body.hex() for mid, kind, body in mine if (mid, kind) == (0, 43)] == VENDOR_IDS
        assert [len(body) for mid, kind, body in mine if (mid, kind) == (1, 43)] == [20]
        assert not [kind for mid, kind, _ in mine if mid > 1 and kind == 43]
        # The last AUTH is method 2; before it the gateway alone has sent one.
        auths = [(mid, body[0]) for mid, kind, body in mine if kind == 39]
        assert auths[-1] == (max(mid for mid, _, _ in mine if mid), 2)
        assert len(auths) == (1 if sent else 2)
    assert next(body for who, _, kind, body in seen.payloads if who and kind == 35) == IDI
    identifiers = [packet[1] for packet in seen.eap]
    assert identifiers[0] == 1 and seen.eap[-1][0] == 3 and len(seen.eap[-1]) == 4
    requests = identifiers[:-1:2]
    assert requests == list(range(1, 1 + len(requests))) and identifiers[1::2] == requests


@pytest.mark.parametrize(
    "conversation,types",
    [
        (by_certificate, "hello init auth-request init auth-request auth-reply complete ack"),
        (by_password, "hello init auth-request auth-reply complete ack"),
    ],
)
def test_documents_in_their_order_with_their_children(conversation, types):
    roots = [document(packet) for packet in conversation().eap[:-1]]
    assert [root.get("type") for root in roots] == types.split()
    for at, root in enumerate(roots):
        kind = root.get("type")
        if kind == "auth-request":
            kind += " by certificate" if root.find("client-cert-request") is not None else ""
            kind += " with host-scan" if root.find("host-scan") is not None else ""
            kind += " with form" if root.find("auth/form") is not None else ""
        wanted = [*SHAPE[kind]]
        if kind == "auth-reply":
            wanted += ["host-scan-token"] if conversation is by_certificate else ["group-select"]
        assert children(root) == wanted, (at, kind)


def test_what_the_client_says_of_itself():
    for packet in by_certificate().eap[1:-1:2]:
        root = document(packet)
        assert (root[0].text, root[0].attrib) == ("4.9.01095", {"who": "vpn"})
        assert root[1].text == "win"
        assert list(root[1].items()) == list(DEVICE.attributes)
        first, second = root[2]
        assert (first.text, first.attrib) == ("82-00-11-aa-bb-cc", {"public-interface": "true"})
        assert (second.text, second.attrib) == ("82-00-11-aa-bb-cd", {})


def test_host_scan_and_what_is_echoed():
    seen = by_certificate()
    request, reply = seen.eap[4], seen.eap[5]
    scan = document(request).find("host-scan")
    assert children(scan) == ["host-scan-ticket", "host-scan-token", "host-scan-base-uri", "host-scan-wait-uri"]
    assert all(re.fullmatch("[0-9A-F]{24}", scan[i].text) for i in (0, 1))
    assert (scan[2].text, scan[3].text) == ("/CACHE", "/+CSCOE+/sdesktop/wait.html")
    answer = document(reply)
    assert answer.findtext("host-scan-token") == scan[1].text
    assert (answer.findtext("session-id"), answer.findtext("session-token")) == ("", "")
    assert children(answer.find("auth")) == []
    opaque = re.search(rb"<opaque .*?</opaque>", tlvs(request)[0], re.DOTALL)[0]
    assert opaque in tlvs(reply)[0]
    auth = document(request).find("auth")
    assert auth.attrib == {"id": "main"} and children(auth) == ["authentication-complete"]


def test_the_form_and_its_answers():
    seen = by_password()
    request, answer = document(seen.eap[2]), document(seen.eap[3])
    inputs = request.findall("auth/form/input")
    assert [(each.get("type"), each.get("name")) for each in inputs] == [("text", "username"), ("password", "password")]
    assert [each.get("name") for each in request.findall("auth/form/select")] == ["group_list"]
    assert [(each.tag, each.text) for each in answer.find("auth")] == [
        ("username", "alice"),
        ("password", "wonderland"),
    ]
    assert answer.findtext("group-select") == "Staff"


@pytest.mark.parametrize("conversation", [by_certificate, by_password])
def test_complete(conversation):
    root = document(conversation().eap[-3])
    session = root.findtext("session-id")
    assert re.fullmatch("[0-9]+", session)
    assert re.fullmatch(f"[0-9A-F]{{6}}@{session}@[0-9A-F]{{4}}@[0-9A-F]{{40}}", root.findtext("session-token"))
    auth = root.find("auth")
    assert auth.attrib == {"id": "success"}
    assert auth[0].tag == "message" and list(auth[0].items()) == [("id", "0"), ("param1", ""), ("param2", "")]
    assert root.findtext("capabilities/crypto-supported") == "ssl-dhe"
    config = root.find("config")
    assert config.attrib == {"client": "vpn", "type": "private"}
    assert children(config) == ["vpn-base-config", "csport", "opaque", "vpn-profile-manifest"]
    assert config.find("opaque").attrib == {"is-for": "vpn-client"}
    assert children(config[0]) == (["server-cert-hash"] if conversation is by_certificate else [])
    if conversation is by_certificate:
        assert config.findtext("vpn-base-config/server-cert-hash") == "AB" * 20


def test_fragments_of_both_sides_are_slices_of_one_whole_message():
    """Header of the message with next payload 132 and its own length; next, reserved, length, id, number, flags; data."""
    seen = Seen(fragment_size=576, standard_fragments=False)
    whole: dict[tuple[bytes, bytes], list[tuple[int, int, bytes]]] = {}
    for datagram in seen.made.sent:
        octets = datagram.octets
        assert len(octets) <= 576 - 28 - 4
        if octets[16] == 132:
            following, reserved, length, identifier, number, flags = struct.unpack(">BBHHBB", octets[28:36])
            assert (following, reserved, identifier) == (0, 0, 1)
            assert length == len(octets) - 28 and int.from_bytes(octets[24:28]) == len(octets)
            # SPIs, version, exchange, flags and message ID are those of the message.
            whole.setdefault((octets[:16], octets[17:24]), []).append((number, flags, octets[36:]))
    assert {key[1][2] & 0x20 for key in whole} == {0, 0x20}  # requests and responses
    for (spis, rest), pieces in whole.items():
        assert [number for number, _, _ in pieces] == list(range(1, len(pieces) + 1))
        assert [flags for _, flags, _ in pieces] == [0] * (len(pieces) - 1) + [1]
        message = b"".join(piece for _, _, piece in pieces)
        assert (message[:16], message[17:24]) == (spis, rest)
        assert message[16] == 46 and int.from_bytes(message[24:28]) == len(message)


def test_unity_attributes():
    split = {"default_domain": "a.example", "split_dns": ("b.example", "c.example"), "split_include": ("10.1.0.0/16",)}
    seen = Seen(gateway=GatewayOptions(banner="Hello", **split))
    asked, told = (
        next(body for who, _, kind, body in seen.payloads if kind == 47 and who is side) for side in (True, False)
    )
    found: list[dict[int, bytes]] = []
    for body in (asked, told):
        rest, attributes = body[4:], {}
        while rest:
            kind, length = struct.unpack(">HH", rest[:4])
            attributes[kind & 0x7FFF], rest = rest[4 : 4 + length], rest[4 + length :]
        found.append({kind: value for kind, value in attributes.items() if kind >= 28672})
    assert (asked[0], told[0]) == (1, 2)
    assert found[0] == dict.fromkeys((28672, 28674, 28675, 28676), b"")
    assert found[1] == {
        28672: b"Hello",
        28674: b"a.example",
        28675: b"b.example,c.example",
        28676: bytes.fromhex("0a010000 ffff0000 000000000000"),
    }


# --- what is signed ---------------------------------------------------------------------------------------------------


def prf(key: bytes, octets: bytes, name: str = "sha256") -> bytes:
    return hmac.new(key, octets, name).digest()


def signed(seen: Seen, name: str = "sha256", *, responder: bool = False) -> bytes:
    """RealMessage | Nonce of the other | prf(SK_p, ID')."""
    sa = seen.made.a.sa
    identification = next(body for _, _, kind, body in seen.payloads if kind == (36 if responder else 35))
    nonces = [body for _, mid, kind, body in seen.payloads if (mid, kind) == (0, 40)]
    secret = sa.keys.sk_pr if responder else sa.keys.sk_pi
    return seen.init[responder] + nonces[not responder] + prf(secret, identification, name)


@pytest.mark.parametrize("conversation", [by_certificate, by_password])
def test_the_last_auth_of_both_is_made_with_sk_p_alone(conversation):
    seen = conversation()
    keys = seen.made.a.sa.keys
    for responder, secret in ((False, keys.sk_pi), (True, keys.sk_pr)):
        auth = [body for who, _, kind, body in seen.payloads if kind == 39 and who is not responder][-1]
        expected = prf(prf(secret, b"Key Pad for IKEv2"), signed(seen, responder=responder))
        assert auth == b"\x02\0\0\0" + expected


@pytest.mark.filterwarnings("ignore:PKCS#7 certificates could not be parsed as DER")  # the end entity comes first
@pytest.mark.parametrize(
    "name,algorithm", [("sha256", hashes.SHA256()), ("sha1", hashes.SHA1()), ("sha384", hashes.SHA384())]
)
def test_the_client_s_signature_has_the_hash_of_the_prf(name, algorithm):
    seen = Seen(
        gateway=GatewayOptions(password=False, certificate=True),
        credential=pki().alice,
        proposals=parse_proposals(f"aes128gcm16-prf{name}-x25519"),
    )
    found = tlvs(seen.eap[3])
    assert list(found) == [3, 1, 0]
    certificates = pkcs7.load_der_pkcs7_certificates(found[3])
    assert bytes.fromhex("300f06092a864886f70d010701a0020400a0") in found[3][:60]  # the empty content is there
    alice = certificates[0]
    assert [each.value for each in alice.subject.get_attributes_for_oid(x509.NameOID.COMMON_NAME)] == ["alice"]
    assert len(certificates) == 2
    alice.public_key().verify(found[1], signed(seen, name), padding.PKCS1v15(), algorithm)


@pytest.mark.parametrize("name,algorithm", [("sha256", hashes.SHA256()), ("sha1", hashes.SHA1())])
def test_the_gateway_s_auth_of_method_1_has_the_hash_of_the_prf(name, algorithm):
    """Where the client announces no hashes (RFC 7427), as S1's does not."""
    made = Seen(proposals=parse_proposals(f"aes128gcm16-prf{name}-x25519"), quiet=True)
    body = next(body for who, mid, kind, body in made.payloads if kind == 39 and not who and mid == 1)
    assert body[:4] == b"\x01\0\0\0"
    key = pki().gateway.chain[0].public_key()
    key.verify(body[4:], signed(made, name, responder=True), padding.PKCS1v15(), algorithm)
