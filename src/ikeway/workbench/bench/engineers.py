"""Who decides about held messages: a person at the terminal, or a recording."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import replace

from ikeway.errors import ConfigError, IkewayError
from ikeway.wire.message import Message
from ikeway.wire.payloads import Eap, KeyExchange, Nonce, Payload, SecurityAssociation
from ikeway.wire.registry import ExchangeType
from ikeway.workbench.bench.decisions import Answer, Ask, Decision, Engineer, Go, Held, Refuse, Wait
from ikeway.workbench.bench.words import notify_type, parse_payloads
from ikeway.workbench.recording import Recording

HELP = """\
go                          let the engine go on with it
go without N [N...]         the same, without these payloads (counted from 1)
answer PAYLOAD...           (a request) answer it with these; the engine never sees it
ask EXCHANGE PAYLOAD...     (a response) send a request; its response is held in turn
refuse [NOTIFY]             end the exchange with a notify; AUTHENTICATION_FAILED unless another is named
wait                        do nothing: the exchange stays open until the other side gives up
payloads:  eap:HEX  eap-request:TYPE:HEX  eap-response:TYPE:"text"  eap-success  eap-failure
           notify:NAME[:HEX]  vendor:"text"  delete  payload:TYPE:HEX (payload:!TYPE:HEX is critical)
           octets are HEX, "text" or both: eap-response:9:0x44425250:00000027"<config-auth client='vpn' type='init'/>\""""


class Terminal:
    """A person. `read` asks for a line (None at the end of the input), `say` prints."""

    def __init__(self, read: Callable[[str], Awaitable[str | None]], say: Callable[[str], None]) -> None:
        self._read, self._say = read, say
        self._explained = False

    async def decide(self, held: Held) -> Decision:
        """Ask until a line can be understood."""
        what = "; ".join(held.unknown) or "nothing in it is unknown"
        self._say(f"held ({held.number}): {what}")
        if not self._explained:
            self._say(HELP)
            self._explained = True
        while True:
            line = await self._read("answer> ")
            if line is None:
                return Wait()
            try:
                decision = parse_decision(line, held.message)
            except IkewayError as error:
                self.mistaken(str(error))
                continue
            if decision is not None:
                return decision
            self._say(HELP)

    def mistaken(self, reason: str) -> None:
        """Say it."""
        self._say(f"that does not work: {reason}")


def parse_decision(line: str, message: Message) -> Decision | None:
    """A line of the terminal; None for one that asks for help. Raises `ConfigError`."""
    word, _, rest = line.strip().partition(" ")
    match word:
        case "go":
            return Go(_without(message, rest) if rest.strip() else None)
        case "answer":
            return Answer(parse_payloads(rest, message))
        case "ask":
            name, _, payloads = rest.strip().partition(" ")
            return Ask(_exchange(name), parse_payloads(payloads, message))
        case "refuse":
            return Refuse(notify_type(rest.strip())) if rest.strip() else Refuse()
        case "wait":
            return Wait()
    return None


def _without(message: Message, rest: str) -> Message:
    words = rest.split()
    numbers = {int(each) for each in words[1:] if each.isdecimal()}
    if (
        words[0] != "without"
        or len(numbers) != len(words) - 1
        or not numbers <= set(range(1, len(message.payloads) + 1))
    ):
        raise ConfigError(
            f"{rest.strip()[:80]!r} names no payloads",
            expected=f"`go without N`, N from 1 to {len(message.payloads)}",
            remedy="correct it and try once more",
        )
    kept = tuple(each for number, each in enumerate(message.payloads, 1) if number not in numbers)
    return replace(message, payloads=kept)


def _exchange(name: str) -> ExchangeType:
    if name.isdecimal() and int(name) <= 255:
        return ExchangeType(int(name))
    found = ExchangeType.__members__.get(name.upper())
    if found is None:
        raise ConfigError(f"{name[:80]!r} is no exchange", expected="IKE_AUTH, INFORMATIONAL, ... or a number")
    return found


class FromRecording:
    """Answers what is held with what was said then, by the same side, in the same place: the same exchange and message
    id; it does not matter who recorded it. What belongs to one session only, and has to be made anew, is left to the
    engine; so where the recording has nothing else to say, the engine goes on. `otherwise` decides where it has nothing
    at all."""

    def __init__(self, recording: Recording, otherwise: Engineer | None = None) -> None:
        self._said = {initiator: recording.said_by(initiator=initiator) for initiator in (True, False)}
        self._otherwise = otherwise
        self._failed = False

    async def decide(self, held: Held) -> Decision:
        """The answer of then."""
        message = held.message
        wanted = message.message_id + 1 if message.is_response else message.message_id
        said = self._find(message, wanted)
        if said is None or self._failed:
            self._failed = False
            return await self._otherwise.decide(held) if self._otherwise is not None else Go()
        payloads = tuple(_for_now(each, message) for each in said.payloads)
        if any(isinstance(each, SecurityAssociation | KeyExchange | Nonce) for each in payloads):
            return Go()
        if message.is_response:
            return Ask(said.exchange_type, payloads)
        return Answer(payloads)

    def mistaken(self, reason: str) -> None:
        """The next decision is somebody else's."""
        self._failed = True

    def _find(self, message: Message, message_id: int) -> Message | None:
        for then in self._said[not message.is_initiator]:
            fits = then.message_id == message_id and then.is_response is not message.is_response
            if fits and (then.exchange_type == message.exchange_type):
                return then
        return None


def _for_now(payload: Payload, asked: Message) -> Payload:
    """EAP answers with the identifier of now (RFC 3748 section 4.1)."""
    before = asked.find(Eap)
    if not isinstance(payload, Eap) or before is None or len(payload.packet) < 4 or len(before.packet) < 2:
        return payload
    code, last = payload.packet[0], before.packet[1]
    identifier = (last + 1) & 0xFF if code == 1 else last
    return Eap(bytes([code, identifier]) + payload.packet[2:])
