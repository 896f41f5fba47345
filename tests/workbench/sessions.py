"""Sessions in memory to record: two engines, of which one is listened to."""

from __future__ import annotations

from pathlib import Path

from ikeway.address import Address
from ikeway.auth.identity import Identity, IdentityPattern
from ikeway.ike import events
from ikeway.ike.engine import Engine
from ikeway.ike.interception import Interception
from ikeway.ike.proposals import parse_proposals
from ikeway.ike.questions import SelectConnection
from ikeway.ike.selectors import selector
from ikeway.ike.settings import ChildSettings, Connection, EngineSettings, PskCredential, PskExpected, ResponderSettings
from ikeway.workbench.recording import Recorder

ALICE, BOB = Address("192.0.2.1", 500), Address("198.51.100.1", 500)
SECRET = b"correct horse battery staple"


def connection(own: str, other: str, ike: str, here: str, there: str, **rest: object) -> Connection:
    child = ChildSettings(name="net", local_selectors=(selector(here),), remote_selectors=(selector(there),))
    return Connection(
        name="lab",
        local_identity=Identity.parse(own),
        local_credential=PskCredential(SECRET),
        remote_identity=IdentityPattern.parse(other),
        remote_expectation=PskExpected(SECRET),
        ike_proposals=parse_proposals(ike),
        children=(child,),
        **rest,  # type: ignore[arg-type]
    )


def record(
    path: Path,
    ike: str = "aes256gcm16-prfsha256-x25519",
    *,
    fragment_size: int = 1280,
    alices: Interception | None = None,
    bobs: Interception | None = None,
) -> list[events.Event]:
    """Alice connects to Bob, rekeys, and leaves; Bob's side is recorded. Returns what Bob's engine told."""
    told: list[events.Event] = []
    alice = Engine(EngineSettings(interception=alices))
    bob = Engine(EngineSettings(responder=ResponderSettings(ike_proposals=parse_proposals(ike)), interception=bobs))
    hers = connection("alice@lab.test", "bob.lab.test", ike, "10.2.0.0/16", "10.1.0.0/16", fragment_size=fragment_size)
    his = connection("bob.lab.test", "alice@lab.test", ike, "10.1.0.0/16", "10.2.0.0/16", fragment_size=fragment_size)
    with Recorder(path, "responder") as recorder:
        sa = alice.connect(hers, ALICE, BOB, 0.0)
        for step, act in enumerate((lambda now: None, sa.rekey, lambda now: alice.close_all(now))):
            act(float(step))
            _run(alice, bob, his, recorder, told, float(step))
    return told


def _run(alice: Engine, bob: Engine, his: Connection, recorder: Recorder, told: list[events.Event], now: float) -> None:
    for _ in range(50):
        now += 0.001
        for engine, other in ((alice, bob), (bob, alice)):
            for event in engine.events():
                if engine is bob:
                    recorder.observe(event)
                    told.append(event)
                if isinstance(event, events.Asked) and isinstance(event.question, SelectConnection):
                    engine.answer(event.question, his, now)
            for datagram in engine.outgoing():
                marked = bytes(4) * (datagram.remote.port == 4500) + datagram.octets
                if engine is bob:
                    recorder.tap(marked, datagram.local, datagram.remote, True)
                else:
                    recorder.tap(marked, datagram.remote, datagram.local, False)
                other.receive(datagram.octets, datagram.remote, datagram.local, now)
