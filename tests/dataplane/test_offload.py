"""Which network card could do ESP: what we read of its features against ethtool(8), as no such card is at hand."""

from __future__ import annotations

import dataclasses
import socket

import pytest

from ikeway.dataplane.kernel import offload
from ikeway.host.linux.xfrm_structures import MODE_TUNNEL, State, UdpPorts
from tests.netlab import GATEWAY, two_hosts

pytestmark = pytest.mark.root


def test_features_are_as_ethtool_says() -> None:
    with two_hosts() as hosts:
        index = hosts.client.call(lambda: socket.if_nametoindex("eth0"))
        seen = set()
        for wanted in ("on", "off"):
            hosts.client.run(["ethtool", "-K", "eth0", "tx-tcp-segmentation", wanted])
            listed = hosts.client.run(["ethtool", "-k", "eth0"])
            for line in listed.splitlines()[1:]:
                name, _, state = line.strip().partition(": ")
                # The others are ethtool's own names for groups of features.
                if name.startswith(("tx-", "rx-", "esp-")) and not name.endswith(("checksumming", "offload")):
                    is_on = hosts.client.call(lambda name=name: offload.has_offload(index, name.encode()))
                    assert is_on == state.startswith("on"), line
                    seen.add((name, is_on))
        assert {("tx-tcp-segmentation", True), ("tx-tcp-segmentation", False)} <= seen
        assert "esp-hw-offload: off" in listed
        assert not hosts.client.call(lambda: offload.has_offload(index))
        assert not hosts.client.call(lambda: offload.has_offload(index, b"no such feature"))
        assert not hosts.client.call(lambda: offload.has_offload(99_999))


def test_the_card_on_the_way_to_the_peer_is_asked_and_esp_in_udp_is_not_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    monkeypatch.setattr(offload, "has_offload", lambda index: asked.append(index) or True)
    out = State(source="192.0.2.1", destination=GATEWAY, spi=1, reqid=1, mode=MODE_TUNNEL)
    into = State(source=GATEWAY, destination="192.0.2.1", spi=1, reqid=1, mode=MODE_TUNNEL)
    with two_hosts() as hosts:
        index = hosts.client.call(lambda: socket.if_nametoindex("eth0"))
        for state, inbound in ((out, False), (into, True)):
            assert hosts.client.call(lambda s=state, i=inbound: offload.offload_device(s, inbound=i)) == index
        assert asked == [index] * 2
        in_udp = dataclasses.replace(out, udp=UdpPorts(source=4500, destination=4500))
        assert hosts.client.call(lambda: offload.offload_device(in_udp, inbound=False)) == 0
        monkeypatch.setattr(offload, "has_offload", lambda index: False)
        assert hosts.client.call(lambda: offload.offload_device(out, inbound=False)) == 0
