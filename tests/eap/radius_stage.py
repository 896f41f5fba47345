"""The two ends of RADIUS around EAP, on loopback: a server around our authenticator, for peers of others; and a client
that carries our peer to servers of others. Keys come with it, so that both sides' MSK can be compared."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator

from ikeway.eap.packet import EapCode, EapPacket, EapType
from ikeway.eap.session import EapAuthenticator, EapPeer
from ikeway.gateway.radius.attributes import MAX_VALUE, MS_MPPE_RECV_KEY, MS_MPPE_SEND_KEY, Attr, Pair
from ikeway.gateway.radius.packets import Code, Request
from tests.eap.conversations import finish
from tests.gateway.radius import fake

SECRET = fake.SECRET
_MICROSOFT = 311
_SEND_KEY, _RECV_KEY = (_MICROSOFT, 16), (_MICROSOFT, 17)
_ROUNDS = 80


class RadiusStage:
    """A server that lets `make` authenticate whoever comes. `made` has all authenticators, `finished` those that came to
    an end."""

    def __init__(self, make: Callable[[], EapAuthenticator]) -> None:
        self._make = make
        self._sessions: dict[bytes, EapAuthenticator] = {}
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind(("127.0.0.1", 0))
        self.port = self._socket.getsockname()[1]
        self.made: list[EapAuthenticator] = []
        self.finished: list[EapAuthenticator] = []
        self.error: BaseException | None = None
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._socket.sendto(b"end", ("127.0.0.1", self.port))
        self._thread.join(10)
        self._socket.close()
        if self.error is not None:
            raise self.error

    def _serve(self) -> None:
        try:
            while (got := self._socket.recvfrom(8192))[0] != b"end":
                self._socket.sendto(self._answer(fake.take_apart(got[0])), got[1])
        except Exception as error:
            self.error = error

    def _answer(self, request: fake.Got) -> bytes:
        packet = b"".join(request.all(fake.EAP_MESSAGE))
        states = request.all(fake.STATE)
        if not states:
            # The client has asked for the identity already; ours asks too, and that answer will do.
            authenticator, state = self._make(), b"%d" % len(self.finished + list(self._sessions))
            identifier = finish(authenticator.start())[1]
            packet = packet[:1] + bytes((identifier,)) + packet[2:]
            self._sessions[state] = authenticator
            self.made.append(authenticator)
        else:
            (state,) = states
            authenticator = self._sessions[state]
        response = finish(authenticator.receive(packet))
        pairs = [(fake.EAP_MESSAGE, response[at : at + MAX_VALUE]) for at in range(0, len(response), MAX_VALUE)]
        if not (authenticator.succeeded or authenticator.failed):
            return fake.answer(request, fake.CHALLENGE, [*pairs, (fake.STATE, state)])
        self.finished.append(self._sessions.pop(state))
        if authenticator.failed:
            return fake.answer(request, fake.REJECT, pairs)
        msk = authenticator.msk or b""
        keys = [(_SEND_KEY, msk[32:64]), (_RECV_KEY, msk[:32])] if msk else []
        hidden = [(kind, fake.hidden_key(request, key, bytes((0x80, kind[1])))) for kind, key in keys]
        return fake.answer(request, fake.ACCEPT, [*pairs, *hidden])


@contextlib.contextmanager
def serving(make: Callable[[], EapAuthenticator]) -> Iterator[RadiusStage]:
    """A server, as long as the test needs it."""
    stage = RadiusStage(make)
    try:
        yield stage
    finally:
        stage.close()


def log_in_by_radius(port: int, peer: EapPeer, identity: bytes) -> bytes | None:
    """Carry the peer's packets to a server. Returns the MSK of its Access-Accept, None when it has none; raises what the
    peer raises, and AssertionError when the server breaks RADIUS."""
    packet = finish(peer.receive(EapPacket(EapCode.REQUEST, 1, EapType.IDENTITY).encode()))
    state: list[Pair] = []
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as channel:
        channel.settimeout(10)
        channel.connect(("127.0.0.1", port))
        for number in range(_ROUNDS):
            assert packet is not None
            pieces = [packet[at : at + MAX_VALUE] for at in range(0, len(packet), MAX_VALUE)]
            pairs: list[Pair] = [(Attr.USER_NAME, identity), (Attr.NAS_IDENTIFIER, b"test"), *state]
            pairs += [(Attr.EAP_MESSAGE, piece) for piece in pieces]
            request = Request(Code.ACCESS_REQUEST, number, SECRET, pairs)
            channel.send(request.octets)
            reply = request.judge(channel.recv(8192), protected=True)
            state = [(Attr.STATE, value) for value in reply.attributes.all(Attr.STATE)]
            packet = finish(peer.receive(reply.attributes.joined(Attr.EAP_MESSAGE)))
            if reply.code is Code.ACCESS_ACCEPT:
                assert packet is None
                halves = (MS_MPPE_RECV_KEY, MS_MPPE_SEND_KEY)
                return b"".join(reply.reveal(value) for kind in halves for value in reply.attributes.all(kind)) or None
    raise AssertionError("it comes to no end")
