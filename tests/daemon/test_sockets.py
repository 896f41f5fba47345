import asyncio
import errno
import socket

import pytest

from ikeway.address import Address
from ikeway.daemon.sockets import NON_ESP_MARKER, IkeSockets, Listen, local_address_for
from ikeway.errors import HostError
from tests.ports import unused_port


class Inbox:
    def __init__(self, sockets):
        self.queue = asyncio.Queue()
        sockets.on_datagram = lambda *arrived: self.queue.put_nowait(arrived)

    async def get(self):
        return await asyncio.wait_for(self.queue.get(), 2)


@pytest.fixture
async def pair():
    """Two daemons on free ports of all addresses."""
    made = []
    for _ in range(2):
        sockets = IkeSockets(Listen(ike_port=0, nat_port=0))
        sockets.open()
        sockets.start()
        made.append(sockets)
    yield made
    for sockets in made:
        sockets.close()


def has_ipv6():
    try:
        with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as probe:
            probe.bind(("::1", 0))
    except OSError:
        return False
    return True


ADDRESSES = ["127.0.0.1", "127.0.0.7", pytest.param("::1", marks=pytest.mark.skipif(not has_ipv6(), reason="no IPv6"))]


@pytest.mark.parametrize("host", ADDRESSES)
@pytest.mark.parametrize("nat", [False, True])
async def test_both_addresses_are_known_and_obeyed(pair, host, nat):
    one, two = pair
    inbox, back = Inbox(two), Inbox(one)
    source = "127.0.0.5" if "." in host else "::1"
    local = Address(source, one.local_port(source, nat=nat))
    remote = Address(host, two.local_port(host, nat=nat))
    one.send(b"question", local, remote)
    assert await inbox.get() == (b"question", remote, local)
    two.send(b"answer", remote, local)
    assert await back.get() == (b"answer", local, remote)


async def test_engine_names_of_the_ports_lead_to_the_real_ones(pair):
    one, two = pair
    inbox = Inbox(two)
    target = Address("127.0.0.1", two.local_port("127.0.0.1", nat=True))
    one.send(b"x", Address("127.0.0.1", 4500), target)
    _, _, source = await inbox.get()
    assert source.port == one.local_port("127.0.0.1", nat=True)


async def test_marker_is_on_the_wire_and_esp_is_not_taken_for_ike(pair):
    one, _ = pair
    inbox = Inbox(one)
    raw = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    raw.bind(("127.0.0.1", 0))
    raw.settimeout(2)
    target = ("127.0.0.1", one.local_port("127.0.0.1", nat=True))
    for octets in (b"\xff", b"\x00\x00\x00\x01" + bytes(40), b"", b"\x00\x00", NON_ESP_MARKER, NON_ESP_MARKER + b"ike"):
        raw.sendto(octets, target)
    octets, local, remote = await inbox.get()
    assert (octets, local, remote.port) == (b"ike", Address(*target), raw.getsockname()[1])
    assert inbox.queue.empty()
    assert one.counters.dropped["ESP without a data plane"] == 3
    one.send(b"reply", local, remote)
    assert raw.recv(100) == NON_ESP_MARKER + b"reply"
    one.send_keepalive(local, remote)
    assert raw.recv(100) == b"\xff"
    raw.close()


async def test_tap_sees_the_wire(pair):
    one, two = pair
    seen = []
    two.tap = lambda *what: seen.append(what)
    inbox = Inbox(two)
    local = Address("127.0.0.1", one.local_port("127.0.0.1", nat=True))
    remote = Address("127.0.0.1", two.local_port("127.0.0.1", nat=True))
    one.send(b"ike", local, remote)
    await inbox.get()
    two.send(b"answer", remote, local)
    assert seen == [(NON_ESP_MARKER + b"ike", remote, local, False), (NON_ESP_MARKER + b"answer", remote, local, True)]


async def test_nobody_there_is_told(pair):
    one, _ = pair
    told = asyncio.Queue()
    one.on_unreachable = lambda *what: told.put_nowait(what)
    nobody = Address("127.0.0.1", unused_port())
    local = Address("127.0.0.1", one.local_port("127.0.0.1", nat=False))
    one.send(b"anybody?", local, nobody)
    assert await asyncio.wait_for(told.get(), 2) == (nobody, errno.ECONNREFUSED)


async def test_pending_error_of_one_peer_costs_no_message_to_another(pair):
    one, two = pair
    inbox = Inbox(two)
    one.start(nat_too=False)
    for each in one.sockets:  # nobody reads the error but the next send
        if not each.nat:
            asyncio.get_running_loop().remove_reader(each.socket)
    nobody = Address("127.0.0.1", unused_port())
    local = Address("127.0.0.1", one.local_port("127.0.0.1", nat=False))
    one.send(b"anybody?", local, nobody)
    one.send(b"hello", local, Address("127.0.0.1", two.local_port("127.0.0.1", nat=False)))
    assert (await inbox.get())[0] == b"hello"


async def test_no_such_source_address_counts_as_loss(pair):
    one, two = pair
    told = []
    one.on_unreachable = lambda *what: told.append(what)
    port = one.local_port("127.0.0.1", nat=False)
    one.send(b"x", Address("192.0.2.77", port), Address("127.0.0.1", two.local_port("127.0.0.1", nat=False)))
    assert one.counters.lost == 1
    assert len(told) == 1


async def test_a_taken_port_is_named_or_gone_around(pair):
    one, _ = pair
    taken = one.local_port("127.0.0.1", nat=False)
    with pytest.raises(HostError, match=rf"UDP port {taken} on 127.0.0.1 is taken"):
        IkeSockets(Listen(hosts=("127.0.0.1",), ike_port=taken, nat_port=0)).open()
    other = IkeSockets(Listen(hosts=("127.0.0.1",), ike_port=taken, nat_port=0, fallback=True))
    other.open()
    assert other.local_port("127.0.0.1", nat=False) not in (taken, 0)
    with pytest.raises(HostError, match="no socket for ::1"):
        other.local_port("::1", nat=False)
    other.close()


async def test_failed_open_leaves_nothing_open(pair):
    one, _ = pair
    taken = one.local_port("127.0.0.1", nat=False)
    half = IkeSockets(Listen(hosts=("127.0.0.1",), ike_port=0, nat_port=taken))
    with pytest.raises(HostError):
        half.open()
    assert half.sockets == ()


async def test_address_that_the_host_lacks():
    with pytest.raises(HostError, match=r"192\.0\.2\.1"):
        IkeSockets(Listen(hosts=("192.0.2.1",), ike_port=0, nat_port=0)).open()


async def test_data_plane_may_read_in_our_place(pair):
    one, two = pair
    inbox = Inbox(two)
    two.start(nat_too=False)
    local = Address("127.0.0.1", one.local_port("127.0.0.1", nat=True))
    remote = Address("127.0.0.1", two.local_port("127.0.0.1", nat=True))
    one.send(b"for the worker", local, remote)
    await asyncio.sleep(0.05)
    assert inbox.queue.empty()
    two.start()  # the worker is gone: what waits in the socket is ours
    assert (await inbox.get())[0] == b"for the worker"


def test_local_address():
    assert local_address_for(Address("127.0.0.1", 500)) == "127.0.0.1"
