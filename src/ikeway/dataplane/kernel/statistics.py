"""What the kernel drops that belongs to no SA (/proc/net/xfrm_stat, Documentation/networking/xfrm_proc.rst).

These count for the whole network namespace, so another IPsec program's are among them.
"""

from __future__ import annotations

from pathlib import Path

from ikeway.dataplane.interface import Counters
from ikeway.esp.drops import Drop

_FILE = Path("/proc/thread-self/net/xfrm_stat")
_INBOUND = {
    "XfrmInNoStates": Drop.UNKNOWN_SPI,
    "XfrmInNoPols": Drop.SELECTORS,
    "XfrmInTmplMismatch": Drop.SELECTORS,
    "XfrmInHdrError": Drop.MALFORMED,
}
_OUTBOUND = {"XfrmOutNoStates": Drop.NO_POLICY, "XfrmOutStateSeqError": Drop.SEQUENCE_END}


class Statistics:
    """The counters since `begin`."""

    def __init__(self) -> None:
        self._before: dict[str, int] = {}

    def begin(self) -> None:
        """Count from now on."""
        self._before = _read()

    def beside(self) -> dict[tuple[int, bool], Counters]:
        """What was dropped beside all SAs, under (0, True) inbound and (0, False) outbound."""
        now = _read()
        found = {}
        for inbound, names in ((True, _INBOUND), (False, _OUTBOUND)):
            counters = found[0, inbound] = Counters()
            for name, reason in names.items():
                if count := now.get(name, 0) - self._before.get(name, 0):
                    counters.dropped[reason] = counters.dropped.get(reason, 0) + count
        return found


def _read() -> dict[str, int]:
    """Nothing where the kernel does not count (CONFIG_XFRM_STATISTICS)."""
    try:
        lines = _FILE.read_text().splitlines()
    except OSError:
        return {}
    return {name: int(count) for name, count in (line.split() for line in lines)}
