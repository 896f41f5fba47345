"""Sessions of EAP-TTLS and PEAP that are resumed: who may, for how long, and what the other side may make of it."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

import pytest

from ikeway.eap.errors import BindingFailed, EapFailed, WrongPassword
from ikeway.eap.method import EapAuthenticatorMethod, EapPeerMethod
from ikeway.eap.mschapv2 import MsChapV2Authenticator, MsChapV2Peer
from ikeway.eap.packet import EapCode, EapPacket, EapType
from ikeway.eap.peap import PeapAuthenticator, PeapPeer
from ikeway.eap.questions import PasswordQuestion, ResumptionQuestion
from ikeway.eap.session import EapAuthenticator, EapPeer
from ikeway.eap.ttls import TtlsAuthenticator, TtlsPeer, TtlsWays
from ikeway.eap.ttls_inner import EapInTunnel, InnerPeer, MsChapV2InTunnel, PapPeer
from ikeway.eap.tunnel.authenticator import TlsAuthenticator
from ikeway.eap.tunnel.channel import COMMITMENT, Channel, Endpoint, TlsVersion
from ikeway.eap.tunnel.extensions import CompoundKeys, Result, encode_extensions, encode_inner, result_tlv
from ikeway.eap.tunnel.sessions import LIFETIME, MAX_LOGINS, ProvenLogin, ProvenLogins, SessionCache
from tests.auth.pki import NOW
from tests.eap.conversations import Asker, finish, log_in
from tests.eap.tunnel.parties import PASSWORD, VERSIONS, answers, client_end, server_end

USER = b"alice"
WAYS = TtlsWays(pap=True, mschapv2=True, eap=[MsChapV2Authenticator])
INNER: dict[str, Callable[[], InnerPeer]] = {
    "ttls-pap": lambda: PapPeer(USER),
    "ttls-mschapv2": lambda: MsChapV2InTunnel(USER),
    "ttls-eap": lambda: EapInTunnel(USER, [lambda: MsChapV2Peer(USER)]),
}
METHODS = (*INNER, "peap")


@dataclass
class Stage:
    """A client and a server that live for several log-ins; `mark` is what the gateway says of its user."""

    way: str
    version: TlsVersion
    binds: bool = False
    mark: bytes | None = b"as before"
    now: datetime = NOW
    password: str = PASSWORD
    sessions: SessionCache = field(default_factory=SessionCache)
    logins: ProvenLogins | None = field(default_factory=ProvenLogins)

    def __post_init__(self) -> None:
        self.client = client_end(self.version)
        self.server: Endpoint = server_end(logins=self.logins)
        self.asked = self._asker()
        self.packets: list[bytes] = []

    def peer_method(self) -> EapPeerMethod:
        if self.way == "peap":
            inner = [lambda: MsChapV2Peer(USER)]
            return PeapPeer(self.client, USER, inner, require_binding=self.binds, sessions=self.sessions)
        return TtlsPeer(self.client, USER, INNER[self.way](), sessions=self.sessions)

    def server_method(self) -> EapAuthenticatorMethod:
        if self.way == "peap":
            return PeapAuthenticator(self.server, [MsChapV2Authenticator], require_binding=self.binds)
        return TtlsAuthenticator(self.server, WAYS)

    def sides(self) -> tuple[EapPeer, EapAuthenticator]:
        self.asked = self._asker()
        return EapPeer(self.asked, b"anonymous", [self.peer_method]), EapAuthenticator(self.asked, [self.server_method])

    def log_in(self) -> bytes:
        """Both agree; returns the key. The user's side is gone afterwards, as after a disconnection."""
        peer, authenticator = self.sides()
        self.packets = log_in(peer, authenticator)
        assert peer.msk is not None and peer.msk == authenticator.msk
        assert authenticator.identity == USER
        key = peer.msk
        del peer, authenticator
        gc.collect()
        return key

    @property
    def was_full(self) -> bool:
        """True when the user was asked for the password."""
        return any(isinstance(each, PasswordQuestion) for each in self.asked.questions)

    def _asker(self) -> Asker:
        usual = answers(self.password, self.now)
        return Asker(lambda question: self.mark if isinstance(question, ResumptionQuestion) else usual(question))


@pytest.fixture(params=[(way, version) for way in METHODS for version in VERSIONS], ids=str)
def stage(request: pytest.FixtureRequest) -> Iterator[Stage]:
    yield Stage(*request.param)


def test_later_log_ins_need_no_password(stage: Stage) -> None:
    keys, full, octets = [], [], []
    for _ in range(3):
        keys.append(stage.log_in())
        full.append(stage.was_full)
        octets.append(sum(map(len, stage.packets)))
    assert full == [True, False, False]
    assert len(set(keys)) == 3
    assert max(octets[1:]) < octets[0] - 300  # no certificates
    assert [each.method for each in stage.asked.questions if isinstance(each, ResumptionQuestion)]


