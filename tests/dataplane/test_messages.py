"""The control channel's form: what is written is read, and nothing else is."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ikeway.address import Address
from ikeway.dataplane.interface import HardExpired, IkeReceived, PeerMoved, SoftExpired, UnknownSpi, Unreachable
from ikeway.dataplane.userspace import messages as m
from ikeway.dataplane.userspace.codec import CodecError
from ikeway.esp.drops import Drop
from ikeway.esp.parameters import Encapsulation, EspLimits, EspSa, EspTransforms, Mode
from ikeway.wire.payloads import TrafficSelector
from ikeway.wire.registry import EncryptionAlgorithm, IntegrityAlgorithm, TrafficSelectorType

U8, U16, U32, U64 = (st.integers(0, (1 << bits) - 1) for bits in (8, 16, 32, 64))
ADDRESSES = st.builds(Address, st.sampled_from(("192.0.2.1", "2001:db8::1")), U16)
SELECTORS = st.builds(
    TrafficSelector,
    st.sampled_from(TrafficSelectorType),
    U8,
    U16,
    U16,
    st.binary(min_size=4, max_size=16),
    st.binary(max_size=16),
)
SAS = st.builds(
    EspSa,
    spi=U32,
    child_id=U64,
    connection_id=U64,
    transforms=st.builds(
        EspTransforms,
        encryption=st.sampled_from(EncryptionAlgorithm),
        key_bits=st.none() | U16,
        integrity=st.none() | st.sampled_from(IntegrityAlgorithm),
        extended_sequence_numbers=st.booleans(),
    ),
    encryption_key=st.binary(max_size=80),
    integrity_key=st.binary(max_size=80),
    mode=st.sampled_from(Mode),
    encapsulation=st.sampled_from(Encapsulation),
    local=ADDRESSES,
    remote=ADDRESSES,
    local_selectors=st.lists(SELECTORS, max_size=3).map(tuple),
    remote_selectors=st.lists(SELECTORS, max_size=3).map(tuple),
    replay_window=U32,
    limits=st.builds(EspLimits, soft_bytes=U64, hard_bytes=U64, soft_packets=U64, hard_packets=U64),
    follow_peer=st.booleans(),
)
ENTRIES = st.builds(
    m.CounterEntry,
    U32,
    st.booleans(),
    U64,
    U64,
    st.floats(0, 1e12),
    st.lists(st.builds(m.DropCount, st.sampled_from(Drop), U64), max_size=3).map(tuple),
)
ROLES = st.lists(st.builds(m.SocketRole, st.integers(0, 1000), st.booleans(), st.booleans()), max_size=4).map(tuple)
DROPS = st.lists(st.builds(m.DropCount, st.sampled_from(Drop), U64), max_size=3).map(tuple)
PASTS = st.builds(m.Past, U32, U64, U64, U64, U64, st.floats(0, 1e12), DROPS)
MESSAGES = st.one_of(
    st.builds(m.Configure, U32, st.integers(0, 1000), st.booleans(), U32, st.booleans(), st.integers(0, 1000), ROLES),
    st.builds(m.Begin, U32),
    st.builds(m.AddInbound, U32, SAS, PASTS),
    st.builds(m.AddOutbound, U32, SAS, PASTS),
    st.builds(m.RemoveInbound, U32, U32),
    st.builds(m.RemoveOutbound, U32, U32, ADDRESSES),
    st.builds(m.Move, U32, U64, ADDRESSES, ADDRESSES, st.booleans()),
    st.builds(m.SetMtu, U32, U32),
    st.builds(m.ReadCounters, U32),
    st.builds(m.Done, U32),
    st.builds(m.Failed, U32, st.text(), st.text()),
    st.builds(m.CounterPage, U32, st.booleans(), st.lists(ENTRIES, max_size=3).map(tuple)),
    st.builds(SoftExpired, U32, st.booleans()),
    st.builds(HardExpired, U32, st.booleans()),
    st.builds(PeerMoved, U32, ADDRESSES),
    st.builds(UnknownSpi, U32, ADDRESSES),
    st.builds(Unreachable, ADDRESSES, U32),
    st.builds(IkeReceived, st.binary(), ADDRESSES, ADDRESSES),
)


@given(MESSAGES)
def test_what_is_written_is_read(message: m.Message) -> None:
    assert m.decode(m.encode(message)) == message


@given(MESSAGES, st.data())
def test_cut_and_lengthened_messages_are_refused(message: m.Message, data: st.DataObject) -> None:
    octets = m.encode(message)
    with pytest.raises(CodecError):
        m.decode(octets[: data.draw(st.integers(0, len(octets) - 1))])
    with pytest.raises(CodecError):
        m.decode(octets + b"\0")


@given(st.binary(max_size=200))
def test_other_octets_are_refused_or_read(octets: bytes) -> None:
    try:
        message = m.decode(octets)
    except CodecError:
        return
    assert m.decode(m.encode(message)) == message or "nan" in repr(message)
