"""Data planes without IKE in a guest: the kernel's and ours, with keys known to both. A suite for one boot.

Every algorithm, mode and road once, kernel to kernel and our userspace ESP to the kernel's; then what the kernel tells.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import itertools
import socket
import threading
import time
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import dataclass, field
from typing import Any, TypeVar

from ikeway.address import Address
from ikeway.crypto.algorithms import encryption_algorithms, encryption_info, integrity_algorithms
from ikeway.dataplane.interface import DataPlaneEvent, HardExpired, PeerMoved, SoftExpired
from ikeway.dataplane.kernel.plane import KernelDataPlane
from ikeway.dataplane.kernel.support import probe
from ikeway.dataplane.userspace.plane import UserspaceDataPlane
from ikeway.dataplane.userspace.sockets import open_esp, open_udp
from ikeway.errors import HostError
from ikeway.esp.parameters import Encapsulation, EspLimits, EspTransforms, Mode
from ikeway.host.linux import xfrm
from ikeway.host.namespaces import Namespace, Port, connect
from ikeway.host.tun import open_tun
from ikeway.wire.registry import EncryptionAlgorithm, IntegrityAlgorithm
from tests.dataplane.tunnels import GCM, network, sa_pair
from tests.interop.traffic import RunningTransfer, ping, transfer
from tests.interop.waiting import wait_until
from tests.kernel.case import Suite

SUITE = Suite("ipv6", "veth", "tun", "xfrm_user", "esp4", "esp6", "iptable_nat", "xt_nat", "xfrm_interface")

Result = TypeVar("Result")
Plane = KernelDataPlane | UserspaceDataPlane


@dataclass
class Side:
    """A data plane in a namespace, on an event loop of its own."""

    number: int
    namespace: Namespace
    plane: Plane
    loop: asyncio.AbstractEventLoop
    interface: str = ""
    events: list[DataPlaneEvent] = field(default_factory=list)

    def do(self, work: Coroutine[Any, Any, Result]) -> Result:
        """Run a coroutine on the side's loop, in its namespace."""
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(60)

    def outer(self, ipv6: bool = False) -> Address:
        return Address(f"fd77::{self.number}" if ipv6 else f"10.77.0.{self.number}", 4500)

    @property
    def inner(self) -> str:
        return f"10.78.0.{self.number}"

    @property
    def inner_ipv6(self) -> str:
        return f"fd78::{self.number}"

    def told(self, event: DataPlaneEvent) -> None:
        """Wait until the data plane has told of something."""
        wait_until(lambda: event in self.events, f"no {event}", logs=lambda: str(self.events))


def _userspace(sockets: list[socket.socket]) -> Plane:
    return UserspaceDataPlane(open_tun("user%d"), sockets, esp=[open_esp("0.0.0.0"), open_esp("::")])


