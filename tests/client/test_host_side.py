"""What is made of the host, from the profile and what was agreed."""

from ipaddress import ip_address, ip_interface, ip_network

import pytest

from ikeway.address import Address
from ikeway.client.assigned import Assigned
from ikeway.client.profile import HostSettings
from ikeway.client.tunnel import Agreed, inside, tunnel_configuration
from ikeway.esp.parameters import EspTransforms
from ikeway.wire.registry import EncryptionAlgorithm

GCM = EspTransforms(encryption=EncryptionAlgorithm.ENCR_AES_GCM_16, key_bits=128, integrity=None)
V4, V6 = ip_interface("10.9.0.2/32"), ip_interface("fd09::2/128")
ALL4, ALL6 = ip_network("0.0.0.0/0"), ip_network("::/0")


def nets(*texts):
    return tuple(map(ip_network, texts))


def made(networks, *, addresses=(V4, V6), udp=True, gateway="192.0.2.1", outer=1500, **settings):
    assigned = Assigned(addresses=addresses)
    agreed = Agreed(
        gateway=Address(gateway, 4500), assigned=assigned, networks=nets(*networks), transforms=(GCM,), udp=udp
    )
    return tunnel_configuration(HostSettings(**settings), agreed, "ikeway0", outer)


def test_granted_networks_are_routed_as_far_as_there_is_an_address_for_them():
    assert made(["10.0.0.0/8", "fd00::/8"]).routes == nets("10.0.0.0/8", "fd00::/8")
    assert made(["10.0.0.0/8", "fd00::/8"], addresses=(V4,)).routes == nets("10.0.0.0/8")


def test_addresses_of_the_profile_are_added():
    agreed = Agreed(
        gateway=Address("192.0.2.1", 4500),
        assigned=Assigned(),
        networks=nets("10.0.0.0/8"),
        transforms=(GCM,),
        udp=True,
    )
    assert tunnel_configuration(HostSettings(), agreed, "ikeway0", 1500).routes == ()
    configuration = tunnel_configuration(HostSettings(addresses=(V4,)), agreed, "ikeway0", 1500)
    assert (configuration.addresses, configuration.routes) == ((V4,), nets("10.0.0.0/8"))


@pytest.mark.parametrize(
    ("wanted", "routes"),
    [
        (["10.1.0.0/16"], ["10.1.0.0/16"]),  # a part of what is granted
        (["0.0.0.0/0"], ["10.0.0.0/8"]),  # no more than what is granted
        (["192.168.0.0/16"], []),  # nothing of it
        (["fd00::/8"], []),
        ([], []),
    ],
)
def test_routes_of_the_profile_are_held_against_what_is_granted(wanted, routes):
    assert made(["10.0.0.0/8"], routes=nets(*wanted)).routes == nets(*routes)


@pytest.mark.parametrize(
    ("granted", "told", "routes"),
    [
        (["0.0.0.0/0"], ["10.1.0.0/16", "10.2.0.0/16"], ["10.1.0.0/16", "10.2.0.0/16"]),
        (["0.0.0.0/0"], [], ["0.0.0.0/0"]),  # the gateway names none
        (["0.0.0.0/0"], ["0.0.0.0/0"], ["0.0.0.0/0"]),
        (["0.0.0.0/0", "::/0"], ["10.1.0.0/16"], ["10.1.0.0/16", "::/0"]),  # each family by itself
        (["10.0.0.0/8"], ["10.1.0.0/16"], ["10.0.0.0/8"]),  # selectors that are no more than a hint say it already
    ],
)
def test_networks_that_the_gateway_names_are_routed_where_it_grants_everything(granted, told, routes):
    assigned = Assigned(addresses=(V4, V6), subnets=nets(*told), dns_servers=(ip_address("10.9.9.53"),))
    agreed = Agreed(
        gateway=Address("192.0.2.1", 4500), assigned=assigned, networks=nets(*granted), transforms=(GCM,), udp=True
    )
    configuration = tunnel_configuration(HostSettings(told_routes=True), agreed, "ikeway0", 1500)
    server = nets("10.9.9.53/32") if configuration.routes != nets(*routes) else ()
    assert configuration.routes == (*nets(*routes), *server)
    assert bool(server) is (routes[0] not in ("0.0.0.0/0", "10.0.0.0/8"))  # it is asked through the tunnel all the same
    assert configuration.block == ((ALL6,) if routes == ["0.0.0.0/0"] else ())
    assert tunnel_configuration(HostSettings(), agreed, "ikeway0", 1500).routes == nets(*granted)
    enclave = tunnel_configuration(inside(HostSettings(told_routes=True)), agreed, "ikeway0", 1500)
    assert enclave.routes == nets(*granted)


