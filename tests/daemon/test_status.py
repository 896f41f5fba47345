"""What is told of connections: status values, and log lines of events."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator

import pytest
import rich.console

from ikeway.cli.show_status import session_lines, session_table
from ikeway.daemon.eventlog import report
from ikeway.daemon.status import PoolStatus, Status, WorkerStatus, session_status
from ikeway.dataplane.interface import Counters
from ikeway.errors import AuthenticationFailed, Closed, HostError, PeerUnreachable
from ikeway.ike import events
from tests.ike.pair import A, B, Pair, connection
from tests.ike.test_multiple_auth import by_certificate, by_eap, several


@pytest.fixture(scope="module")
def pair() -> Pair:
    pair = Pair()
    pair.connect()
    return pair


def test_a_session(pair: Pair) -> None:
    sa = pair.a.sa
    (child,) = sa.live_children
    counters = {
        (child.spi_in, True): Counters(
            packets=3, octets=300, dropped={"replay": 2, "selector": 0}, last_used=pair.now - 5
        ),
        (child.spi_out, False): Counters(packets=4, octets=400, dropped={"replay": 1}, last_used=pair.now - 7),
    }
    told = session_status(sa, counters, pair.now + 10, addresses=["10.0.0.1"])
    assert (told.id, told.name, told.state, told.role) == (sa.connection_id, "pair", "established", "initiator")
    assert (told.local_identity, told.remote_identity) == ("a.example", "b.example")
    assert told.suite == "aes128gcm16-prfsha256-x25519"
    assert told.initiator_spi == sa.channel.initiator_spi.hex()
    assert (told.nat, told.mobike, told.addresses) == ("", True, ("10.0.0.1",))
    assert 10 <= told.age < 11
    (shown,) = told.children
    assert (shown.name, shown.local, shown.remote) == ("net", ("10.1.0.0/16",), ("10.2.0.0/16",))
    assert (shown.packets_in, shown.packets_out, shown.octets_in, shown.octets_out) == (3, 4, 300, 400)
    assert shown.dropped == {"replay": 3}
    assert shown.idle == pytest.approx(15)
    assert shown.spi_in == f"{child.spi_in:08x}"


def test_a_child_sa_that_was_never_used(pair: Pair) -> None:
    assert session_status(pair.a.sa, {}, pair.now).children[0].idle is None


def test_a_status_goes_over_the_socket_and_back(pair: Pair) -> None:
    status = Status(
        role="gateway",
        name="gw",
        state="up",
        version="1",
        pid=7,
        uptime=3.5,
        routes=("10.0.0.0/8",),
        sessions=(session_status(pair.b.sa, {}, pair.now),),
        pools=(PoolStatus(name="p", addresses="10.0.0.0/24", size=253, used=1),),
        workers=(WorkerStatus(number=0, pid=8, interface="ikeway0", sas=2, restarts=1),),
        counters={"received": 1},
    )
    assert Status.from_json(json.loads(json.dumps(status.to_json()))) == status


def test_programs_of_other_versions_are_understood_or_named(pair: Pair) -> None:
    """An upgrade leaves those running that run."""
    session = session_status(pair.b.sa, {}, pair.now)
    status = Status(
        role="gateway", name="gw", state="up", version="0.0.7", pid=7, uptime=3.5, routes=("::/0",), sessions=(session,)
    )
    fields = status.to_json()
    del fields["radius"]
    fields["sessions"][0]["of tomorrow"] = fields["of tomorrow"] = 1
    assert Status.from_json(fields) == status
    del fields["sessions"][0]["remote"]
    with pytest.raises(HostError, match=r"status of gateway gw is not understood.*got one of ikeway 0\.0\.7"):
        Status.from_json(fields)


@pytest.fixture
def lines(caplog: pytest.LogCaptureFixture) -> Iterator[pytest.LogCaptureFixture]:
    logging.getLogger("ikeway").propagate = True
    with caplog.at_level(logging.DEBUG, "ikeway"):
        yield caplog


def named(lines: pytest.LogCaptureFixture, name: str) -> list[logging.LogRecord]:
    return [record for record in lines.records if getattr(record, "event", "") == name]


def test_a_log_in_and_its_end(lines: pytest.LogCaptureFixture) -> None:
    pair = Pair()
    pair.connect()
    pair.a.sa.rekey(pair.now)
    pair.run()
    pair.a.sa.rekey_child(pair.a.sa.live_children[0], pair.now)
    pair.run()
    pair.a.sa.close(pair.now)
    pair.run()
    for event in pair.b.log:
        report(event)
    (up,) = named(lines, "ike-up")
    assert up.getMessage() == f"a.example at {A.host}:4500 is connected (aes128gcm16-prfsha256-x25519)"
    assert str(up.fields["remote_identity"]) == "a.example"  # type: ignore[attr-defined]
    (child,) = named(lines, "child-up")
    assert "carries 10.2.0.0/16 to 10.1.0.0/16" in child.getMessage()
    assert len(named(lines, "child-rekeyed")) == 1
    assert len(named(lines, "ike-rekeyed")) == 1
    (down,) = named(lines, "ike-down")
    assert down.levelno == logging.INFO
    assert "is disconnected" in down.getMessage()
    messages = named(lines, "received")
    assert any("IKE_AUTH request 1" in record.getMessage() for record in messages)
    assert all(record.levelno == logging.DEBUG for record in messages)


def test_all_that_a_client_has_proven_is_told(lines: pytest.LogCaptureFixture) -> None:
    pair = several(by_certificate(), by_eap())
    pair.connect()
    for event in pair.b.log:
        report(event)
    (up,) = named(lines, "ike-up")
    assert up.getMessage().startswith(f"bob at {A.host}:4500 is connected")
    assert up.getMessage().endswith("proven as a.example by certificate and bob by keyed")
    shown = session_status(pair.b.sa, {}, pair.now)
    assert shown.proofs == ("a.example by certificate", "bob by keyed")
    console = rich.console.Console(width=200, record=True)
    console.print(session_table([shown]), session_lines(session_status(pair.a.sa, {}, pair.now)))
    text = console.export_text()
    assert "a.example by certificate, bob by keyed" in text and "b.example at" in text


def test_no_key_is_logged(lines: pytest.LogCaptureFixture) -> None:
    pair = Pair()
    pair.connect()
    for event in pair.a.log:
        report(event)
    (ike,) = pair.a.happened(events.IkeKeysDerived)
    (child,) = pair.a.happened(events.ChildKeysDerived)
    secrets = [ike.keys.sk_d, ike.keys.sk_ei, ike.keys.sk_pi, child.keys.encryption_initiator, b"a secret"]
    told = "\n".join(f"{record.getMessage()} {getattr(record, 'fields', '')}" for record in lines.records)
    for secret in secrets:
        assert secret.hex() not in told
        assert str(secret)[2:-1] not in told


def test_a_refusal_has_reason_and_remedy(lines: pytest.LogCaptureFixture) -> None:
    error = AuthenticationFailed("wrong password", remedy="type the right one")
    report(events.Refused(A, B, error))
    report(events.Refused(A, B, error, rate_limited=True))
    first, second = named(lines, "refused")
    assert "wrong password" in first.getMessage()
    assert "type the right one" in first.getMessage()
    assert first.fields["remedy"] == "type the right one"  # type: ignore[attr-defined]
    assert (first.levelno, first.limited) == (logging.WARNING, "")  # type: ignore[attr-defined]
    assert (second.levelno, second.limited) == (logging.INFO, B.host)  # type: ignore[attr-defined]


def test_a_weak_proof_is_a_warning(pair: Pair, lines: pytest.LogCaptureFixture) -> None:
    report(events.Weak(pair.a.sa, "signed with SHA-1", "use ECDSA"))
    (line,) = named(lines, "weak")
    assert line.levelno == logging.WARNING
    assert line.getMessage() == f"{pair.a.sa.remote}: signed with SHA-1; use ECDSA"


def test_a_lost_peer_is_a_warning(pair: Pair, lines: pytest.LogCaptureFixture) -> None:
    report(events.IkeClosed(pair.a.sa, PeerUnreachable("no answer"), True))
    report(events.IkeClosed(pair.a.sa, Closed("deleted"), True))
    report(events.IkeClosed(pair.a.sa, AuthenticationFailed("no"), False))
    assert [record.levelno for record in named(lines, "ike-down")] == [logging.WARNING, logging.INFO]
    assert [record.levelno for record in named(lines, "login-failed")] == [logging.DEBUG]


def test_failed_children(pair: Pair, lines: pytest.LogCaptureFixture) -> None:
    sa = pair.a.sa
    report(events.ChildFailed(sa, connection().children[0], AuthenticationFailed("no")))
    report(events.ChildDown(sa, sa.live_children[0], PeerUnreachable("x")))
    report(events.PathChanged(sa, A, B, True))
    assert "child SA net with b.example was not made: no" in named(lines, "child-failed")[0].getMessage()
    assert named(lines, "child-down")[0].levelno == logging.WARNING
    assert f"at {B} now" in named(lines, "moved")[0].getMessage()
