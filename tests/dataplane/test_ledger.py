"""A worker may die at any moment: no sequence number and no IV is used twice, and nothing is delivered twice."""

from __future__ import annotations

import ctypes
import os
import re
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ikeway import native
from ikeway.address import Address
from ikeway.dataplane.userspace import native_out, tun_io
from ikeway.dataplane.userspace.associations import Associations, Receiving, Sending
from ikeway.dataplane.userspace.book import Book, Installed
from ikeway.dataplane.userspace.ledger import LARGEST_BATCH, MARGIN, SLOTS, Ledger
from ikeway.errors import HostError
from ikeway.esp.inbound import InboundSa, Opened
from ikeway.esp.outbound import OutboundSa
from ikeway.esp.parameters import EspLimits
from ikeway.esp.sequence import LAST_SHORT
from ikeway.esp.usage import Usage
from tests.dataplane.test_associations import REMOTE, associations
from tests.esp.material import esp_sa

# What becomes of a batch: how many numbers it takes, and after which of them the worker dies (-1: it does not; the
# batch's length: after the last packet, before the ledger is written).
BATCHES = st.lists(
    st.integers(1, LARGEST_BATCH).flatmap(lambda size: st.tuples(st.just(size), st.integers(-1, size))), max_size=30
)


def working(policies: Associations, ledger: Ledger, installed: Installed) -> Sending:
    """What a worker makes of an outbound SA."""
    sending = policies.add_outbound(installed.sa, installed.past)
    sending.mark = ledger.read(sending.slot).mark
    return sending


def take(sa: OutboundSa, count: int) -> int:
    """Use numbers as sealing does; how many there were."""
    count = 0 if sa.hard_due else min(count, sa._last_sequence - sa.sequence)
    sa.sequence += count
    sa.usage.packets += count
    return count


@given(BATCHES, st.booleans(), st.sampled_from([0, 0, 3 * LARGEST_BATCH]))
def test_no_number_is_used_twice(batches: list[tuple[int, int]], esn: bool, hard_packets: int) -> None:
    ledger = Ledger()
    book = Book(ledger)
    sa = esp_sa(esn=esn, local=REMOTE, remote=REMOTE, limits=EspLimits(hard_packets=hard_packets))
    installed = book.add_outbound(sa)
    sending, base = working(associations(), ledger, installed), installed.past.iv_base
    highest = noted = 0
    for size, death in batches:
        first = sending.sa.sequence + 1
        used = take(sending.sa, size if death < 0 else death)
        assert not used or first > highest
        highest = max(highest, sending.sa.sequence)
        assert highest <= ledger.read(sending.slot).mark
        if death < 0:
            sending.mark = ledger.ahead(sending.slot, sending.mark, sending.sa.sequence, sending.sa.usage)
            noted = sending.sa.usage.packets
            continue
        book.turn_the_page()
        sending = working(associations(), ledger, installed)
        assert sending.sa.iv_base == base  # so that IVs, which are its sums with the numbers, do not come again
        assert sending.sa.usage.packets == noted  # limits go on counting
        if hard_packets:
            assert sending.sa._last_sequence - sending.sa.sequence == hard_packets - noted
    assert highest <= (len(batches) + 1) * (LARGEST_BATCH + MARGIN)
    ledger.close()


@given(st.integers(LAST_SHORT - 2 * MARGIN, LAST_SHORT), st.lists(st.integers(0, LARGEST_BATCH), max_size=20))
def test_at_the_end_of_the_numbers_there_are_none_left(start: int, deaths: list[int]) -> None:
    ledger = Ledger()
    book = Book(ledger)
    installed = book.add_outbound(esp_sa(local=REMOTE, remote=REMOTE))
    ledger.ahead(installed.past.slot, 0, start, Usage())
    book.turn_the_page()
    highest = start
    for death in deaths:
        sending = working(associations(), ledger, installed)
        first = sending.sa.sequence + 1
        if take(sending.sa, death):
            assert highest < first <= sending.sa.sequence <= LAST_SHORT
        highest = sending.sa.sequence
        book.turn_the_page()
    ledger.close()


ARRIVALS = st.lists(
    st.tuples(st.lists(st.integers(1, 60), min_size=1, max_size=8), st.sampled_from(["lives", "before", "after"])),
    max_size=12,
)


@given(ARRIVALS, st.sampled_from([8, 64]))
def test_nothing_is_delivered_twice(batches: list[tuple[list[int], str]], window: int) -> None:
    """The worker dies before or after it has written into the ledger; the host gets packets only after that."""
    ledger = Ledger()
    book = Book(ledger)
    sa = esp_sa(replay_window=window)
    peer = OutboundSa(sa)
    packets = [peer.seal(b"payload", 4) for _ in range(60)]
    installed = book.add_inbound(sa)
    receiving, delivered = Receiving(installed.sa, installed.past), list[int]()
    for numbers, end in batches:
        opened = [n for n in numbers if isinstance(receiving.sa.open(packets[n - 1]), Opened)]
        if end != "before":
            ledger.seen(receiving.slot, receiving.sa.window.highest, receiving.sa.usage)
            delivered += opened
        if end != "lives":
            book.turn_the_page()
            receiving = Receiving(installed.sa, installed.past)
    assert len(set(delivered)) == len(delivered)
    ledger.close()


