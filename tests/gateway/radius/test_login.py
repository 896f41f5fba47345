"""Log-ins: EAP that is passed on, passwords, and what is made of the answers."""

from __future__ import annotations

from contextlib import ExitStack

import pytest

from ikeway.eap.packet import EapCode, EapPacket, EapType
from ikeway.eap.questions import Granted, PasswordCheck, Prompt, Refused
from ikeway.eap.relay import Accepted, Rejected, Relayed, RelayQuestion
from ikeway.errors import AuthenticationFailed, IkewayError
from ikeway.gateway.radius.attributes import MS_MPPE_RECV_KEY, MS_MPPE_SEND_KEY, Attr
from ikeway.gateway.radius.errors import RadiusUnavailable
from ikeway.gateway.radius.group import Group
from ikeway.gateway.radius.login import Logins
from tests.gateway.radius.fake import (
    ACCEPT,
    CHALLENGE,
    EAP_MESSAGE,
    REJECT,
    STATE,
    FakeServer,
    answer,
    hidden_key,
    sa,
    settings,
)

IDENTITY = EapPacket(EapCode.RESPONSE, 0, EapType.IDENTITY, b"alice").encode()
REQUEST = EapPacket(EapCode.REQUEST, 1, EapType.TLS, bytes(700)).encode()
SUCCESS = EapPacket(EapCode.SUCCESS, 1).encode()
FAILURE = EapPacket(EapCode.FAILURE, 1).encode()


class Stage:
    """Servers, and log-ins that they judge."""

    def __init__(self) -> None:
        self.stack, self.servers, self.grants = ExitStack(), [], []
        self.refusal: IkewayError | None = None

    async def start(self, *scripts, **changes):
        ports = []
        for script in scripts:
            server = FakeServer(script)
            ports.append(await server.start())
            self.stack.callback(server.close)
            self.servers.append(server)
        self.group = Group(settings(*ports, **changes))
        self.stack.callback(self.group.close)
        self.logins = Logins(self.group, self.settle)
        return self

    def settle(self, sa, grant) -> None:
        if self.refusal is not None:
            raise self.refusal
        self.grants.append(grant)

    def relay(self, packet=IDENTITY, state=None, identity=b"alice"):
        return self.logins.relay(RelayQuestion("corp", identity, packet, state), sa())

    def check(self, password, state=None, **options):
        return self.logins.check(PasswordCheck(b"alice", password, "EAP-GTC", state=state, **options), sa())


@pytest.fixture
async def stage():
    made = Stage()
    with made.stack:
        yield made


def eap(got):
    """An EAP server with one round; hands out keys of 32 octets."""
    if not got.all(STATE):
        pieces = [(EAP_MESSAGE, REQUEST[at : at + 253]) for at in range(0, len(REQUEST), 253)]
        return answer(got, CHALLENGE, [*pieces, (STATE, b"0x41"), (STATE, b"more")])
    keys = [(MS_MPPE_SEND_KEY, hidden_key(got, b"S" * 32)), (MS_MPPE_RECV_KEY, hidden_key(got, b"R" * 32, b"\x80\2"))]
    return answer(got, ACCEPT, [(EAP_MESSAGE, SUCCESS), *keys, (25, b"class"), (1, b"alice@corp")])


async def test_eap_goes_through(stage):
    await stage.start(eap)
    first = await stage.relay()
    assert isinstance(first, Relayed) and first.packet == REQUEST
    response = EapPacket(EapCode.RESPONSE, 1, EapType.TLS, bytes(600)).encode()
    last = await stage.relay(response, first.state)
    assert last == Accepted(SUCCESS, b"R" * 32 + b"S" * 32, b"alice@corp")
    begun, ended = stage.servers[0].requests
    assert begun.is_signed and ended.is_signed
    assert (begun.one(1), begun.all(EAP_MESSAGE), begun.all(STATE)) == (b"alice", [IDENTITY], [])
    assert b"".join(ended.all(EAP_MESSAGE)) == response and ended.all(STATE) == [b"0x41", b"more"]
    assert (ended.one(31), ended.one(30), ended.one(87)) == (b"198.51.100.9", b"192.0.2.1", b"people")
    assert ended.one(61) == b"\0\0\0\5" and int.from_bytes(ended.one(12)) > 1000
    (grant,) = stage.grants
    assert (grant.user, grant.classes, grant.server) == ("alice@corp", (b"class",), "corp")
    assert "R" * 32 not in repr(last)


