"""Joins log, key log and trace file to a running engine."""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ikeway.address import Address
from ikeway.daemon.eventlog import report
from ikeway.ike import events as ike

if TYPE_CHECKING:
    from ikeway.daemon.keylog import KeyLog
    from ikeway.daemon.pcap import PcapWriter
    from ikeway.daemon.runner import Runner

log = logging.getLogger("ikeway.daemon")


@dataclass(frozen=True, slots=True, kw_only=True)
class TraceSettings:
    """Which files to write."""

    keylog: Path | None = None
    pcap: Path | None = None


class Trace:
    """Writes what a `Runner` does; give `observe` to its owner. A context manager: files are opened when it is made,
    while the process still has the rights for them, and closed at its end. One that cannot be written any more, on a full
    disk say, ends; what is traced goes on."""

    def __init__(self, settings: TraceSettings | None = None) -> None:
        """Open the files. Raises `HostError`."""
        wanted = settings or TraceSettings()
        self._files = ExitStack()
        self._keylog: KeyLog | None = None
        self._pcap: PcapWriter | None = None
        with ExitStack() as opening:
            if wanted.keylog is not None:
                from ikeway.daemon.keylog import KeyLog

                self._keylog = opening.enter_context(KeyLog(wanted.keylog))
            if wanted.pcap is not None:
                from ikeway.daemon.pcap import PcapWriter

                self._pcap = opening.enter_context(PcapWriter(wanted.pcap))
            self._files = opening.pop_all()

    def observe(self, runner: Runner) -> None:
        """Follow a runner from now on."""
        runner.driver.listen(report)
        if self._keylog is not None:
            _follow_keys(runner, self._keylog)
        if self._pcap is not None:
            _follow_packets(runner, self._pcap)

    def close(self) -> None:
        """Close the files. Idempotent."""
        self._files.close()

    def __enter__(self) -> Trace:
        """Return itself."""
        return self

    def __exit__(self, *error: object) -> None:
        """Close the files."""
        self.close()


def _follow_keys(runner: Runner, keylog: KeyLog) -> None:
    def note(event: ike.Event) -> None:
        try:
            note_keys(keylog, event)
        except OSError as error:
            stop()
            _say_that_it_ends("key log", keylog.path, error)

    stop: Callable[[], None] = runner.driver.listen(note)


def _follow_packets(runner: Runner, pcap: PcapWriter) -> None:
    def note(octets: bytes, local: Address, remote: Address, sent: bool) -> None:
        try:
            pcap.udp(octets, local, remote, sent)
        except OSError as error:
            runner.sockets.tap = None
            _say_that_it_ends("trace file", pcap.path, error)

    runner.sockets.tap = note


def _say_that_it_ends(what: str, path: Path, error: OSError) -> None:
    log.error("The %s %s ends here, as it cannot be written any more: %s", what, path, error.strerror)


def note_keys(keylog: KeyLog, event: ike.Event) -> None:
    """Write the keys that an event tells of."""
    match event:
        case ike.IkeKeysDerived(initiator_spi=initiator_spi, responder_spi=responder_spi, suite=suite, keys=keys):
            keylog.ike(initiator_spi, responder_spi, suite, keys)
        case ike.ChildKeysDerived(inbound=inbound, outbound=outbound):
            keylog.esp(inbound, inbound=True)
            keylog.esp(outbound, inbound=False)