@pytest.mark.parametrize("mark", [b"another password", None])
def test_a_user_of_whom_something_has_changed_logs_in_anew(stage: Stage, mark: bytes | None) -> None:
    stage.log_in()
    stage.mark = mark
    stage.log_in()
    assert stage.was_full


def test_a_user_who_may_not_is_not_remembered(stage: Stage) -> None:
    stage.mark = None
    for _ in range(2):
        stage.log_in()
        assert stage.was_full
    assert stage.logins is not None and len(stage.logins) == 0


def test_a_session_stands_for_a_log_in_for_an_hour_and_is_not_prolonged(stage: Stage) -> None:
    stage.log_in()
    stage.now = NOW + LIFETIME - timedelta(minutes=1)
    stage.log_in()
    assert not stage.was_full
    stage.now = NOW + LIFETIME + timedelta(minutes=1)
    stage.log_in()
    assert stage.was_full


def test_a_gateway_that_was_restarted_or_does_not_resume(stage: Stage) -> None:
    for logins in (ProvenLogins(), None):
        stage.log_in()
        stage.server = server_end(logins=logins)
        stage.log_in()
        assert stage.was_full


def test_the_session_of_a_log_in_that_failed_is_worth_nothing(stage: Stage) -> None:
    """Its ticket came before the password was judged: an attacker keeps it, where our client would not."""
    stage.password = "wrong"
    peer, authenticator = stage.sides()
    method: Any = None

    def remembered() -> EapPeerMethod:
        nonlocal method
        method = stage.peer_method()
        return method

    peer = EapPeer(stage.asked, b"anonymous", [remembered])
    with pytest.raises((WrongPassword, EapFailed)):
        log_in(peer, authenticator)
    assert len(stage.sessions) == 0
    channel = method._channel
    stage.sessions.keep(method._session_key, channel.finish(), channel.peer_chain, NOW)
    stage.password = PASSWORD
    stage.log_in()
    assert stage.was_full
    assert stage.logins is not None and len(stage.logins) == 1


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize(("first", "then"), [("ttls-pap", "peap"), ("peap", "ttls-mschapv2")])
def test_a_session_stands_for_a_log_in_by_its_own_method_alone(first: str, then: str, version: TlsVersion) -> None:
    """A connection that takes both has one end of TLS for them, and PEAP may want a cryptobinding that TTLS has not."""
    before, after = Stage(first, version), Stage(then, version, binds=True)
    before.log_in()
    after.client, after.server = before.client, before.server
    ((_, kept),) = before.sessions._sessions.items()
    after.sessions.keep(after.peer_method()._session_key, kept.session, kept.chain, NOW)  # type: ignore[attr-defined]
    after.log_in()
    assert after.was_full


def test_what_comes_between_hello_and_finished_ends_the_belief_in_a_session(stage: Stage) -> None:
    """After a HelloRetryRequest a second ClientHello may come without the session of the first, which somebody else may
    have said. OpenSSL knows; who takes its word for the first one must not keep it for the second."""
    stage.log_in()
    peer, authenticator = stage.sides()
    request = finish(authenticator.start())
    while True:
        response = finish(peer.receive(request)) or b""
        method, packet = authenticator._method, EapPacket.decode(response)
        if isinstance(method, TlsAuthenticator) and method._resumed is not None and len(packet.data) > 1:
            break
        request = finish(authenticator.receive(response))
    flags, finished = packet.data[:1], packet.data[1:]
    for part in (finished[:20], finished[20:]):
        packet = EapPacket(EapCode.RESPONSE, EapPacket.decode(request).identifier, packet.type, flags + part)
        request = finish(authenticator.receive(packet.encode()))
    assert method._resumed is None and not authenticator.succeeded
    while (last := finish(peer.receive(request))) is not None:
        request = finish(authenticator.receive(last))
    assert stage.was_full and peer.msk == authenticator.msk is not None


