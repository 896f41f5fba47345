"""The relay to a server elsewhere: what it passes on, and what it refuses by itself."""

from __future__ import annotations

from collections.abc import Awaitable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ikeway.eap.authenticator import Authenticator
from ikeway.eap.packet import EapCode, EapPacket, EapType
from ikeway.eap.relay import Accepted, EapRelay, Rejected, RelayAnswer, Relayed, RelayQuestion
from ikeway.errors import IkewayError

MD5 = EapPacket(EapCode.REQUEST, 7, EapType.MD5_CHALLENGE, bytes(17)).encode()
TLS = EapPacket(EapCode.REQUEST, 8, EapType.TLS, b"\x20").encode()
SUCCESS = EapPacket(EapCode.SUCCESS, 9).encode()
KEY = bytes(range(64))

Answer = RelayAnswer | IkewayError


class Server:
    """Answers what it was given, in turn, and remembers what it was asked."""

    def __init__(self, *answers: Answer) -> None:
        self.answers, self.asked = list(answers), []

    def __call__(self, question: RelayQuestion) -> Awaitable[RelayAnswer]:
        self.asked.append(question)
        return self._answer(self.answers.pop(0))

    async def _answer(self, answer: Answer) -> RelayAnswer:
        if isinstance(answer, IkewayError):
            raise answer
        return answer


def relay(*answers: Answer) -> tuple[EapRelay, Server]:
    server = Server(*answers)
    return EapRelay(server, "corp"), server  # type: ignore[arg-type]


def response(to: bytes, kind: EapType, data: bytes = b"") -> bytes:
    return EapPacket(EapCode.RESPONSE, to[1], kind, data).encode()


async def identified(made: EapRelay, name: bytes = b"alice") -> bytes:
    return await made.receive(response(await made.start(), EapType.IDENTITY, name))


async def test_passes_everything_on_and_takes_the_key() -> None:
    made, server = relay(Relayed(MD5, "s1"), Relayed(TLS, "s2"), Accepted(SUCCESS, KEY))
    checked: Authenticator = made
    first = await identified(made)
    assert first == MD5
    nak = response(MD5, EapType.NAK, bytes([EapType.TLS]))
    assert await made.receive(nak) == TLS
    answer = response(TLS, EapType.TLS, b"\x80hello")
    assert checked.msk is None
    assert await made.receive(answer) == SUCCESS
    assert (checked.succeeded, checked.msk, checked.identity, checked.method) == (True, KEY, b"alice", "EAP-TLS")
    assert [(one.response, one.state) for one in server.asked] == [
        (response(b"\1\0", EapType.IDENTITY, b"alice"), None),
        (nak, "s1"),
        (answer, "s2"),
    ]
    assert all((one.server, one.identity) == ("corp", b"alice") for one in server.asked)


async def test_octets_behind_a_packet_are_not_passed_on() -> None:
    made, server = relay(Relayed(MD5, None))
    padded = response(await made.start(), EapType.IDENTITY, b"alice") + b"padding"
    await made.receive(padded)
    assert server.asked[0].response == padded[: -len(b"padding")]


async def test_a_refusal_has_the_servers_words_for_the_log_only() -> None:
    made, _ = relay(Rejected(b"", "account locked"))
    last = EapPacket.decode(await identified(made))
    assert last.code is EapCode.FAILURE and made.failed and not made.succeeded and made.msk is None
    assert "account locked" in made.reason and "alice" in made.reason


async def test_a_server_that_is_silent_fails_the_login() -> None:
    made, _ = relay(IkewayError("no RADIUS server answers"))
    assert EapPacket.decode(await identified(made)).code is EapCode.FAILURE
    assert made.reason == "no RADIUS server answers"
    assert EapPacket.decode(await made.receive(response(MD5, EapType.MD5_CHALLENGE))).code is EapCode.FAILURE