@contextlib.contextmanager
def running(number: int, namespace: Namespace, make: Callable[[list[socket.socket]], Plane]) -> Iterator[Side]:
    """A side with its loop in a thread of the namespace."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=lambda: namespace.call(loop.run_forever), daemon=True)
    thread.start()

    sockets: list[socket.socket] = []

    async def made() -> Plane:
        sockets.extend(open_udp(Address(host, 4500)) for host in ("0.0.0.0", "::"))
        return make(sockets)

    plane = asyncio.run_coroutine_threadsafe(made(), loop).result(60)
    side = Side(number, namespace, plane, loop)
    try:
        side.do(plane.start(side.events.append))
        side.interface = plane.interface if isinstance(plane, KernelDataPlane) else plane.tun.name
        for words in (
            f"address add {side.inner}/24 dev {side.interface}",
            f"-6 address add {side.inner_ipv6}/64 dev {side.interface} nodad",
            f"link set {side.interface} mtu 1400 up",
        ):
            namespace.run(["ip", *words.split()])
        yield side
    finally:
        side.do(plane.stop())
        for each in sockets:
            each.close()
        loop.call_soon_threadsafe(loop.stop)
        thread.join(10)


class Guest:
    """Two hosts with a wire between them."""

    def __init__(self, left: Namespace, right: Namespace, interface: bool) -> None:
        self.left, self.right, self.interface = left, right, interface
        self._spis = itertools.count(0x1001, 2)

    @contextlib.contextmanager
    def planes(self, kind: str = "kernel") -> Iterator[tuple[Side, Side]]:
        """Left one of that kind, right one in the kernel. Nothing is left afterwards."""
        left = _userspace if kind == "userspace" else self._kernel
        with (
            running(1, self.left, left) as one,
            running(2, self.right, self._kernel) as other,
        ):
            yield one, other
        for namespace in (self.left, self.right):
            rest = namespace.run(["sh", "-c", "ip xfrm state; ip xfrm policy; ip -o link | grep kern || true"])
            assert rest == "", rest

    def _kernel(self, sockets: list[socket.socket]) -> Plane:
        return KernelDataPlane("kern%d", sockets, sockets, interface=self.interface)

    def join(self, one: Side, other: Side, *, ipv6: bool = False, **changes: object) -> int:
        """A child SA in both directions. Returns the SPI from the first to the second; the other is one more."""
        spi = next(self._spis)
        for sender, receiver, number in ((one, other, spi), (other, one, spi + 1)):
            ends = (sender.outer(ipv6), receiver.outer(ipv6))
            changed = {
                **_selectors(sender, receiver, changes.get("mode", Mode.TUNNEL), ipv6),
                **changes,
                "child_id": spi,
            }
            outbound, inbound = sa_pair(number, *ends, **changed)
            receiver.do(receiver.plane.add_inbound(inbound))
            sender.do(sender.plane.add_outbound(outbound))
        return spi

    def part(self, one: Side, other: Side, spi: int, *, ipv6: bool = False) -> None:
        """Remove it."""
        for sender, receiver, number in ((one, other, spi), (other, one, spi + 1)):
            sender.do(sender.plane.remove_outbound(number, receiver.outer(ipv6)))
            receiver.do(receiver.plane.remove_inbound(number))


def _selectors(sender: Side, receiver: Side, mode: object, ipv6: bool) -> dict[str, object]:
    if mode is Mode.TRANSPORT:
        pair = [(network(f"{side.outer(ipv6).host}/{128 if ipv6 else 32}"),) for side in (sender, receiver)]
    else:
        pair = [(network(f"{side.inner}/32"), network(f"{side.inner_ipv6}/128")) for side in (sender, receiver)]
    return {"source": pair[0], "destination": pair[1]}


@contextlib.contextmanager
def prepare() -> Iterator[Guest]:
    with Namespace("left") as left, Namespace("right") as right:
        connect(Port(left, "wan", ("10.77.0.1/24", "fd77::1/64")), Port(right, "wan", ("10.77.0.2/24", "fd77::2/64")))
        for namespace in (left, right):
            namespace.run(["sh", "-c", "echo 0 0 > /proc/sys/net/ipv4/ping_group_range"])
            namespace.run(["sh", "-c", "echo 1 > /proc/sys/net/ipv4/conf/wan/promote_secondaries"])
        support = left.call(probe)
        assert support.available, support
        yield Guest(left, right, support.interface)


def every_transform() -> list[EspTransforms]:
    """Every encryption, and every integrity algorithm, once; ESN with one of each kind."""
    cbc, sha = EncryptionAlgorithm.ENCR_AES_CBC, IntegrityAlgorithm.AUTH_HMAC_SHA2_256_128
    found = [
        EspTransforms(
            encryption=algorithm,
            key_bits=bits,
            integrity=None if encryption_info(algorithm, bits).is_aead else sha,
        )
        for algorithm, bits in encryption_algorithms()
    ]
    found += [EspTransforms(encryption=cbc, key_bits=128, integrity=each) for each in integrity_algorithms()]
    extended = [dataclasses.replace(each, extended_sequence_numbers=True) for each in (GCM, found[0])]
    return list(dict.fromkeys(found + extended))


def answers(one: Side, other: Side, *hosts: str) -> None:
    """Pings pass through the tunnel."""
    for host in hosts or (other.inner,):
        result = ping(one.namespace, host, count=2, interval=0.01, timeout=4)
        assert result.lost == 0, (host, result, one.do(one.plane.counters()), other.do(other.plane.counters()))


@SUITE.case("kernel")
@SUITE.case("userspace")
def algorithms(guest: Guest, kind: str) -> None:
    """Every algorithm on protocol 50, to and fro."""
    with guest.planes(kind) as (one, other):
        refused = []
        for transforms in every_transform():
            try:
                spi = guest.join(one, other, transforms=transforms, encapsulation=Encapsulation.ESP)
            except HostError as error:
                refused.append((str(transforms), error.reason))
                continue
            answers(one, other)
            guest.part(one, other, spi)
        assert not refused, refused


@SUITE.case("kernel")
@SUITE.case("userspace")
def roads(guest: Guest, kind: str) -> None:
    """IPv4 and IPv6 inside and outside, protocol 50 and UDP, ping and transfer with a hash."""
    with guest.planes(kind) as (one, other):
        for encapsulation, ipv6 in itertools.product(Encapsulation, (False, True)):
            spi = guest.join(one, other, encapsulation=encapsulation, ipv6=ipv6)
            answers(one, other, other.inner, other.inner_ipv6)
            for host, (sender, receiver) in (
                (other.inner, (one, other)),
                (other.inner_ipv6, (one, other)),
                (one.inner, (other, one)),
            ):
                transfer(sender.namespace, receiver.namespace, host, megabytes=10)
            assert _carried(one, other, spi) > 20_000_000
            guest.part(one, other, spi, ipv6=ipv6)


@SUITE.case("kernel")
def roads_quickly(guest: Guest, kind: str) -> None:
    """The same with less to carry, for guests that are slow."""
    with guest.planes(kind) as (one, other):
        for encapsulation, ipv6 in ((Encapsulation.ESP, False), (Encapsulation.UDP, True)):
            spi = guest.join(one, other, encapsulation=encapsulation, ipv6=ipv6)
            answers(one, other, other.inner, other.inner_ipv6)
            transfer(one.namespace, other.namespace, other.inner, megabytes=2)
            assert _carried(one, other, spi) > 2_000_000
            guest.part(one, other, spi, ipv6=ipv6)


@SUITE.case()
def policies_are_the_interface_s(guest: Guest) -> None:
    """With xfrm interfaces, what is not routed into ours is none of our policies' business; without, this says so."""
    with guest.planes() as (one, other):
        guest.join(one, other)
        shown = one.namespace.run(["ip", "-d", "link", "show", one.interface])
        assert guest.interface == ("xfrm if_id" in shown), shown
        policies = one.namespace.run(["ip", "xfrm", "policy"])
        ours = policies.count("tmpl")
        assert ours == 6, policies  # in, forward and out, for IPv4 and IPv6
        assert policies.count("if_id") == (ours if guest.interface else 0), policies
        answers(one, other)


