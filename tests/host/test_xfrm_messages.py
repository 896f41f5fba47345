"""What we send to the kernel's IPsec, read back by our own decoder, and compared with what `ip xfrm` sends."""

import socket
from ipaddress import ip_network

from hypothesis import given
from hypothesis import strategies as st

from ikeway.host.linux import netlink
from ikeway.host.linux import xfrm_messages as x
from ikeway.host.linux import xfrm_structures as s
from ikeway.host.linux.xfrm import Notifications

hosts4 = st.ip_addresses(v=4).map(str)
hosts6 = st.ip_addresses(v=6).filter(lambda host: not host.ipv4_mapped).map(str)
numbers = st.integers(0, 0xFFFFFFFF)
large = st.integers(0, (1 << 64) - 1)
ports = st.integers(0, 0xFFFF)


def networks(version):
    bits = 32 if version == 4 else 128
    return st.tuples(st.ip_addresses(v=version), st.integers(0, bits)).map(lambda pair: ip_network(pair, strict=False))


def selectors():
    return st.sampled_from((4, 6)).flatmap(
        lambda version: st.builds(
            s.Selector,
            source=networks(version),
            destination=networks(version),
            protocol=st.integers(0, 255),
            source_port=ports,
            source_port_mask=ports,
            destination_port=ports,
            destination_port_mask=ports,
        )
    )


algorithms = st.one_of(
    st.tuples(
        st.builds(s.Algorithm, name=st.just("rfc4106(gcm(aes))"), key=st.binary(min_size=20, max_size=36),
                  icv_bits=st.sampled_from((64, 96, 128)), is_aead=st.just(True))
    ),
    st.tuples(
        st.builds(s.Algorithm, name=st.just("cbc(aes)"), key=st.binary(min_size=16, max_size=32)),
        st.builds(s.Algorithm, name=st.just("hmac(sha256)"), key=st.binary(min_size=32, max_size=32), icv_bits=st.just(128)),
    ),
)  # fmt: skip


@st.composite
def replays(draw):
    window = draw(st.integers(32, s.LARGEST_REPLAY_WINDOW))
    octets = (window + 31) // 32 * 4
    bitmap = draw(st.binary(min_size=octets, max_size=octets))
    return s.Replay(sent=draw(large), received=draw(large), window=window, bitmap=bitmap)


@st.composite
def states(draw):
    host = draw(st.sampled_from((hosts4, hosts6)))
    return s.State(
        source=draw(host),
        destination=draw(host),
        spi=draw(numbers),
        reqid=draw(numbers),
        mode=draw(st.sampled_from((s.MODE_TUNNEL, s.MODE_TRANSPORT))),
        flags=draw(st.sampled_from((0, s.FLAG_ESN, s.FLAG_AF_UNSPEC))),
        selector=draw(st.none() | selectors()),
        algorithms=draw(algorithms),
        udp=draw(st.none() | st.builds(s.UdpPorts, source=ports, destination=ports)),
        replay=draw(st.none() | replays()),
        limits=draw(st.builds(s.Limits, soft_octets=large, hard_octets=large, soft_packets=large, hard_packets=large)),
        interface_id=draw(numbers),
        output_mark=draw(numbers),
        offload=draw(st.integers(0, 1 << 30)),
    )


templates = st.one_of(
    st.builds(s.Template, source=hosts, destination=hosts, reqid=numbers, mode=st.just(s.MODE_TUNNEL), spi=numbers)
    for hosts in (hosts4, hosts6)
)


@given(states())
def test_state_comes_back(state):
    fixed, attributes = x.encode_state(state)
    assert len(fixed) == 224  # sizeof(struct xfrm_usersa_info)
    assert x.decode_state(fixed + netlink.encode_attributes(attributes)) == state


@given(
    st.builds(s.Policy, direction=st.sampled_from((s.IN, s.OUT, s.FORWARD)), selector=selectors(), template=templates,
              priority=numbers, action=st.sampled_from((s.ALLOW, s.BLOCK)), interface_id=numbers, index=numbers)
)  # fmt: skip
def test_policy_comes_back(policy):
    fixed, attributes = x.encode_policy(policy)
    assert len(fixed) == 168  # sizeof(struct xfrm_userpolicy_info)
    assert x.decode_policy(fixed + netlink.encode_attributes(attributes)) == policy


@given(states(), st.booleans())
def test_expiry_names_the_state(state, hard):
    fixed, _ = x.encode_state(state)
    found = x.decode_notification(x.EXPIRE, fixed + bytes([hard]) + bytes(7))
    assert isinstance(found, s.Expired)
    assert (found.hard, found.state.spi, found.state.destination) == (hard, state.spi, state.destination)


@given(states())
def test_removal_tells_what_the_state_was(state):
    fixed, attributes = x.encode_state(state)
    id = x.encode_state_id(s.StateId(destination=state.destination, spi=state.spi))
    octets = id + netlink.encode_attributes({6: fixed}) + netlink.encode_attributes(attributes)
    assert x.decode_notification(x.DELETE_STATE, octets) == s.Deleted(state=state)


