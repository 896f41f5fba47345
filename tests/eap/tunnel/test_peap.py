"""PEAP: methods in the tunnel, results, cryptobinding; both roles against each other."""

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ikeway.auth.errors import UntrustedCertificate
from ikeway.auth.path import Role
from ikeway.eap.errors import BindingFailed, EapFailed, MalformedEap, NoCommonMethod, WrongPassword
from ikeway.eap.gtc import GtcAuthenticator, GtcPeer
from ikeway.eap.md5 import Md5Peer
from ikeway.eap.method import AuthenticatorMethodFactory, PeerMethodFactory
from ikeway.eap.mschapv2 import MsChapV2Authenticator, MsChapV2Peer
from ikeway.eap.packet import EapCode, EapPacket, EapType
from ikeway.eap.peap import PeapAuthenticator, PeapPeer
from ikeway.eap.questions import PasswordQuestion
from ikeway.eap.session import EapAuthenticator, EapPeer
from ikeway.eap.tls import EapTlsAuthenticator, EapTlsPeer
from ikeway.eap.tunnel.channel import Channel, TlsVersion
from ikeway.eap.tunnel.extensions import (
    EXTENSIONS,
    Binding,
    CompoundKeys,
    Outcome,
    Result,
    Tlv,
    decode_inner,
    decode_tlvs,
    encode_extensions,
    encode_inner,
    prf_plus,
    result_tlv,
)
from ikeway.errors import ConfigError, IkewayError
from tests.auth.pki import root
from tests.eap.conversations import Asker, log_in
from tests.eap.tunnel.parties import CLIENT, SERVER, VERSIONS, asker, client_end, client_node, server_end, trust

USER = b"alice"


def tls_peer() -> EapTlsPeer:
    return EapTlsPeer(client_end(node=client_node()), CLIENT.encode())


def tls_authenticator() -> EapTlsAuthenticator:
    return EapTlsAuthenticator(server_end(judge=trust(Role.INITIATOR)))


def mschapv2() -> MsChapV2Peer:
    return MsChapV2Peer(USER)


def gtc() -> GtcPeer:
    return GtcPeer(USER)


INNER: dict[str, tuple[bytes, PeerMethodFactory, AuthenticatorMethodFactory]] = {
    "mschapv2": (USER, mschapv2, MsChapV2Authenticator),
    "gtc": (USER, gtc, GtcAuthenticator),
    "tls": (CLIENT.encode(), tls_peer, tls_authenticator),
}


def sides(
    way: str = "mschapv2",
    version: TlsVersion | None = None,
    *,
    ask: Asker | None = None,
    peers: list[PeerMethodFactory] | None = None,
    servers: list[AuthenticatorMethodFactory] | None = None,
    client_binds: bool = False,
    server_binds: bool = False,
    server: Any = None,
    make: Callable[..., PeapAuthenticator] = PeapAuthenticator,
) -> tuple[EapPeer, EapAuthenticator]:
    user, peer_method, server_method = INNER[way]
    client, server, ask = client_end(version), server or server_end(), ask or asker()
    peer = EapPeer(
        ask, b"anonymous", [lambda: PeapPeer(client, user, peers or [peer_method], require_binding=client_binds)]
    )
    made = [lambda: make(server, servers or [server_method], require_binding=server_binds)]
    return peer, EapAuthenticator(ask, made)


def refused(peer: EapPeer, authenticator: EapAuthenticator) -> IkewayError:
    with pytest.raises(IkewayError) as caught:
        log_in(peer, authenticator)
    assert authenticator.failed and not authenticator.succeeded
    assert peer.msk is None and authenticator.msk is None
    return caught.value


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("way", INNER)
def test_every_method_in_the_tunnel(way: str, version: TlsVersion) -> None:
    peer, authenticator = sides(way, version, client_binds=True, server_binds=True)
    packets = log_in(peer, authenticator)
    assert peer.msk == authenticator.msk and len(peer.msk or b"") == 64
    assert authenticator.identity == INNER[way][0]
    assert peer.mutual
    assert not any(b"alice" in packet for packet in packets)


