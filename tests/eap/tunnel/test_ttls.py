"""EAP-TTLS: every way to log in, with both versions of TLS, both roles against each other."""

from collections.abc import Callable
from typing import Any, ClassVar

import pytest

from ikeway.auth.errors import UntrustedCertificate
from ikeway.auth.path import Role
from ikeway.eap.errors import (
    EapFailed,
    MalformedEap,
    NoCommonMethod,
    PasswordExpired,
    ServerNotAuthentic,
    WrongPassword,
)
from ikeway.eap.gtc import GtcAuthenticator, GtcPeer
from ikeway.eap.md5 import Md5Authenticator, Md5Peer
from ikeway.eap.mschapv2 import MsChapV2Authenticator, MsChapV2Peer
from ikeway.eap.questions import MustChange, PasswordQuestion, SecretQuestion
from ikeway.eap.session import EapAuthenticator, EapPeer
from ikeway.eap.tls import EapTlsAuthenticator, EapTlsPeer
from ikeway.eap.ttls import TtlsAuthenticator, TtlsPeer, TtlsWays
from ikeway.eap.ttls_inner import EapInTunnel, InnerPeer, MsChapV2InTunnel, PapPeer
from ikeway.eap.tunnel.avp import MICROSOFT, Avp, AvpCode, MicrosoftAvp, encode_avps
from ikeway.eap.tunnel.channel import TlsVersion
from ikeway.errors import ConfigError, IkewayError
from tests.auth.pki import root
from tests.eap.conversations import Asker, log_in
from tests.eap.tunnel.parties import (
    PASSWORD,
    SERVER,
    VERSIONS,
    answers,
    asker,
    client_end,
    client_node,
    server_end,
    trust,
)

USER = b"alice"
InnerFactory = Callable[[], InnerPeer]


def inner_tls() -> EapInTunnel:
    end = client_end(node=client_node())
    return EapInTunnel(b"alice@example.org", [lambda: EapTlsPeer(end, b"alice@example.org")])


INNER: dict[str, tuple[InnerFactory, Callable[[], TtlsWays]]] = {
    "pap": (lambda: PapPeer(USER), lambda: TtlsWays(pap=True)),
    "mschapv2": (lambda: MsChapV2InTunnel(USER), lambda: TtlsWays(mschapv2=True)),
    "eap-mschapv2": (
        lambda: EapInTunnel(USER, [lambda: MsChapV2Peer(USER)]),
        lambda: TtlsWays(eap=[MsChapV2Authenticator]),
    ),
    "eap-gtc": (lambda: EapInTunnel(USER, [lambda: GtcPeer(USER)]), lambda: TtlsWays(eap=[GtcAuthenticator])),
    "eap-md5": (lambda: EapInTunnel(USER, [lambda: Md5Peer(USER)]), lambda: TtlsWays(eap=[Md5Authenticator])),
    "eap-nak": (
        lambda: EapInTunnel(USER, [lambda: GtcPeer(USER)]),
        lambda: TtlsWays(eap=[MsChapV2Authenticator, GtcAuthenticator]),
    ),
    "eap-tls": (
        inner_tls,
        lambda: TtlsWays(eap=[lambda: EapTlsAuthenticator(server_end(judge=trust(Role.INITIATOR)))]),
    ),
}


def sides(
    inner: InnerFactory, ways: TtlsWays, version: TlsVersion | None = None, *, ask: Asker | None = None, **options: Any
) -> tuple[EapPeer, EapAuthenticator]:
    client, server = client_end(version), options.pop("server", None) or server_end()
    ask = ask or asker()
    peer = EapPeer(ask, b"anonymous@example.org", [lambda: TtlsPeer(client, USER, inner(), **options)])
    return peer, EapAuthenticator(ask, [lambda: TtlsAuthenticator(server, ways, **options)])


def refused(peer: EapPeer, authenticator: EapAuthenticator) -> IkewayError:
    with pytest.raises(IkewayError) as caught:
        log_in(peer, authenticator)
    assert authenticator.failed and not authenticator.succeeded
    assert peer.msk is None and authenticator.msk is None
    return caught.value


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("way", INNER)
def test_every_way_to_log_in(way: str, version: TlsVersion) -> None:
    inner, ways = INNER[way]
    peer, authenticator = sides(inner, ways(), version)
    packets = log_in(peer, authenticator)
    assert peer.succeeded and authenticator.succeeded
    assert peer.msk == authenticator.msk and len(peer.msk or b"") == 64
    assert authenticator.identity == (b"alice@example.org" if way == "eap-tls" else USER)
    assert peer.mutual
    assert not any(b"alice" in packet or PASSWORD.encode() in packet for packet in packets)


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("way", [way for way in INNER if way != "eap-tls"])
def test_a_wrong_password(way: str, version: TlsVersion) -> None:
    inner, ways = INNER[way]
    peer, authenticator = sides(inner, ways(), version, ask=asker("wrong"))
    error = refused(peer, authenticator)
    assert isinstance(error, WrongPassword), error
    assert isinstance(authenticator.error, WrongPassword)