@given(states(), numbers, hosts4, ports)
def test_mapping_names_the_new_address(state, reqid, host, port):
    id = s.StateId(destination="10.0.0.1", spi=state.spi)
    octets = x.encode_state_id(id) + reqid.to_bytes(4, "little") + bytes(16) + x.pack_address(host) + bytes(2)
    found = x.decode_notification(x.MAPPING, octets + port.to_bytes(2, "big"))
    assert found == s.Mapped(id=id, reqid=reqid, source=host, port=port)


def test_news_that_nobody_listens_to_hide_none_behind_them():
    """Another program may make an SA just before we hear of the end of ours."""
    id = s.StateId(destination="10.0.0.1", spi=7)
    mapping = x.encode_state_id(id) + bytes(4 + 16) + x.pack_address("10.0.0.2") + bytes(2) + b"\x11\x94"
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    with ours, theirs:
        ours.setblocking(False)
        news = Notifications.__new__(Notifications)
        news.socket = ours
        for kind, body in ((x.NEW_STATE, b""), (x.MAPPING, mapping)):
            theirs.send(netlink.HEADER.pack(netlink.HEADER.size + len(body), kind, 0, 0, 0) + body)
        assert news.read() == [s.Mapped(id=id, reqid=0, source="10.0.0.2", port=4500)]
        assert news.read() == []


@given(selectors(), templates)
def test_acquisition_names_the_policy(selector, template):
    policy = s.Policy(direction=s.OUT, selector=selector, template=template)
    fixed, attributes = x.encode_policy(policy)
    octets = bytes(24 + 16) + fixed[:56] + fixed + bytes(16) + netlink.encode_attributes(attributes)
    assert x.decode_notification(x.ACQUIRE, octets) == s.Acquired(template=template, selector=selector)


# What iproute2 6.1 sends, without the netlink header, as `strace -e sendmsg -xx` shows it.
# ip xfrm state add src 10.0.0.1 dst 10.0.0.2 proto esp spi 0x1001 reqid 7 mode tunnel \
#   aead 'rfc4106(gcm(aes))' 0x1111111111111111111111111111111111111111 128 if_id 0x2a \
#   encap espinudp 4500 4501 0.0.0.0 flag af-unspec
STATE = bytes.fromhex(
    "0000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000"
    "0a00000200000000000000000000000000001001320000000a000001000000000000000000000000ffffffffffffffffffffffffffffffff"
    "ffffffffffffffffffffffffffffffff00000000000000000000000000000000000000000000000000000000000000000000000000000000"
    "0000000000000000000000000000000000000000000000000000000000000000000000000000000007000000020001002000000000000000"
    "60001200726663343130362867636d2861657329290000000000000000000000000000000000000000000000000000000000000000000000"
    "000000000000000000000000a00000008000000011111111111111111111111111111111111111111c000400020011941195000000000000"
    "00000000000000000000000008001f002a000000"
)

# ip xfrm policy add src 10.1.0.0/16 dst 10.2.0.1/32 proto tcp dport 80 dir out priority 100 if_id 0x2a \
#   tmpl src 10.0.0.1 dst 10.0.0.2 proto esp spi 0x1001 reqid 7 mode tunnel
POLICY = bytes.fromhex(
    "0a0200010000000000000000000000000a0100000000000000000000000000000050ffff0000000002002010060000000000000000000000"
    "ffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff000000000000000000000000000000000000000000000000"
    "0000000000000000000000000000000000000000000000000000000000000000000000000000000064000000000000000100000000000000"
    "440005000a0000020000000000000000000000000000100132000000020000000a0000010000000000000000000000000700000001000000"
    "ffffffffffffffffffffffff08001f002a000000"
)

STATE_OF_IP = s.State(
    source="10.0.0.1",
    destination="10.0.0.2",
    spi=0x1001,
    reqid=7,
    mode=s.MODE_TUNNEL,
    flags=s.FLAG_AF_UNSPEC,
    algorithms=(s.Algorithm(name="rfc4106(gcm(aes))", key=b"\x11" * 20, icv_bits=128, is_aead=True),),
    udp=s.UdpPorts(source=4500, destination=4501),
    interface_id=0x2A,
)
POLICY_OF_IP = s.Policy(
    direction=s.OUT,
    selector=s.Selector(
        source=ip_network("10.1.0.0/16"),
        destination=ip_network("10.2.0.1/32"),
        protocol=6,
        destination_port=80,
        destination_port_mask=0xFFFF,
    ),
    template=s.Template(source="10.0.0.1", destination="10.0.0.2", reqid=7, mode=s.MODE_TUNNEL, spi=0x1001),
    priority=100,
    interface_id=0x2A,
)


def test_state_is_what_iproute2_sends():
    fixed, attributes = x.encode_state(STATE_OF_IP)
    assert fixed == STATE[:224]
    theirs = netlink.decode_attributes(STATE[224:])
    assert {number: attributes[number] for number in theirs} == theirs
    assert x.decode_state(STATE) == STATE_OF_IP


def test_policy_is_what_iproute2_sends():
    fixed, attributes = x.encode_policy(POLICY_OF_IP)
    assert fixed == POLICY[:168]
    assert attributes == netlink.decode_attributes(POLICY[168:])
    assert x.decode_policy(POLICY) == POLICY_OF_IP