def test_another_method_than_the_first() -> None:
    peer, authenticator = sides(peers=[gtc], servers=[MsChapV2Authenticator, GtcAuthenticator])
    log_in(peer, authenticator)
    assert peer.msk == authenticator.msk is not None


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("way", ["mschapv2", "gtc"])
def test_a_wrong_password(way: str, version: TlsVersion) -> None:
    peer, authenticator = sides(way, version, ask=asker("wrong"))
    assert isinstance(refused(peer, authenticator), WrongPassword)
    assert isinstance(authenticator.error, WrongPassword)


@pytest.mark.parametrize("version", VERSIONS)
def test_no_password_for_a_server_that_is_not_the_right_one(version: TlsVersion) -> None:
    ask = asker()
    impostor = server_end(node=root("Impostor").issue("s", alternatives=(f"dns:{SERVER}",)))
    peer, authenticator = sides("gtc", version, ask=ask, server=impostor)
    assert isinstance(refused(peer, authenticator), UntrustedCertificate)
    assert not any(isinstance(question, PasswordQuestion) for question in ask.questions)


def test_no_method_in_common() -> None:
    peer, authenticator = sides(peers=[gtc])
    refused(peer, authenticator)
    assert isinstance(authenticator.error, NoCommonMethod)


class Unbinding(PeapAuthenticator):
    """FreeRADIUS's way: a result and no more."""

    def _send(self, channel: Channel, request: EapPacket) -> None:
        if request.type == EXTENSIONS:
            request = EapPacket(request.code, request.identifier, EXTENSIONS, request.data[:6])
        super()._send(channel, request)


class Misbinding(PeapAuthenticator):
    """As somebody in the middle, who has the tunnel's keys and not those of the log-in."""

    def _send(self, channel: Channel, request: EapPacket) -> None:
        if request.type == EXTENSIONS:
            wrong = CompoundKeys.derive(self._keyed.material, b"another key").binding(bytes(32), is_response=False)
            request = encode_extensions(request.code, request.identifier, result_tlv(Result.SUCCESS), wrong.tlv())
        super()._send(channel, request)


class Hasty(PeapAuthenticator):
    """Declares success before there was a log-in."""

    def _send(self, channel: Channel, request: EapPacket) -> None:
        super()._send(channel, encode_extensions(EapCode.REQUEST, 1, result_tlv(Result.SUCCESS)))


def test_a_server_without_cryptobinding() -> None:
    peer, authenticator = sides(make=Unbinding)
    log_in(peer, authenticator)
    assert peer.msk == authenticator.msk is not None
    assert isinstance(refused(*sides(make=Unbinding, client_binds=True)), BindingFailed)
    peer, authenticator = sides(make=Unbinding, server_binds=True)
    refused(peer, authenticator)
    assert isinstance(authenticator.error, BindingFailed)


def test_somebody_between_tunnel_and_log_in() -> None:
    assert isinstance(refused(*sides(make=Misbinding)), BindingFailed)


def test_success_before_the_log_in() -> None:
    peer, authenticator = sides(make=Hasty)
    with pytest.raises(EapFailed, match="before the log-in"):
        log_in(peer, authenticator)
    assert not authenticator.succeeded


class Saying(PeapAuthenticator):
    """A server that says what it likes in the tunnel."""

    words = b""

    def _send(self, channel: Channel, request: EapPacket) -> None:
        channel.write(self.words)


@pytest.mark.parametrize(
    "words",
    [
        b"\1\1\0\x09\x21\x80\x03\0\2",
        b"\1\1\0\x0b\x21\x80\x03\0\2\0\3",
        b"\1\1\0\x05\x21",
        b"\1\1\0\x09\x21\x80\x63\0\0",
        b"\1\1\0\x0f\x21\x80\x03\0\2\0\1\0\x0c\0\0",
        b"\3\1\0\4",
        b"\4\1\0\4",
        b"\xfe\0",
    ],
)
def test_a_server_that_breaks_the_rules(words: bytes) -> None:
    class Server(Saying):
        pass

    Server.words = words
    peer, authenticator = sides(make=Server)
    with pytest.raises(EapFailed):
        log_in(peer, authenticator)
    assert not peer.succeeded


