"""What the core remembers holds until something changes, and for one SA only."""

from __future__ import annotations

from ikeway.esp.drops import Drop
from ikeway.esp.outbound import OutboundSa
from tests.esp.material import esp_sa, network
from tests.native.both import ends, packets_of
from tests.native.test_inbound import sealed, tcp_train, udp_packets
from tests.native.test_outbound import PLAIN


def test_a_rekeyed_sa_takes_over_its_flows() -> None:
    packet = PLAIN + udp_packets([50])[0]
    with ends("native") as path:
        old = path.add(esp_sa(spi=1))
        assert [d[3] for d in path.out([packet, packet])] == [1, 1]
        path.known.senders.clear()
        new = path.add(esp_sa(spi=2))
        path.known.generation += 1
        assert [d[3] for d in path.out([packet, packet])] == [2, 2]
        assert (old.sa.usage.packets, new.sa.usage.packets) == (2, 2)
        assert (old.sa.sequence, new.sa.sequence) == (2, 2)


def test_a_flow_that_one_sa_may_carry_is_no_other_sas() -> None:
    first, second = esp_sa(spi=1), esp_sa(spi=2, local_selectors=(network("192.0.2.0/24"),))
    train = tcp_train(6)
    with ends("native") as path:
        path.accept(first)
        path.accept(second)
        one, other = OutboundSa(first), OutboundSa(second)
        assert packets_of(path.into([sealed(one, packet) for packet in train[:3]])) == train[:3]
        assert path.into([sealed(other, packet) for packet in train[3:]]) == []
        assert path.known.inbound[2].sa.usage.dropped == {Drop.SELECTORS: 3}


def test_a_removed_sa_is_forgotten() -> None:
    sa = esp_sa()
    sender = OutboundSa(sa)
    train = tcp_train(4)
    with ends("native") as path:
        path.accept(sa)
        assert packets_of(path.into([sealed(sender, packet) for packet in train[:2]])) == train[:2]
        path.known.inbound.clear()
        path.known.generation += 1
        assert path.into([sealed(sender, packet) for packet in train[2:]]) == []
        assert path.known.unclaimed[True].dropped == {Drop.UNKNOWN_SPI: 2}