@pytest.mark.parametrize("way", ["pap", "mschapv2", "eap-mschapv2"])
def test_an_unknown_user_is_told_nothing_else(way: str) -> None:
    _, ways = INNER[way]
    mallory = b"mallory"
    inner: dict[str, InnerFactory] = {
        "pap": lambda: PapPeer(mallory),
        "mschapv2": lambda: MsChapV2InTunnel(mallory),
        "eap-mschapv2": lambda: EapInTunnel(mallory, [lambda: MsChapV2Peer(mallory)]),
    }
    known = refused(*sides(INNER[way][0], ways(), ask=asker("wrong")))
    unknown = refused(*sides(inner[way], ways()))
    assert (type(known), known.reason) == (type(unknown), unknown.reason)


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("way", INNER)
def test_no_password_for_a_server_that_is_not_the_right_one(way: str, version: TlsVersion) -> None:
    inner, ways = INNER[way]
    ask = asker()
    impostor = server_end(node=root("Impostor").issue("s", alternatives=(f"dns:{SERVER}",)))
    peer, authenticator = sides(inner, ways(), version, ask=ask, server=impostor)
    assert isinstance(refused(peer, authenticator), UntrustedCertificate)
    assert not any(isinstance(question, PasswordQuestion) for question in ask.questions)


@pytest.mark.parametrize(("client", "server"), [("pap", "mschapv2"), ("mschapv2", "pap"), ("eap-gtc", "pap")])
def test_a_way_that_the_gateway_does_not_take(client: str, server: str) -> None:
    peer, authenticator = sides(INNER[client][0], INNER[server][1]())
    refused(peer, authenticator)
    assert isinstance(authenticator.error, NoCommonMethod) and authenticator.error.remedy


def test_methods_in_the_tunnel_that_do_not_meet() -> None:
    inner = EapInTunnel(USER, [lambda: GtcPeer(USER)])
    peer, authenticator = sides(lambda: inner, TtlsWays(eap=[MsChapV2Authenticator]))
    refused(peer, authenticator)
    assert isinstance(authenticator.error, NoCommonMethod)


def test_a_password_that_is_to_be_changed() -> None:
    def answer(question: Any) -> Any:
        return MustChange(PASSWORD) if isinstance(question, SecretQuestion) else answers()(question)

    peer, authenticator = sides(*_built("mschapv2"), ask=Asker(answer))
    refused(peer, authenticator)
    assert isinstance(authenticator.error, PasswordExpired)


def _built(way: str) -> tuple[InnerFactory, TtlsWays]:
    return INNER[way][0], INNER[way][1]()


@pytest.mark.parametrize("way", ["pap", "mschapv2", "eap-gtc"])
def test_no_answer_of_the_user(way: str) -> None:
    def answer(question: Any) -> Any:
        return None if isinstance(question, PasswordQuestion) else answers()(question)

    error = refused(*sides(*_built(way), ask=Asker(answer)))
    assert "no password was given" in error.reason


class Says(InnerPeer):
    """A client that says something of its own."""

    name = "says"

    def __init__(self, *turns: list[Avp]) -> None:
        self._turns = turns

    async def talk(self, channel: Any, ask: Any) -> Any:
        for turn in self._turns:
            yield turn


RESPONSE = Avp(MicrosoftAvp.CHAP2_RESPONSE, bytes(50), MICROSOFT)


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize(
    "said",
    [
        [Avp(AvpCode.USER_PASSWORD, b"x")],
        [Avp(AvpCode.USER_NAME, bytes(2000)), Avp(AvpCode.USER_PASSWORD, b"x")],
        [Avp(AvpCode.USER_NAME, b"alice"), RESPONSE],
        [Avp(AvpCode.USER_NAME, b"alice"), Avp(MicrosoftAvp.CHAP_CHALLENGE, bytes(16), MICROSOFT), RESPONSE],
        [Avp(AvpCode.EAP_MESSAGE, b"")],
        [Avp(AvpCode.EAP_MESSAGE, b"\2\0\0\4")],
        [Avp(AvpCode.EAP_MESSAGE, b"\1\0\0\5\1")],
        [Avp(AvpCode.EAP_MESSAGE, b"\2\0\xff\xff\1")],
        [Avp(4711, b"")],
    ],
)
def test_a_client_that_breaks_the_rules(said: list[Avp], version: TlsVersion) -> None:
    ways = TtlsWays(pap=True, mschapv2=True, eap=[MsChapV2Authenticator])
    peer, authenticator = sides(lambda: Says(said), ways, version)
    refused(peer, authenticator)
    assert isinstance(authenticator.error, MalformedEap), authenticator.error