def test_full_tunnel_of_one_family_blocks_the_other():
    assert made(["0.0.0.0/0"], addresses=(V4,)).block == (ALL6,)
    assert made(["::/0"], addresses=(V6,)).block == (ALL4,)
    assert made(["0.0.0.0/0", "::/0"]).block == ()
    assert made(["0.0.0.0/0"], addresses=(V4,), block_leaks=False).block == ()
    assert made(["10.0.0.0/8"], addresses=(V4,)).block == ()


def names(configuration):
    return list(map(str, configuration.dns_servers)), list(configuration.search_domains), configuration.dns_for_all


@pytest.mark.parametrize(
    ("networks", "domains", "mode", "expected"),
    [
        (["0.0.0.0/0"], (), "auto", (["10.0.0.53"], [], True)),
        (["0.0.0.0/0"], ("a.example",), "auto", (["10.0.0.53"], ["a.example"], True)),
        (["10.0.0.0/8"], ("a.example",), "auto", (["10.0.0.53"], ["a.example"], False)),
        (["10.0.0.0/8"], (), "auto", (["10.0.0.53"], [], True)),
        (["10.0.0.0/8"], ("a.example",), "all", (["10.0.0.53"], ["a.example"], True)),
        (["10.0.0.0/8"], ("a.example",), "domains", (["10.0.0.53"], ["a.example"], False)),
        (["10.0.0.0/8"], (), "domains", ([], [], False)),
        (["10.0.0.0/8"], ("a.example",), "off", ([], [], False)),
        (["172.16.0.0/12"], ("a.example",), "auto", ([], [], False)),  # no SA leads to the server
    ],
)
def test_name_servers(networks, domains, mode, expected):
    assert names(with_dns(networks, domains, mode)) == expected


def with_dns(networks, told, mode, **settings):
    assigned = Assigned(addresses=(V4,), dns_servers=(ip_address("10.0.0.53"),), domains=told)
    agreed = Agreed(
        gateway=Address("192.0.2.1", 4500), assigned=assigned, networks=nets(*networks), transforms=(GCM,), udp=True
    )
    return tunnel_configuration(HostSettings(dns=mode, **settings), agreed, "ikeway0", 1500)


def test_name_server_gets_a_route_of_its_own_when_the_profile_leaves_it_out():
    configuration = with_dns(["10.0.0.0/8"], (), "auto", routes=nets("10.5.0.0/16"))
    assert configuration.routes == nets("10.5.0.0/16", "10.0.0.53/32")


def test_name_servers_and_domains_of_the_profile():
    configuration = with_dns(
        ["10.0.0.0/8"], ("a.example",), "auto", dns_servers=(ip_address("10.0.0.54"),), domains=("b.example",)
    )
    assert names(configuration) == (["10.0.0.54"], ["b.example", "a.example"], False)


def test_mtu_fits_what_is_around_it():
    assert made(["10.0.0.0/8"], addresses=(V4,)).mtu == 1438
    assert made(["10.0.0.0/8"], addresses=(V4,), udp=False).mtu == 1446
    assert made(["10.0.0.0/8"], addresses=(V4,), gateway="2001:db8::1").mtu == 1418
    assert made(["10.0.0.0/8"], addresses=(V4,), outer=1400).mtu == 1338
    assert made(["10.0.0.0/8"], addresses=(V4,), mtu=1300).mtu == 1300
