"""What a running client or gateway tells of itself: values that turn into JSON, for `status` and `watch`."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

from ikeway import __version__
from ikeway.dataplane.interface import Counters
from ikeway.errors import HostError
from ikeway.ike.selectors import format_selector

if TYPE_CHECKING:
    from ikeway.ike.child import ChildSa
    from ikeway.ike.sa import IkeSa

CountersBySa = Mapping[tuple[int, bool], Counters]
Part = TypeVar("Part")


@dataclass(frozen=True, slots=True, kw_only=True)
class ChildStatus:
    """One child SA. Octets are of inner packets; seconds are ages and times to go. `id` stays when keys are renewed.

    None stands for never: not used yet (`idle`), no rekeying by time (`rekey_in`), no end by time (`expires_in`).
    """

    name: str
    state: str
    spi_in: str
    spi_out: str
    suite: str
    mode: str
    encapsulation: str
    local: tuple[str, ...]
    remote: tuple[str, ...]
    age: float
    packets_in: int = 0
    packets_out: int = 0
    octets_in: int = 0
    octets_out: int = 0
    idle: float | None = None
    dropped: dict[str, int] = field(default_factory=dict)  # by `ikeway.esp.drops.Drop`
    id: int = 0
    rekey_in: float | None = None
    expires_in: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionStatus:
    """One IKE SA with its child SAs. `id` names it in commands."""

    id: int
    name: str
    state: str
    role: str  # ours: initiator or responder
    local: str
    remote: str
    local_identity: str
    remote_identity: str
    eap_identity: str
    initiator_spi: str
    responder_spi: str
    suite: str
    age: float
    nat: str  # who is behind one: "", "this side", "the peer", "both sides"
    mobike: bool
    addresses: tuple[str, ...] = ()  # inside the tunnel: ours as client, the client's as gateway
    children: tuple[ChildStatus, ...] = ()
    rekey_in: float | None = None  # seconds until we renew its keys, log in anew, give it up; None: never
    login_in: float | None = None
    expires_in: float | None = None
    proofs: tuple[
        str, ...
    ] = ()  # who the peer has proven to be, and how; more than one with several log-ins (RFC 4739)


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolStatus:
    """How full a range of a pool is."""

    name: str
    addresses: str
    size: int
    used: int


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerStatus:
    """A process that carries ESP, and its tunnel interface. `pid` None: it is being started. `sas`: inbound and
    outbound ones; `restarts`: how often it had to be started again."""

    number: int
    pid: int | None
    interface: str
    sas: int
    restarts: int


@dataclass(frozen=True, slots=True, kw_only=True)
class RadiusServerStatus:
    """A RADIUS server in one of its roles. `idle`: seconds since its last answer, None for never; `trouble`: why it is
    dead; `dropped`: answers that were not believed, by reason."""

    name: str  # of the group
    server: str
    role: str  # authentication or accounting
    state: str  # answers, dead, or not asked yet
    requests: int
    repeated: int
    answered: int
    unanswered: int
    dropped: dict[str, int]
    idle: float | None
    trouble: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Status:
    """A client or gateway. `counters` are of the whole process, by name; `dropped` are all packets that the data plane
    has dropped since it began, by reason (`ikeway.esp.drops.Drop`), those of SAs that are gone too."""

    role: str  # client or gateway
    name: str
    state: str
    version: str
    pid: int
    uptime: float
    interface: str = ""
    mtu: int = 0
    routes: tuple[str, ...] = ()
    dns: tuple[str, ...] = ()
    domains: tuple[str, ...] = ()
    sessions: tuple[SessionStatus, ...] = ()
    half_open: int = 0
    pools: tuple[PoolStatus, ...] = ()
    workers: tuple[WorkerStatus, ...] = ()  # none when the kernel carries ESP
    radius: tuple[RadiusServerStatus, ...] = ()
    counters: dict[str, int] = field(default_factory=dict)
    dropped: dict[str, int] = field(default_factory=dict)
    error: str = ""  # why it does not work at the moment

    def to_json(self) -> dict[str, Any]:
        """As it goes over the control socket."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, fields: Mapping[str, Any]) -> Status:
        """What came over the control socket. Raises `HostError` when a program of quite another version has sent it:
        an upgrade leaves those running that run."""
        try:
            return _status_from_json(fields)
        except (KeyError, TypeError) as error:
            raise HostError(
                f"the status of {fields.get('role', 'a program')} {fields.get('name', '')} is not understood here",
                expected=f"one of ikeway {__version__}",
                got=f"one of ikeway {fields.get('version', '(which does not say)')}",
                remedy="start it anew, or look at it with --json",
            ) from error