async def test_a_login_stays_with_the_server_that_began_it(stage):
    await stage.start(lambda got: None, eap)
    first = await stage.relay()
    assert isinstance(first, Relayed)
    stage.servers[0].script = eap  # back again, but it knows nothing of this State
    stage.servers[0].requests.clear()
    assert isinstance(await stage.relay(IDENTITY, first.state), Accepted)
    assert not stage.servers[0].requests


async def test_when_that_server_dies_in_the_middle_the_login_fails_in_bounded_time(stage):
    await stage.start(eap, eap)
    first = await stage.relay()
    assert isinstance(first, Relayed)
    stage.servers[0].script = lambda got: None
    with pytest.raises(RadiusUnavailable):
        await stage.relay(IDENTITY, first.state)
    again = await stage.relay()  # the next one goes to the other
    assert isinstance(again, Relayed) and len(stage.servers[1].requests) == 1


async def test_a_refusal_brings_the_servers_words(stage):
    await stage.start(lambda got: answer(got, REJECT, [(EAP_MESSAGE, FAILURE), (18, b"locked")]))
    assert await stage.relay() == Rejected(FAILURE, "locked")
    assert not stage.grants


async def test_short_keys_are_filled_up_and_none_is_none(stage):
    def short(got):
        keys = [(MS_MPPE_SEND_KEY, hidden_key(got, b"S" * 16)), (MS_MPPE_RECV_KEY, hidden_key(got, b"R" * 16))]
        return answer(got, ACCEPT, [(EAP_MESSAGE, SUCCESS), *keys])

    await stage.start(short)
    assert await stage.relay() == Accepted(SUCCESS, b"R" * 16 + b"S" * 16 + bytes(32), b"alice")
    stage.servers[0].script = lambda got: answer(got, ACCEPT, [(EAP_MESSAGE, SUCCESS)])
    assert await stage.relay() == Accepted(SUCCESS, None, b"alice")


@pytest.mark.parametrize(
    "keys",
    [
        lambda got: [(MS_MPPE_SEND_KEY, hidden_key(got, b"S" * 32))],
        lambda got: [(MS_MPPE_SEND_KEY, hidden_key(got, b"S" * 8)), (MS_MPPE_RECV_KEY, hidden_key(got, b"R" * 8))],
        lambda got: [(MS_MPPE_SEND_KEY, b"short"), (MS_MPPE_RECV_KEY, b"short")],
    ],
)
async def test_keys_of_no_use_let_nobody_in(stage, keys):
    await stage.start(lambda got: answer(got, ACCEPT, [(EAP_MESSAGE, SUCCESS), *keys(got)]))
    with pytest.raises(AuthenticationFailed, match="keys"):
        await stage.relay()
    assert not stage.grants


async def test_whom_no_connection_takes_is_refused_before_the_client_hears_of_success(stage):
    await stage.start(lambda got: answer(got, ACCEPT, [(EAP_MESSAGE, SUCCESS)]))
    stage.refusal = AuthenticationFailed("no connection for this group")
    with pytest.raises(AuthenticationFailed, match="group"):
        await stage.relay()


async def test_a_malformed_limit_lets_nobody_in(stage):
    await stage.start(lambda got: answer(got, ACCEPT, [(EAP_MESSAGE, SUCCESS), (27, b"\1")]))
    with pytest.raises(IkewayError, match="Session-Timeout"):
        await stage.relay()
    assert not stage.grants


async def test_names_that_radius_cannot_carry(stage):
    await stage.start(eap)
    with pytest.raises(AuthenticationFailed, match="longer"):
        await stage.relay(identity=b"a" * 254)
    assert not stage.servers[0].requests


async def test_passwords_and_second_factors(stage):
    def mfa(got):
        if got.all(STATE):
            return answer(got, ACCEPT if got.password() == b"123456" else REJECT)
        if got.password() != b"secret":
            return answer(got, REJECT, [(18, b"bad password")])
        return answer(got, CHALLENGE, [(18, b"Enter your "), (18, b"code"), (STATE, b"s")])

    await stage.start(mfa)
    asked = await stage.check(b"secret")
    assert isinstance(asked, Prompt) and asked.words == "Enter your code"
    assert isinstance(await stage.check(b"123456", asked.state), Granted)
    assert len(stage.grants) == 1
    wrong = await stage.check(b"guess")
    assert isinstance(wrong, Refused) and "bad password" in wrong.reason
    assert isinstance(await stage.check(b"654321", asked.state), Refused)
    assert isinstance(await stage.check(b"secret", may_prompt=False), Refused)
    assert isinstance(await stage.check(b"x" * 129), Refused)
    assert len(stage.grants) == 1
    assert all(got.is_signed for got in stage.servers[0].requests)
    assert stage.servers[0].requests[0].one(Attr.USER_NAME) == b"alice"
