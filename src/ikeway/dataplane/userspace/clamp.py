"""Clamping the TCP maximum segment size, so that TCP never makes packets that do not fit the tunnel."""

from __future__ import annotations

from ikeway.esp.checksum import adjusted

_SYN = 0x02
_MSS, _NO_OPERATION, _END = 2, 1, 0


def clamp_mss(packet: bytearray | memoryview, mtu: int) -> None:
    """Lower the MSS option of a whole TCP SYN, in place, to what a tunnel of this MTU carries.

    Anything else is left as it is, malformed packets too. The caller has parsed the packet.
    """
    if packet[0] >> 4 == 4:
        if packet[9] != 6 or packet[6] & 0x1F or packet[7]:
            return
        at, most = (packet[0] & 15) * 4, mtu - 40
    else:
        if packet[6] != 6:
            return
        at, most = 40, mtu - 60
    if len(packet) < at + 20 or not packet[at + 13] & _SYN:
        return
    end = min(at + (packet[at + 12] >> 4) * 4, len(packet))
    option = at + 20
    while option < end and packet[option] != _END:
        if packet[option] == _NO_OPERATION:
            option += 1
            continue
        if option + 1 >= end:
            return
        size = packet[option + 1]
        if size < 2 or option + size > end:
            return
        if packet[option] == _MSS and size == 4:
            _lower(packet, at, option + 2, most)
        option += size


def _lower(packet: bytearray | memoryview, at: int, place: int, most: int) -> None:
    before = packet[place] << 8 | packet[place + 1]
    if before <= most:
        return
    packet[place], packet[place + 1] = most >> 8, most & 0xFF
    # An option may begin at an odd octet; then the two octets lie in two words and count swapped.
    if (place - at) & 1:
        before, most = _swapped(before), _swapped(most)
    check = adjusted(packet[at + 16] << 8 | packet[at + 17], before, most)
    packet[at + 16], packet[at + 17] = check >> 8, check & 0xFF


def _swapped(word: int) -> int:
    return (word & 0xFF) << 8 | word >> 8
