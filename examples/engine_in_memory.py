"""Two IKEv2 engines talk to each other in memory: no sockets, no clock, no threads.

    python examples/engine_in_memory.py

Each engine takes datagrams, answers and the time, and hands out datagrams and events; what is in between (here: a loop)
is yours. Both sides end with the same ESP keys.
"""

from ikeway.address import Address
from ikeway.auth.identity import Identity, IdentityPattern
from ikeway.ike import events
from ikeway.ike.engine import Engine
from ikeway.ike.questions import SelectConnection
from ikeway.ike.selectors import selector
from ikeway.ike.settings import (
    ChildSettings,
    Connection,
    EngineSettings,
    PskCredential,
    PskExpected,
    ResponderSettings,
)
from ikeway.wire import render

ALICE, BOB = Address("192.0.2.1", 500), Address("198.51.100.1", 500)
SECRET = b"correct horse battery staple"
OFFICE, HOME = selector("10.1.0.0/16"), selector("10.2.0.0/16")


def connection(own: str, other: str, child: ChildSettings) -> Connection:
    """One side's view of the agreement."""
    return Connection(
        name="example",
        local_identity=Identity.parse(own),
        local_credential=PskCredential(SECRET),
        remote_identity=IdentityPattern.parse(other),
        remote_expectation=PskExpected(SECRET),
        children=(child,),
    )


def main() -> None:
    """Let Alice connect to Bob."""
    alices = connection(
        "alice@example.org",
        "bob.example.org",
        ChildSettings(name="office", local_selectors=(HOME,), remote_selectors=(OFFICE,)),
    )
    bobs = connection(
        "bob.example.org",
        "alice@example.org",
        ChildSettings(name="home", local_selectors=(OFFICE,), remote_selectors=(HOME,)),
    )
    alice, bob = Engine(EngineSettings()), Engine(EngineSettings(responder=ResponderSettings()))
    now = 0.0
    alice.connect(alices, ALICE, BOB, now)

    keys: dict[tuple[str, int], bytes] = {}
    under_way = True
    while under_way:
        under_way = False
        now += 0.01
        for name, engine, peer in (("alice", alice, bob), ("bob", bob, alice)):
            for event in engine.events():
                match event:
                    case events.MessageSent(message=message):
                        print(f"\n{name} sends", render(message))
                    case events.Asked(question=SelectConnection() as question):
                        engine.answer(question, bobs, now)
                        under_way = True
                    case events.ChildUp(child=child):
                        print(f"\n{name}: {child} is up, {child.suite}")
                    case events.InboundAdded(esp=esp):
                        keys[f"{name} hears", esp.spi] = esp.encryption_key
                    case events.OutboundAdded(esp=esp):
                        keys[f"{name} speaks", esp.spi] = esp.encryption_key
            for datagram in engine.outgoing():
                peer.receive(datagram.octets, datagram.remote, datagram.local, now)
                under_way = True

    to_alice, to_bob = (next(spi for who, spi in keys if who == f"{name} hears") for name in ("alice", "bob"))
    assert keys["alice hears", to_alice] == keys["bob speaks", to_alice]
    assert keys["bob hears", to_bob] == keys["alice speaks", to_bob]
    print("\nBoth sides have the same keys, in both directions.")


if __name__ == "__main__":
    main()
