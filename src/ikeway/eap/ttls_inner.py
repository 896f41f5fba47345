"""What is said in the tunnel of EAP-TTLS (RFC 5281 section 11), the peer's side: PAP, MS-CHAP-V2, or EAP."""

from __future__ import annotations

import hmac
import os
import re
from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, Callable, Sequence
from typing import ClassVar

from ikeway.eap.errors import EapFailed, MalformedEap, ServerNotAuthentic, WrongPassword, no_answer
from ikeway.eap.method import PeerMethodFactory
from ikeway.eap.mschapv2 import explain_failure
from ikeway.eap.mschapv2_crypto import (
    MAX_PASSWORD,
    authenticator_response,
    bare_user_name,
    nt_password_hash,
    nt_response,
)
from ikeway.eap.mschapv2_packets import FAILURE, decode_failure, encode_packet
from ikeway.eap.packet import EapCode, EapPacket, EapType
from ikeway.eap.questions import PasswordQuestion
from ikeway.eap.session import EapPeer
from ikeway.eap.tunnel.avp import MICROSOFT, Avp, AvpCode, MicrosoftAvp, joined
from ikeway.eap.tunnel.channel import Channel
from ikeway.eap.words import printable
from ikeway.errors import IkewayError, Side
from ikeway.questions import Ask

Talk = AsyncGenerator[list[Avp], Sequence[Avp]]
Random = Callable[[int], bytes]
_PASSWORD_BLOCK = 16


def implicit_challenge(channel: Channel) -> tuple[bytes, int]:
    """The challenge of MS-CHAP-V2 and its identifier, which nobody sends: they come out of the tunnel (section 11.1)."""
    octets = channel.export(b"ttls challenge", 17)
    return octets[:16], octets[16]


class InnerPeer(ABC):
    """One way to log in. `may_succeed` as with a method."""

    name: ClassVar[str]
    may_succeed: bool = False
    error: IkewayError | None = None  # why EAP-Failure comes, as far as this way knows

    @abstractmethod
    def talk(self, channel: Channel, ask: Ask) -> Talk:
        """Yield pairs to send (the peer speaks first), get pairs."""
        raise NotImplementedError


class PapPeer(InnerPeer):
    """The password itself (section 11.2.5): the server is known to be the right one."""

    name: ClassVar[str] = "PAP"

    def __init__(self, user_name: bytes) -> None:
        self._user_name = user_name

    async def talk(self, channel: Channel, ask: Ask) -> AsyncGenerator[list[Avp], Sequence[Avp]]:
        """Send name and password, once."""
        answer = await ask(PasswordQuestion(self._user_name, "", "", "EAP-TTLS with PAP"))
        if not answer:
            raise no_answer("password", self._user_name)
        password = answer.encode()
        password += bytes(-len(password) % _PASSWORD_BLOCK)  # so that nobody counts its characters
        self.may_succeed, self.error = True, _refused("")
        avps = yield [Avp(AvpCode.USER_NAME, self._user_name), Avp(AvpCode.USER_PASSWORD, password)]
        said = printable(joined(avps, AvpCode.REPLY_MESSAGE) or b"")
        self.error = _refused(said)
        yield []


def _refused(said: str) -> WrongPassword:
    return WrongPassword(
        "the server refused user name or password",
        expected="the right password",
        got=repr(said) if said else "EAP-Failure",
        remedy="check user name (with or without a domain) and password",
    )


def _explained(failure: bytes) -> IkewayError:
    """An MS-CHAP-Error: identifier and "E=691 R=0 ..." (RFC 2548 section 2.1.5), or words (hostapd)."""
    try:
        _, report = decode_failure(encode_packet(FAILURE, 0, failure[1:]))
    except MalformedEap:
        return _refused(printable(failure))
    return explain_failure(report)


class MsChapV2InTunnel(InnerPeer):
    """MS-CHAP-V2 without EAP (section 11.2.4): one response, one proof of the server."""

    name: ClassVar[str] = "MSCHAPv2"

    def __init__(self, user_name: bytes, *, random: Random = os.urandom) -> None:
        self._user_name = user_name
        self._random = random

    async def talk(self, channel: Channel, ask: Ask) -> AsyncGenerator[list[Avp], Sequence[Avp]]:
        """Respond to the challenge of the tunnel, and check the server's proof."""
        challenge, identifier = implicit_challenge(channel)
        password = await ask(PasswordQuestion(self._user_name, "", "", "EAP-TTLS with MSCHAPv2"))
        if not password:
            raise no_answer("password", self._user_name)
        if len(password) > MAX_PASSWORD:
            raise EapFailed("the password is longer than MS-CHAPv2 allows", expected=f"{MAX_PASSWORD} characters")
        user, peer_challenge = bare_user_name(self._user_name), self._random(16)
        secret = nt_password_hash(password)
        proof = nt_response(challenge, peer_challenge, user, secret)
        response = bytes((identifier, 0)) + peer_challenge + bytes(8) + proof
        self.error = _refused("")
        avps = yield [
            Avp(AvpCode.USER_NAME, self._user_name),
            Avp(MicrosoftAvp.CHAP_CHALLENGE, challenge, MICROSOFT),
            Avp(MicrosoftAvp.CHAP2_RESPONSE, response, MICROSOFT),
        ]
        failure = joined(avps, MicrosoftAvp.CHAP_ERROR, MICROSOFT)
        if failure is not None:
            raise _explained(failure)
        self._check_server(avps, authenticator_response(secret, proof, peer_challenge, challenge, user))
        self.may_succeed, self.error = True, None
        yield []

    @staticmethod
    def _check_server(avps: Sequence[Avp], expected: bytes) -> None:
        success = joined(avps, MicrosoftAvp.CHAP2_SUCCESS, MICROSOFT) or b""
        claimed = re.match(rb"S=([0-9A-Fa-f]{40})", success[1:])
        if claimed is None or not hmac.compare_digest(bytes.fromhex(claimed[1].decode()), expected):
            raise ServerNotAuthentic(
                "the server does not know the password it accepted",
                expected="the server's proof (RFC 2759 section 8.7)",
                got="a wrong one" if claimed else "none",
                side=Side.PEER,
                remedy="treat it as an impostor and change the password",
            )


class EapInTunnel(InnerPeer):
    """Any EAP method (section 11.2.1). The peer begins with its identity, unasked."""

    name: ClassVar[str] = "EAP"

    def __init__(self, user_name: bytes, methods: Sequence[PeerMethodFactory]) -> None:
        self._user_name = user_name
        self._methods = methods

    async def talk(self, channel: Channel, ask: Ask) -> AsyncGenerator[list[Avp], Sequence[Avp]]:
        """Carry packets of an EAP session of its own."""
        session = EapPeer(ask, self._user_name, self._methods)
        request = EapPacket(EapCode.REQUEST, 0, EapType.IDENTITY).encode()
        while True:
            response = await session.receive(request)
            self.may_succeed, self.error = session.may_succeed, session.failure_reason()
            avps = yield [Avp(AvpCode.EAP_MESSAGE, response)] if response is not None else []
            packet = joined(avps, AvpCode.EAP_MESSAGE)
            while packet is None:  # words only
                avps = yield []
                packet = joined(avps, AvpCode.EAP_MESSAGE)
            request = packet
