from ipaddress import ip_address, ip_interface, ip_network

from hypothesis import given
from hypothesis import strategies as st

from ikeway.client.assigned import read_assigned
from ikeway.wire.payloads import ConfigurationAttribute
from ikeway.wire.registry import ConfigurationAttributeType as Attribute


def attribute(kind, *values):
    return ConfigurationAttribute(kind, b"".join(v if isinstance(v, bytes) else ip_address(v).packed for v in values))


def test_everything_that_a_gateway_assigns():
    assigned = read_assigned(
        [
            attribute(Attribute.INTERNAL_IP4_ADDRESS, "10.0.0.7"),
            attribute(Attribute.INTERNAL_IP4_NETMASK, "255.255.255.0"),
            attribute(Attribute.INTERNAL_IP6_ADDRESS, "fd00::7", b"\x40"),
            attribute(Attribute.INTERNAL_IP4_DNS, "10.0.0.53"),
            attribute(Attribute.INTERNAL_IP6_DNS, "fd00::53"),
            attribute(Attribute.INTERNAL_IP4_SUBNET, "10.0.0.0", "255.0.0.0"),
            attribute(Attribute.INTERNAL_IP6_SUBNET, "fd00::", b"\x08"),
            attribute(Attribute.INTERNAL_DNS_DOMAIN, b"Example.ORG."),
            attribute(Attribute.APPLICATION_VERSION, b"gateway 1\xff"),
        ]
    )
    assert assigned.addresses == (ip_interface("10.0.0.7/32"), ip_interface("fd00::7/128"))
    assert assigned.dns_servers == (ip_address("10.0.0.53"), ip_address("fd00::53"))
    assert assigned.subnets == (ip_network("10.0.0.0/8"), ip_network("fd00::/8"))
    assert assigned.domains == ("example.org",)
    assert assigned.version == "gateway 1\ufffd"
    assert assigned.ignored == ()


def test_what_makes_no_sense_is_left_out_and_named():
    assigned = read_assigned(
        [
            attribute(Attribute.INTERNAL_IP4_ADDRESS, b"\x0a\x00\x00"),
            attribute(Attribute.INTERNAL_IP4_ADDRESS, "0.0.0.0"),
            attribute(Attribute.INTERNAL_IP4_ADDRESS, "127.0.0.1"),
            attribute(Attribute.INTERNAL_IP4_DNS, "224.0.0.1"),
            attribute(Attribute.INTERNAL_IP4_SUBNET, "10.0.0.0", "255.0.255.0"),
            attribute(Attribute.INTERNAL_IP6_SUBNET, "fd00::", b"\xff"),
            attribute(Attribute.INTERNAL_DNS_DOMAIN, b"evil\nnameserver 6.6.6.6"),
            attribute(Attribute.INTERNAL_DNS_DOMAIN, b"-a.example"),
            attribute(Attribute.INTERNAL_DNS_DOMAIN, b"x" * 64),
            attribute(Attribute.INTERNAL_DNS_DOMAIN, b"\xc3\xa9.example"),
        ]
    )
    assert assigned.addresses == assigned.dns_servers == assigned.subnets == assigned.domains == ()
    assert len(assigned.ignored) == 10


def test_empty_attributes_say_nothing():
    assert read_assigned([attribute(kind) for kind in Attribute]).ignored == ()


@given(st.lists(st.tuples(st.sampled_from(list(Attribute)), st.binary(max_size=40))))
def test_any_octets(pairs):
    assigned = read_assigned([ConfigurationAttribute(kind, value) for kind, value in pairs])
    assert all(part.isascii() and "\n" not in part and " " not in part for part in assigned.domains)