def _carried(one: Side, other: Side, spi: int) -> int:
    """Octets that the second side has received on the SA, which are those that the first has sent."""
    received = other.do(other.plane.counters())[spi, True]  # first: a last acknowledgement may still be under way
    sent = one.do(one.plane.counters())[spi, False]
    assert 0 < received.octets <= sent.octets
    ago = time.clock_gettime(time.CLOCK_BOOTTIME) - received.last_used
    assert received.last_used and -1 < ago < 60, (ago, received)
    return received.octets


@SUITE.case(Encapsulation.ESP, False)
@SUITE.case(Encapsulation.UDP, False)
@SUITE.case(Encapsulation.ESP, True)
def transport(guest: Guest, encapsulation: Encapsulation, ipv6: bool) -> None:
    """Transport mode: the outer addresses themselves, without a route into the tunnel."""
    with guest.planes() as (one, other):
        spi = guest.join(one, other, mode=Mode.TRANSPORT, encapsulation=encapsulation, ipv6=ipv6)
        host = other.outer(ipv6).host
        answers(one, other, host)
        transfer(one.namespace, other.namespace, host, megabytes=5)
        assert _carried(one, other, spi) > 5_000_000


@SUITE.case()
def a_rekeying_takes_over_at_once(guest: Guest) -> None:
    """The last SA that was added sends; when it goes, the one before does again."""
    with guest.planes() as (one, other):
        first = guest.join(one, other)
        answers(one, other)
        second = guest.join(one, other)
        before = one.do(one.plane.counters())[first, False].packets
        answers(one, other)
        counters = one.do(one.plane.counters())
        assert counters[first, False].packets == before
        assert counters[second, False].packets == 2
        guest.part(one, other, second)
        answers(one, other)
        assert one.do(one.plane.counters())[first, False].packets == before + 2