def test_a_server_that_wants_a_log_in_all_the_same_gets_one(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """RFC 9427 section 4: what is begun in the tunnel is not skipped."""
    stage.log_in()
    first = len(b"".join(stage.packets))

    async def look(*_: object) -> None:
        """The tunnel is resumed, and this server does not care."""

    monkeypatch.setattr(TlsAuthenticator, "_look_whose", look)
    stage.log_in()
    assert stage.was_full
    assert len(b"".join(stage.packets)) < first - 300  # no certificate; a ticket, though


@pytest.mark.parametrize("way", ["ttls-pap", "peap"])
def test_with_tls_1_3_the_server_has_to_commit_itself(way: str) -> None:
    """An EAP-Success that anybody may have sent is refused before the octet 0x00 has come (RFC 9190 section 2.5)."""
    stage = Stage(way, TlsVersion.TLS_1_3)
    stage.log_in()
    peer, authenticator = stage.sides()
    request = finish(authenticator.start())
    for _ in range(3):  # identity, Start, ClientHello: the next would be our Finished
        response = finish(peer.receive(request))
        assert response is not None
        request = finish(authenticator.receive(response))
    finish(peer.receive(request))
    with pytest.raises(EapFailed, match="before the method was at its end"):
        finish(peer.receive(EapPacket(EapCode.SUCCESS, request[1]).encode()))


SUCCESS = encode_inner(encode_extensions(EapCode.REQUEST, 7, result_tlv(Result.SUCCESS)))
BEGIN, NOTHING = bytes((EapType.IDENTITY,)), b""  # of PEAP, of TTLS: the log-in in the tunnel is to begin


@pytest.mark.parametrize(
    ("way", "version", "said"),
    [
        ("ttls-eap", TlsVersion.TLS_1_2, [COMMITMENT]),
        ("ttls-eap", TlsVersion.TLS_1_2, [NOTHING]),
        ("ttls-eap", TlsVersion.TLS_1_3, []),
        ("ttls-eap", TlsVersion.TLS_1_3, [NOTHING, COMMITMENT]),
        ("ttls-eap", TlsVersion.TLS_1_3, [COMMITMENT, COMMITMENT]),
        ("ttls-eap", TlsVersion.TLS_1_3, [COMMITMENT * 2]),
        ("peap", TlsVersion.TLS_1_2, [COMMITMENT]),
        ("peap", TlsVersion.TLS_1_2, [BEGIN]),
        ("peap", TlsVersion.TLS_1_2, [BEGIN, SUCCESS]),
        ("peap", TlsVersion.TLS_1_3, []),
        ("peap", TlsVersion.TLS_1_3, [NOTHING]),
        ("peap", TlsVersion.TLS_1_3, [BEGIN, COMMITMENT]),
        ("peap", TlsVersion.TLS_1_3, [COMMITMENT, BEGIN]),
        ("peap", TlsVersion.TLS_1_3, [COMMITMENT, BEGIN, SUCCESS]),
        ("peap", TlsVersion.TLS_1_3, [SUCCESS, BEGIN]),
    ],
)
def test_a_server_that_says_the_right_thing_at_the_wrong_time(way: str, version: TlsVersion, said: list[bytes]) -> None:
    """And then declares success. It has the session, so it is the right server: but what was begun is not skipped."""
    stage = Stage(way, version)
    stage.log_in()
    right = stage.server_method()
    words = [*said, None]

    class Confused(TlsAuthenticator):
        type, name, eap_type = right.type, right.name, right.eap_type  # type: ignore[attr-defined]

        def _say(self, channel: Channel) -> None:
            word = words.pop(0)
            self._done = word is None
            if word:
                channel.write(word)

        def _skip(self, channel: Channel, keys: object, login: object) -> None:
            self._say(channel)

        async def _opened(self, channel: Channel, keys: object, identity: bytes, ask: object) -> None:
            raise AssertionError("the session was not resumed")

        async def _tunnelled(self, channel: Channel, plaintext: bytes, ask: object) -> None:
            self._say(channel)

    peer, _ = stage.sides()
    with pytest.raises(EapFailed):
        log_in(peer, EapAuthenticator(stage.asked, [lambda: Confused(stage.server)]))
    assert not peer.succeeded and peer.msk is None


@pytest.mark.parametrize("version", VERSIONS)
def test_cryptobinding_of_a_session(version: TlsVersion, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its keys are the tunnel's own then ([MS-PEAP] section 3.1.5.5.2.2)."""
    stage = Stage("peap", version, binds=True)
    stage.log_in()
    stage.log_in()
    assert not stage.was_full
    right = CompoundKeys.of_tunnel
    calls = 0

    def wrong_once(material: bytes) -> CompoundKeys:
        nonlocal calls
        calls += 1
        return right(material if calls > 1 else bytes(len(material)))

    monkeypatch.setattr(CompoundKeys, "of_tunnel", wrong_once)
    peer, authenticator = stage.sides()
    with pytest.raises(BindingFailed):
        log_in(peer, authenticator)
    assert not authenticator.succeeded and authenticator.msk is None
    stage.log_in()  # the session is not tried a second time
    assert stage.was_full


def test_logins_are_bounded() -> None:
    logins = ProvenLogins()
    for index in range(MAX_LOGINS + 10):
        logins.keep(index.to_bytes(4), ProvenLogin(EapType.TTLS, USER, b"", NOW + LIFETIME))
    assert len(logins) == MAX_LOGINS
    assert logins.find((9).to_bytes(4), NOW) is None
    assert logins.find((10).to_bytes(4), NOW) is not None
    assert logins.find((10).to_bytes(4), NOW + LIFETIME) is None