@pytest.mark.parametrize(
    "packet",
    [b"", b"\1\2\0", SUCCESS, response(MD5, EapType.MD5_CHALLENGE), b"\1\2\0\4", b"\1\2\xff\xff\4"],
)
async def test_a_server_that_answers_nonsense_is_named(packet: bytes) -> None:
    made, _ = relay(Relayed(packet))
    assert EapPacket.decode(await identified(made)).code is EapCode.FAILURE
    assert "RADIUS server" in made.reason


async def test_success_must_not_come_with_a_request() -> None:
    made, _ = relay(Accepted(MD5, KEY))
    assert EapPacket.decode(await identified(made)).code is EapCode.FAILURE and not made.succeeded


async def test_a_server_may_leave_out_the_last_packet() -> None:
    made, _ = relay(Accepted(b"", None, b"bob"))
    assert EapPacket.decode(await identified(made)).code is EapCode.SUCCESS
    assert (made.identity, made.msk) == (b"bob", None)


@pytest.mark.parametrize("name", [b"", b"\0options", bytes(1025)])
async def test_an_identity_of_no_use_never_reaches_the_server(name: bytes) -> None:
    made, server = relay()
    assert EapPacket.decode(await identified(made, name)).code is EapCode.FAILURE
    assert not server.asked


async def test_only_answers_to_the_request_are_passed_on() -> None:
    made, server = relay(Relayed(MD5))
    await identified(made)
    wrong = EapPacket(EapCode.RESPONSE, 6, EapType.MD5_CHALLENGE).encode()
    assert EapPacket.decode(await made.receive(wrong)).code is EapCode.FAILURE
    assert len(server.asked) == 1 and made.failed


async def test_it_ends() -> None:
    made, _ = relay(*(Relayed(MD5) for _ in range(100)))
    await identified(made)
    rounds = 0
    while not made.failed:
        await made.receive(response(MD5, EapType.MD5_CHALLENGE))
        rounds += 1
    assert rounds < 80 and "end" in made.reason


async def test_what_is_too_long_is_refused() -> None:
    made, server = relay(Relayed(MD5))
    await identified(made)
    await made.receive(response(MD5, EapType.MD5_CHALLENGE, bytes(40000)))
    assert made.failed and len(server.asked) == 1


async def test_eap_alone_lets_the_peer_decline_what_proves_nobody() -> None:
    made, _ = relay(Relayed(MD5), Relayed(TLS), Accepted(SUCCESS, KEY))
    assert made.require_mutual()
    await identified(made)
    await made.receive(response(MD5, EapType.NAK, bytes([EapType.TLS])))
    assert await made.receive(response(TLS, EapType.TLS)) == SUCCESS
    assert made.succeeded


async def test_eap_alone_lets_no_other_method_run() -> None:
    made, server = relay(Relayed(MD5), Accepted(SUCCESS, KEY))
    made.require_mutual()
    await identified(made)
    assert EapPacket.decode(await made.receive(response(MD5, EapType.MD5_CHALLENGE, bytes(17)))).code is EapCode.FAILURE
    assert len(server.asked) == 1 and "5998" in made.reason


@pytest.mark.parametrize("answers", [(Accepted(SUCCESS, KEY),), (Relayed(TLS), Accepted(SUCCESS, None))])
async def test_eap_alone_needs_a_method_with_a_key(answers: tuple[Answer, ...]) -> None:
    made, _ = relay(*answers)
    made.require_mutual()
    await identified(made)
    if len(answers) == 2:
        await made.receive(response(TLS, EapType.TLS))
    assert made.failed and not made.succeeded


@given(st.lists(st.binary(max_size=64), max_size=4), st.binary(max_size=64))
async def test_nothing_raises(packets: list[bytes], first: bytes) -> None:
    made, _ = relay(*(Relayed(packet) for packet in (first, *packets)))
    await identified(made)
    for packet in packets:
        assert EapPacket.decode(await made.receive(packet)).code in (EapCode.REQUEST, EapCode.FAILURE)
    made.abandon(IkewayError("left"))
    assert made.failed