@SUITE.case()
def limits_are_told(guest: Guest) -> None:
    """Soft: asks for a rekeying. Hard: the SA carries nothing any more."""
    with guest.planes() as (one, other):
        limits = EspLimits(soft_packets=3, hard_packets=6)
        spi = guest.join(one, other, limits=limits)
        answers(one, other)
        assert one.events == []
        answers(one, other)
        one.told(SoftExpired(spi, False))
        other.told(SoftExpired(spi, True))
        assert HardExpired(spi, False) not in one.events
        assert ping(one.namespace, other.inner, count=4, interval=0.01, timeout=0.3).received < 4
        one.told(HardExpired(spi, False))
        assert one.events.count(SoftExpired(spi, False)) == 1
        spi = guest.join(one, other, limits=EspLimits(soft_bytes=1_000_000))
        transfer(one.namespace, other.namespace, other.inner, megabytes=2)
        one.told(SoftExpired(spi, False))


@SUITE.case()
def a_removed_state_is_told(guest: Guest) -> None:
    """Somebody flushes the kernel's states: what was to be sent on them tells."""
    with guest.planes() as (one, other):
        spi = guest.join(one, other)
        one.namespace.run(["ip", "xfrm", "state", "flush"])
        ping(one.namespace, other.inner, count=1, timeout=0.1)
        one.told(HardExpired(spi, False))


@SUITE.case("address")
@SUITE.case("encapsulation")
@SUITE.case("family")
def a_move_goes_on_with_the_numbers(guest: Guest, what: str) -> None:
    """MOBIKE: another address, or UDP, in the middle of a transfer; not a sequence number is used twice."""
    with another_address(guest.left), guest.planes() as (one, other):
        spi = guest.join(one, other, limits=EspLimits(soft_packets=3))
        answers(one, other)
        running = RunningTransfer(one.namespace, other.namespace, other.inner, megabytes=30)
        running.wait_for(5_000_000)
        before = counted(one, spi)
        local, remote, udp = {
            "address": (Address("10.77.0.3", 4500), other.outer(), True),
            "encapsulation": (one.outer(), other.outer(), False),
            "family": (one.outer(True), other.outer(True), True),
        }[what]
        other.do(other.plane.move(1, remote, local, udp))
        one.do(one.plane.move(1, local, remote, udp))
        if what == "address":
            one.namespace.run(["ip", "address", "delete", "10.77.0.1/24", "dev", "wan"])
        running.result()
        # The connection's last FIN and ACK go out after its end: look until both sides say the same.
        wait_until(
            lambda: _state(other, spi).replay.received == _state(one, spi).replay.sent == counted(one, spi) > before,
            "sequence numbers began anew, or a packet was lost after the move",
            logs=lambda: f"{_state(one, spi)}, {_state(other, spi)}, {counted(one, spi)} packets, {before} before",
        )
        assert other.do(other.plane.counters())[spi, True].dropped == {}
        assert one.events.count(SoftExpired(spi, False)) == 1, "a soft limit was told of twice"


@contextlib.contextmanager
def another_address(namespace: Namespace) -> Iterator[None]:
    """A second address, and the first one again afterwards."""
    namespace.run(["ip", "address", "add", "10.77.0.3/24", "dev", "wan"])
    try:
        yield
    finally:
        namespace.run(["ip", "address", "delete", "10.77.0.3/24", "dev", "wan"])
        namespace.run(["ip", "address", "replace", "10.77.0.1/24", "dev", "wan"])


def counted(side: Side, spi: int) -> int:
    """Packets that a side has sent on an SA, as its data plane counts them."""
    return side.do(side.plane.counters())[spi, False].packets


def _state(side: Side, spi: int) -> Any:
    async def found() -> Any:
        with xfrm.open_xfrm() as nl:
            return next(each for each in xfrm.states(nl) if each.spi == spi)

    return side.do(found())


