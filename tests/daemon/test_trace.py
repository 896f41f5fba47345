"""Files that are written beside a running engine: what becomes of it when they cannot be written any more."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from ikeway.address import Address
from ikeway.cli.capture import read_udp
from ikeway.daemon.keylog import KeyLog
from ikeway.daemon.loop import Driver
from ikeway.daemon.pcap import PcapWriter
from ikeway.daemon.sockets import IkeSockets, Listen
from ikeway.daemon.trace import Trace, TraceSettings
from ikeway.errors import HostError
from ikeway.ike import events as ike
from tests.daemon.fakes import HERE, THERE, FakeDataPlane, FakeEngine, FakeTransport
from tests.esp.material import esp_sa


@pytest.fixture
def full() -> Iterator[int]:
    fd = os.open("/dev/full", os.O_WRONLY)
    yield fd
    os.close(fd)


async def test_on_a_full_disk_the_trace_ends_and_ike_goes_on(
    tmp_path: Path, full: int, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "x.pcapng"
    sockets, arrived = IkeSockets(Listen(hosts=("127.0.0.1",), ike_port=0, nat_port=0)), asyncio.Queue()
    sockets.on_datagram = lambda octets, local, remote: arrived.put_nowait(octets)
    runner = SimpleNamespace(sockets=sockets, driver=SimpleNamespace(listen=lambda listener: None))
    with Trace(TraceSettings(pcap=path)) as trace:
        trace.observe(runner)
        sockets.open()
        sockets.start()
        try:
            here = Address("127.0.0.1", sockets.local_port("127.0.0.1", nat=False))
            for octets in (b"one", b"two", b"three"):
                sockets.send(octets, here, here)
                assert await asyncio.wait_for(arrived.get(), 10) == octets
                os.dup2(full, trace._pcap._fd)
        finally:
            sockets.close()
    (said,) = (record for record in caplog.records if record.levelno == logging.ERROR)
    assert str(path) in said.getMessage() and "No space left" in said.getMessage()
    assert {packet.octets for packet in read_udp(path.read_bytes())} == {b"one"}


async def test_on_a_full_disk_the_key_log_ends_and_is_no_defect(
    tmp_path: Path, full: int, caplog: pytest.LogCaptureFixture
) -> None:
    path, engine, told = tmp_path / "keys", FakeEngine(), []
    driver = Driver(engine, FakeTransport([]), FakeDataPlane())
    with Trace(TraceSettings(keylog=path)) as trace:
        trace.observe(SimpleNamespace(driver=driver))
        driver._listeners.pop(0)  # the log of events, which wants more of an SA
        driver.listen(told.append)
        for _ in range(3):
            engine.bring([ike.ChildKeysDerived(esp_sa(), esp_sa(), None)])
            driver.receive(b"", HERE, THERE)
            os.dup2(full, trace._keylog._fd)
    await driver.stop()
    assert len(told) == 3
    (said,) = (record for record in caplog.records if record.levelno == logging.ERROR)
    assert str(path) in said.getMessage() and "No space left" in said.getMessage()
    assert path.read_text().count("uat:esp_sa:") == 2


@pytest.mark.parametrize("room", [0, 7])
def test_a_packet_is_written_as_a_whole_or_not_at_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, room: int
) -> None:
    """Half a block would make the rest of the file unreadable for everybody."""
    path, write, left = tmp_path / "x.pcapng", os.write, [room]

    def write_what_fits(fd: int, octets: bytes) -> int:
        done, left[0] = write(fd, octets[: left[0]]) if left[0] else 0, 0
        if not done:
            raise OSError(28, os.strerror(28))
        return done

    with PcapWriter(path) as packets:
        packets.udp(b"one", HERE, THERE, True)
        before = path.read_bytes()
        monkeypatch.setattr(os, "write", write_what_fits)
        with pytest.raises(OSError, match="No space left"):
            packets.udp(b"two", HERE, THERE, True)
    assert path.read_bytes() == before


@pytest.mark.parametrize("kind", [PcapWriter, KeyLog])
def test_a_disk_that_is_full_from_the_beginning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind) -> None:
    def refuse(fd: int, octets: bytes) -> int:
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr(os, "write", refuse)
    with pytest.raises(HostError, match="cannot be written: No space left") as caught:
        kind(tmp_path / "file")
    assert caught.value.remedy