def _status_from_json(fields: Mapping[str, Any]) -> Status:
    sessions = (
        {
            **session,
            "addresses": tuple(session["addresses"]),
            "proofs": tuple(session.get("proofs", ())),
            "children": tuple(_child_from_json(child) for child in session["children"]),
        }
        for session in fields["sessions"]
    )
    parts = {
        "sessions": tuple(_known(SessionStatus, session) for session in sessions),
        "pools": tuple(_known(PoolStatus, pool) for pool in fields["pools"]),
        "workers": tuple(_known(WorkerStatus, worker) for worker in fields["workers"]),
        "radius": tuple(_known(RadiusServerStatus, server) for server in fields.get("radius", ())),
    }
    lists = {name: tuple(fields[name]) for name in ("routes", "dns", "domains")}
    return _known(Status, {**fields, **lists, **parts})


def _known(kind: type[Part], fields: Mapping[str, Any]) -> Part:
    """One of these, without what only a later version says."""
    names = {each.name for each in dataclasses.fields(kind)}  # type: ignore[arg-type]  # all are dataclasses
    return kind(**{name: value for name, value in fields.items() if name in names})


def session_status(sa: IkeSa, counters: CountersBySa, now: float, *, addresses: Iterable[object] = ()) -> SessionStatus:
    """The status of an IKE SA. `now` is on the engine's clock and on that of `Counters.last_used`."""
    nat = {
        (False, False): "",
        (True, False): "this side",
        (False, True): "the peer",
        (True, True): "both sides",
    }[sa.nat.self_behind_nat, sa.nat.peer_behind_nat]
    return SessionStatus(
        id=sa.connection_id,
        name=sa.name,
        state=sa.state.value,
        role="initiator" if sa.is_initiator else "responder",
        local=str(sa.local),
        remote=str(sa.remote),
        local_identity=str(sa.local_identity or ""),
        remote_identity=str(sa.remote_identity or ""),
        eap_identity=(sa.eap_identity or b"").decode("utf-8", "replace"),
        initiator_spi=sa.channel.initiator_spi.hex(),
        responder_spi=sa.channel.responder_spi.hex(),
        suite=str(sa.suite or ""),
        age=max(now - sa.created, 0.0),
        nat=nat,
        mobike=sa.mobike,
        addresses=tuple(str(address) for address in addresses),
        children=tuple(child_status(child, counters, now) for child in sa.live_children),
        rekey_in=_left(sa, "rekey", now),
        login_in=_left(sa, "reauthenticate", now),
        expires_in=_left(sa, "life", now),
        proofs=tuple(map(str, sa.proofs)),
    )


def child_status(child: ChildSa, counters: CountersBySa, now: float) -> ChildStatus:
    """The status of a child SA."""
    inbound = counters.get((child.spi_in, True), Counters())
    outbound = counters.get((child.spi_out, False), Counters())
    dropped = dict(inbound.dropped)
    for reason, count in outbound.dropped.items():
        dropped[reason] = dropped.get(reason, 0) + count
    last_used = max(inbound.last_used, outbound.last_used)
    return ChildStatus(
        name=child.name,
        state=child.state.value,
        spi_in=f"{child.spi_in:08x}",
        spi_out=f"{child.spi_out:08x}",
        suite=str(child.suite),
        mode=child.mode.value,
        encapsulation=child.esp_in.encapsulation.value,
        local=tuple(format_selector(selector) for selector in child.local_selectors),
        remote=tuple(format_selector(selector) for selector in child.remote_selectors),
        age=max(now - child.created, 0.0),
        packets_in=inbound.packets,
        packets_out=outbound.packets,
        octets_in=inbound.octets,
        octets_out=outbound.octets,
        idle=max(now - last_used, 0.0) if last_used else None,
        dropped={reason: count for reason, count in dropped.items() if count},
        id=child.child_id,
        rekey_in=_left(child.sa, ("child-rekey", child), now),
        expires_in=_left(child.sa, ("child-life", child), now),
    )


def drops(counters: CountersBySa) -> dict[str, int]:
    """All dropped packets by reason, in the order of the reasons' names."""
    found: Counter[str] = Counter()
    for each in counters.values():
        found.update(each.dropped)
    return {reason: found[reason] for reason in sorted(found) if found[reason]}


def _left(sa: IkeSa, timer: Hashable, now: float) -> float | None:
    at = sa.timers.get(timer)
    return max(at - now, 0.0) if at is not None else None


def _child_from_json(fields: Mapping[str, Any]) -> ChildStatus:
    return _known(ChildStatus, {**fields, "local": tuple(fields["local"]), "remote": tuple(fields["remote"])})
