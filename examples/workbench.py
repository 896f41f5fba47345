"""Takes an unknown EAP method apart, step by step: a stand-in client in front of a gateway that speaks it.

    python examples/workbench.py

The gateway here is a stand-in as well, whose script plays the unknown: it runs on loopback and needs no rights. Each step
is an answer that brings out the next message in plaintext; what was learnt is in the recording, which then answers by
itself. With a real gateway the steps are typed at the terminal: `ikeway workbench connect HOST --eap`.
"""

import asyncio
import tempfile
from pathlib import Path

from ikeway.address import Address
from ikeway.auth.identity import Identity
from ikeway.eap.packet import EapCode, EapPacket, MethodType
from ikeway.wire import Eap, ExchangeType, IdInitiator
from ikeway.workbench.bench import Ask, Bench, BenchSettings, Decision, Held, Hooks, Passing, Refuse, serve_psk
from ikeway.workbench.bench.engineers import FromRecording
from ikeway.workbench.bench.standin import call_with_eap
from ikeway.workbench.bench.words import parse_payloads
from ikeway.workbench.paint import Painter
from ikeway.workbench.recording import Recorder, load

METHOD = MethodType(9, 0x44425250)  # an expanded type: the vendor's number and its own
LOOPBACK = BenchSettings(listen=("127.0.0.1",), port=0, nat_port=0)


def unknown_gateway(m: Passing) -> None:
    """What we do not know yet. It answers IKE_AUTH itself: hello, then a question, then that is all."""
    if m.sent or m.is_response or not m.is_(ExchangeType.IKE_AUTH):
        return
    packet = m.find(Eap)
    if m.find(IdInitiator) is not None:
        said, identifier = b"<config-auth type='hello'/>", 1
    elif packet is not None and b"init" in packet.packet:
        said, identifier = b"<config-auth type='auth-request'><form/></config-auth>", packet.packet[1] + 1
    else:
        return
    m.answer(Eap(EapPacket.of(EapCode.REQUEST, identifier, METHOD, said).encode()))


class StepByStep:
    """Us. We look at what is held, and try the next answer."""

    def __init__(self) -> None:
        self.learnt: list[bytes] = []

    async def decide(self, held: Held) -> Decision:
        """The first time we say what clients are known to say next; then we have seen enough for today."""
        packet = held.message.find(Eap)
        assert packet is not None
        self.learnt.append(EapPacket.decode(packet.packet).method_data)
        if len(self.learnt) > 1:
            return Refuse()
        word = "eap-response:9:0x44425250:\"<config-auth type='init'/>\""  # as one would type it
        return Ask(ExchangeType.IKE_AUTH, parse_payloads(word, held.message))

    def mistaken(self, reason: str) -> None:
        """Our answer could not be sent."""
        raise SystemExit(reason)


async def session(engineer: StepByStep | FromRecording, recorder: Recorder | None) -> None:
    """One connection of the stand-in client to the gateway."""
    client = call_with_eap(Identity.parse("alice@example.com"))
    async with (
        Bench(LOOPBACK, serve_psk(None), hooks=Hooks([unknown_gateway])) as gateway,
        Bench(LOOPBACK, client, engineer=engineer, recorder=recorder, painter=Painter()) as bench,
    ):
        bench.connect(client.connection, Address("127.0.0.1", gateway.nat_port))
        await bench.wait_closed()


def main() -> None:
    """Learn, and then let the recording answer."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "gateway.ikr"
        engineer = StepByStep()
        with Recorder(path, "initiator") as recorder:
            asyncio.run(session(engineer, recorder))
        print("\nLearnt so far:")
        for number, octets in enumerate(engineer.learnt, 1):
            print(f"  message {number}: {octets.decode()}")
        again = StepByStep()
        again.learnt.append(b"")  # the second question is where we are now
        asyncio.run(session(FromRecording(load(path), otherwise=again), None))
        assert again.learnt[1] == engineer.learnt[1]
        print("\nThe recording has given the first answer; the next question is ours again.")


if __name__ == "__main__":
    main()
