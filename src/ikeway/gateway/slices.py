"""Ranges of addresses cut into slices, one for each worker, so that the host's routes lead to the right one."""

from __future__ import annotations

from dataclasses import dataclass

from ikeway.config.fields import IpAddress, IpNetwork
from ikeway.gateway.config_model import AddressRange

_ROUNDING = 16  # slices differ by less than this part of their size, for the sake of few routes


@dataclass(frozen=True, slots=True)
class Slice:
    """What of a range is one worker's: the addresses to give out (None when it has none of its own), and the networks
    that lead to it."""

    worker: int
    addresses: AddressRange | None
    networks: tuple[IpNetwork, ...]


def slices(addresses: AddressRange, workers: int) -> tuple[Slice, ...]:
    """The slices of a range, of about the same size. Together they have all that is routed for the range."""
    if workers == 1:
        return (Slice(0, addresses, addresses.networks()),)
    whole = addresses.network
    low, high = (int(whole[0]), int(whole[-1])) if whole is not None else (int(addresses.first), int(addresses.last))
    size = high - low + 1
    grain = 1 << max((size // (workers * _ROUNDING)).bit_length() - 1, 0)
    cuts = [low + size * number // workers // grain * grain for number in range(workers)] + [high + 1]
    found = []
    for worker in range(workers):
        start, end = cuts[worker], cuts[worker + 1] - 1
        if start > end:
            continue
        first, last = max(start, int(addresses.first)), min(end, int(addresses.last))
        own = AddressRange(_address(addresses, first), _address(addresses, last), None) if first <= last else None
        found.append(Slice(worker, own, _networks(_address(addresses, start), _address(addresses, end))))
    return tuple(found)


def _networks(first: IpAddress, last: IpAddress) -> tuple[IpNetwork, ...]:
    return AddressRange(first, last, None).networks()


def _address(like: AddressRange, number: int) -> IpAddress:
    return type(like.first)(number)