def test_a_batch_is_smaller_than_what_is_reserved_for_it() -> None:
    """A segment has at least one octet, and no more octets are read in one turn."""
    assert tun_io._BATCH_OCTETS + tun_io._LARGEST < LARGEST_BATCH < MARGIN
    # The core's own loop goes on until so many packets of one SA are to be counted, and sends one batch more at the most.
    core = (Path(native.__file__).parent / "forward.c").read_text()
    (settled_after,) = re.findall(r"MOST_PACKETS = 1 << (\d+),", core)
    assert (1 << int(settled_after)) + native_out._ARENA_OCTETS < LARGEST_BATCH


def test_slots_are_found_again() -> None:
    ledger = Ledger()
    slots = {ledger.claim(number) for number in range(1000)}
    assert len(slots) == 1000
    assert {ledger.read(slot).mark for slot in slots} == set(range(1000))
    usage = Usage(5, 6, last_used=7.5)
    ledger.seen(3, 4, usage)
    assert ledger.read(3) == (4, 5, 6, 7.5)
    worker = Ledger(os.dup(ledger.fd))
    assert (ctypes.c_uint64 * 3).from_address(worker.address(3))[:] == [4, 5, 6]
    ledger.free(3)
    assert ledger.claim(MARGIN) == 3
    assert ledger.read(3) == (MARGIN, 0, 0, 0.0)
    ledger._first_unused = SLOTS
    with pytest.raises(HostError, match="SAs"):
        ledger.claim(0)
    ledger.close()
    ledger.close()


def test_an_sa_that_was_removed_writes_no_more() -> None:
    """Its slot may be another's already, when a batch that has used it comes to its end."""
    ledger = Ledger()
    book = Book(ledger)
    outbound, inbound = book.add_outbound(esp_sa(spi=1, local=REMOTE, remote=REMOTE)), book.add_inbound(esp_sa(spi=2))
    policies = associations()
    sending = working(policies, ledger, outbound)
    policies.add_inbound(inbound.sa, inbound.past)
    receiving = policies.inbound[2]
    policies.remove_outbound(1, REMOTE)
    policies.remove_inbound(2)
    book.free(book.take_outbound(1, REMOTE) + book.take_inbound(2))
    slots = {ledger.claim(MARGIN), ledger.claim(MARGIN)}
    assert slots == {outbound.past.slot, inbound.past.slot}
    ledger.ahead(sending.slot, sending.mark, 5, sending.sa.usage)
    ledger.seen(receiving.slot, 5, receiving.sa.usage)
    assert [ledger.read(slot).mark for slot in slots] == [MARGIN, MARGIN]
    assert not ledger.read(SLOTS - 1).mark
    ledger.close()


def test_the_book_knows_where_sas_are() -> None:
    ledger = Ledger()
    book = Book(ledger)
    near, far = Address("198.51.100.1", 4500), Address("198.51.100.2", 4500)
    one = book.add_outbound(esp_sa(spi=0x3001, remote=near))
    other = book.add_outbound(esp_sa(spi=0x3001, remote=far, connection_id=2))
    inbound = book.add_inbound(esp_sa(spi=0x4001))
    assert list(book) == [one, other, inbound]
    assert book.holds_outbound(0x3001, near) == 2
    assert book.holds_outbound(0x3001, near._replace(port=9)) == 1
    assert book.holds_outbound(0x3001, Address("198.51.100.3", 4500)) == 0
    before = book.move(2, near._replace(port=1), far._replace(port=2), True)
    assert other.sa.remote.port == 2
    book.move_back(before)
    assert other.sa.remote == far
    again = book.add_inbound(esp_sa(spi=0x4001))
    assert list(book) == [one, other, again]
    book.free(book.take_outbound(0x3001, near._replace(port=9)))
    assert book.take_outbound(0x3001, near) == []
    book.clear()
    assert not len(book)
    assert not book._connections and not book._inbound and not book._outbound


def test_an_sa_goes_on_with_the_same_keys() -> None:
    """What the next worker sends, the peer opens, and takes for new."""
    ledger = Ledger()
    book = Book(ledger)
    sa = esp_sa(local=REMOTE, remote=REMOTE)
    installed, receiver = book.add_outbound(sa), InboundSa(replace(sa))
    for _ in range(3):
        sending = working(associations(), ledger, installed)
        sealed = sending.sa.seal(b"payload", 4)
        assert isinstance(sealed, bytes) and isinstance(receiver.open(sealed), Opened)
        book.turn_the_page()
    ledger.close()