class Answering(PeapPeer):
    """A client that says what it likes in the tunnel, from the turn on."""

    words = b""

    async def _tunnelled(self, channel: Channel, plaintext: bytes, ask: Any) -> None:
        if plaintext:
            channel.write(self.words)


@pytest.mark.parametrize("words", [b"\2\0\0\x05\x21", b"\x1a", b"\3", b"\xfe\0\0", b"\1" + bytes(2000), b"\6x"])
def test_a_client_that_breaks_the_rules(words: bytes) -> None:
    class Client(Answering):
        pass

    Client.words = words
    client, server = client_end(), server_end()
    peer = EapPeer(asker(), b"x", [lambda: Client(client, USER, [mschapv2])])
    authenticator = EapAuthenticator(asker(), [lambda: PeapAuthenticator(server, [MsChapV2Authenticator])])
    with pytest.raises(IkewayError):
        log_in(peer, authenticator)
    assert isinstance(authenticator.error, MalformedEap), authenticator.error


def test_an_inner_method_that_hashes_the_identifier_gets_that_of_the_outer_packet() -> None:
    """[MS-PEAP] takes the header away: RFC 1994 hashes an identifier that only the outer packet still has."""
    seen: list[int] = []

    class Md5(Md5Peer):
        async def run(self, request: bytes, ask: Any) -> Any:
            seen.append(self.identifier)
            yield b"\x10" + bytes(16)

    class Server(Saying):
        words = b"\x04\x10" + bytes(16)

    peer, authenticator = sides(peers=[lambda: Md5(USER)], make=Server)
    with pytest.raises(IkewayError):
        log_in(peer, authenticator)
    assert seen and seen[0] > 3


@given(st.integers(1, 255), st.binary(max_size=40), st.integers(0, 255), st.sampled_from([1, 2]))
def test_headers_come_back(kind: int, data: bytes, identifier: int, code: int) -> None:
    packet = EapPacket(EapCode(code), identifier, kind, data)
    octets = encode_inner(packet)
    if kind != EXTENSIONS and kind in (1, 2, 3, 4) and octets[2:4] == len(octets).to_bytes(2):
        return  # looks like a header: no method's data does
    assert decode_inner(octets, EapCode(code), identifier) == packet


@given(st.lists(st.builds(Tlv, st.integers(0, 0x3FFF), st.binary(max_size=50), st.booleans()), max_size=10))
def test_tlvs_are_what_they_were(tlvs: list[Tlv]) -> None:
    assert decode_tlvs(b"".join(tlv.encode() for tlv in tlvs)) == tuple(tlvs)


@given(st.binary(max_size=120))
def test_garbage(octets: bytes) -> None:
    for decode in (decode_tlvs, Outcome.decode, lambda octets: decode_inner(octets, EapCode.REQUEST, 1)):
        try:
            decode(octets)
        except MalformedEap:
            pass


def test_a_binding() -> None:
    keys = CompoundKeys.derive(bytes(range(128)), b"inner" * 20)
    binding = keys.binding(b"n" * 32, is_response=True)
    assert Binding.decode(binding.tlv().value) == binding
    assert binding.tlv().encode()[:8].hex() == "000c003800000001"
    assert keys.proves(binding)
    assert not keys.proves(Binding(False, binding.nonce, binding.mac))
    assert not CompoundKeys.derive(bytes(range(128)), None).proves(binding)
    assert len(keys.msk()) == 64
    assert prf_plus(b"k", b"s", 128).startswith(prf_plus(b"k", b"s", 50))
    assert encode_extensions(EapCode.REQUEST, 7, result_tlv(Result.SUCCESS)).encode().hex() == "0107000b21800300020001"
    assert EapType.PEAP == 25


def test_no_method_at_all() -> None:
    with pytest.raises(ConfigError):
        PeapPeer(client_end(), USER, [])
    with pytest.raises(ConfigError):
        PeapAuthenticator(server_end(), [])