@SUITE.case()
def a_peer_behind_a_nat_that_moves_is_told(guest: Guest) -> None:
    """The NAT gives the peer another port: the first authentic packet says so."""
    with guest.planes() as (one, other):
        guest.join(one, other)
        answers(one, other)
        one.namespace.run(["iptables-legacy", "-t", "nat", "-A", "POSTROUTING", "-p", "udp", "--sport", "4500",
                           "-j", "SNAT", "--to-source", "10.77.0.1:4777"])  # fmt: skip
        try:
            # Flows that are known keep their port: a new pair of addresses.
            spi = guest.join(one, other, ipv6=False)
            ping(one.namespace, other.inner, count=2, timeout=0.2)
            moved = [event for event in other.events if isinstance(event, PeerMoved)]
            if not moved:  # the flow was known already: let it be forgotten
                one.namespace.run(["sh", "-c", "echo 1 > /proc/sys/net/netfilter/nf_conntrack_udp_timeout_stream"])
                time.sleep(2.5)
                ping(one.namespace, other.inner, count=2, timeout=0.2)
            other.told(PeerMoved(spi, Address("10.77.0.1", 4777)))
            other.do(other.plane.move(1, other.outer(), Address("10.77.0.1", 4777), True))
        finally:
            one.namespace.run(["iptables-legacy", "-t", "nat", "-F"])


@SUITE.case()
def foreign_states_stay(guest: Guest) -> None:
    """What another daemon has in the kernel is neither touched nor taken for ours."""
    words = "src 10.99.0.1 dst 10.99.0.2"
    state = f"ip xfrm state add {words} proto esp spi 0x42 reqid 16385 mode tunnel enc 'cbc(aes)' 0x{'11' * 16}"
    policy = (
        f"ip xfrm policy add src 10.98.0.0/24 dst 10.97.0.0/24 dir out tmpl {words} proto esp reqid 16385 mode tunnel"
    )
    guest.left.run(["sh", "-c", f"{state} auth-trunc 'hmac(sha256)' 0x{'22' * 32} 128; {policy}"])
    try:
        with contextlib.suppress(AssertionError), guest.planes() as (one, other):
            guest.join(one, other)
            answers(one, other)
            assert (0x42, False) not in one.do(one.plane.counters())
        assert guest.left.run(["ip", "xfrm", "state"]).count("proto esp") == 1
        assert guest.left.run(["ip", "xfrm", "policy"]).count("tmpl") == 1
    finally:
        guest.left.run(["sh", "-c", "ip xfrm state flush; ip xfrm policy flush"])


@SUITE.case()
def an_spi_or_policy_of_somebody_else_is_refused(guest: Guest) -> None:
    """Told as an error of the host, and nothing of ours stays."""
    with guest.planes() as (one, other):
        spi = guest.join(one, other)

        async def again() -> None:
            (inbound,) = [each.sa for each in other.plane._installed.values() if each.inbound]
            await other.plane.add_inbound(dataclasses.replace(inbound, child_id=99))

        try:
            other.do(again())
        except HostError as error:
            assert f"{spi:08x}" in error.reason
        else:
            raise AssertionError("an SPI was taken twice")
        answers(one, other)


@SUITE.case()
def thousands(guest: Guest) -> None:
    """Many child SAs: made, read and removed in a time that grows with their number, not with its square."""
    with guest.planes() as (one, _):
        took = {}
        for count in (200, 800):
            began = time.monotonic()
            for number in range(count):
                _many(one, number)
            made = time.monotonic()
            assert len(one.do(one.plane.counters())) == 2 + count
            for number in range(count):
                one.do(one.plane.remove_outbound(0x10000 + number, Address("10.77.0.2", 4500)))
            took[count] = (made - began, time.monotonic() - made)
        assert sum(took[800]) < 4 * 3 * sum(took[200]), took
        print(took)


def _many(side: Side, number: int) -> None:
    client = f"10.79.{number >> 8}.{number & 255}"
    outbound, _ = sa_pair(
        0x10000 + number,
        side.outer(),
        Address("10.77.0.2", 4500),
        child_id=number,
        source=(network("0.0.0.0/0"),),
        destination=(network(f"{client}/32"),),
    )
    side.do(side.plane.add_outbound(outbound))