def test_a_client_that_says_nothing_for_ever() -> None:
    peer, authenticator = sides(lambda: Says(*([[]] * 100)), TtlsWays(pap=True))
    with pytest.raises(EapFailed, match="end"):
        log_in(peer, authenticator)
    assert not authenticator.succeeded


class Impostor(TtlsAuthenticator):
    """A server that says what it likes when the client has spoken."""

    reply: ClassVar[list[Avp]] = []

    async def _tunnelled(self, channel: Any, plaintext: bytes, ask: Any) -> None:
        if plaintext:
            channel.write(encode_avps(self.reply))


@pytest.mark.parametrize(
    ("way", "reply", "expected"),
    [
        ("mschapv2", [Avp(MicrosoftAvp.CHAP2_SUCCESS, b"\0S=" + b"0" * 40, MICROSOFT)], ServerNotAuthentic),
        ("mschapv2", [Avp(AvpCode.REPLY_MESSAGE, b"welcome")], ServerNotAuthentic),
        ("mschapv2", [Avp(MicrosoftAvp.CHAP_ERROR, b"\0E=691 R=0 V=3 M=no", MICROSOFT)], WrongPassword),
        ("mschapv2", [Avp(MicrosoftAvp.CHAP_ERROR, b"\0E=648 R=0 V=3 M=no", MICROSOFT)], PasswordExpired),
        ("mschapv2", [Avp(MicrosoftAvp.CHAP_ERROR, b"", MICROSOFT)], WrongPassword),
        ("mschapv2", [Avp(MicrosoftAvp.CHAP_ERROR, b"Failed", MICROSOFT)], WrongPassword),
        ("pap", [Avp(4711, b"")], MalformedEap),
        ("eap-gtc", [Avp(AvpCode.EAP_MESSAGE, b"\1\1")], MalformedEap),
        ("eap-gtc", [Avp(AvpCode.EAP_MESSAGE, b"\3\1\0\4")], EapFailed),
    ],
)
def test_a_server_that_breaks_the_rules(way: str, reply: list[Avp], expected: type[IkewayError]) -> None:
    ask, client, server = asker(), client_end(), server_end()
    inner, ways = INNER[way]

    class Server(Impostor):
        pass

    Server.reply = reply
    peer = EapPeer(ask, b"x", [lambda: TtlsPeer(client, USER, inner())])
    authenticator = EapAuthenticator(ask, [lambda: Server(server, ways())])
    with pytest.raises(expected):
        log_in(peer, authenticator)


def test_small_fragments() -> None:
    peer, authenticator = sides(*_built("eap-mschapv2"), fragment=256)
    log_in(peer, authenticator)
    assert peer.msk == authenticator.msk is not None


def test_no_way_at_all() -> None:
    with pytest.raises(ConfigError):
        TtlsWays()
    assert str(TtlsWays(pap=True, eap=[GtcAuthenticator])) == "PAP, EAP-GTC"


def test_why_a_client_has_closed_the_tunnel() -> None:
    ask, client, server = asker("wrong"), client_end(), server_end()
    turns = 0

    class Client(TtlsPeer):
        async def _tunnelled(self, channel: Any, plaintext: bytes, ask: Any) -> None:
            nonlocal turns
            turns += bool(plaintext)
            if turns == 2:  # the challenge, and then the server's Failure
                raise EapFailed("it leaves")
            await super()._tunnelled(channel, plaintext, ask)

    inner = EapInTunnel(USER, [lambda: MsChapV2Peer(USER)])
    peer = EapPeer(ask, b"x", [lambda: Client(client, USER, inner)])
    authenticator = EapAuthenticator(ask, [lambda: TtlsAuthenticator(server, TtlsWays(eap=[MsChapV2Authenticator]))])
    with pytest.raises(EapFailed, match="it leaves"):
        log_in(peer, authenticator)
    assert isinstance(authenticator.error, WrongPassword)
