"""systemd-resolved is played by a service on a bus of the test's own."""

import asyncio
import shutil
import socket
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from dbus_fast import Message, MessageType
from dbus_fast.aio import MessageBus

from ikeway.errors import HostError
from ikeway.host.linux import resolved
from ikeway.host.linux.resolved import LinkDnsSet

CONFIG = """<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN"
 "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig><type>system</type><listen>unix:path={path}</listen><auth>EXTERNAL</auth>
<policy context="default"><allow send_destination="*"/><allow receive_sender="*"/><allow own="*"/></policy></busconfig>
"""


def listed(value: object) -> object:
    """Structures are tuples in some versions of dbus-fast, lists in others."""
    return [listed(each) for each in value] if isinstance(value, list | tuple) else value


class FakeResolved:
    """Keeps what it is told; refuses what `refuse` names, and says nothing to what `ignore` names."""

    def __init__(self) -> None:
        self.calls: list[tuple[object, ...]] = []
        self.refuse = self.ignore = ""

    def handle(self, message: Message) -> Message | bool | None:
        if message.message_type is not MessageType.METHOD_CALL or not message.path.startswith("/org/freedesktop/res"):
            return None
        if message.member == self.refuse:
            return Message.new_error(message, "org.freedesktop.resolve1.NoSuchLink", "Link 99 not known")
        if message.member == self.ignore:
            return True
        self.calls.append((message.member, *map(listed, message.body)))
        return Message.new_method_return(message)


@pytest.fixture
async def bus_address(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[str]:
    program = shutil.which("dbus-daemon")
    if program is None:
        pytest.skip("dbus-daemon is not installed (package dbus-daemon)")
    path = tmp_path / "bus"
    (tmp_path / "bus.conf").write_text(CONFIG.format(path=path))
    daemon = subprocess.Popen([program, f"--config-file={tmp_path / 'bus.conf'}", "--nofork"])
    try:
        while not _listens(path):  # its file is there a little earlier
            assert daemon.poll() is None
            await asyncio.sleep(0.01)
        address = f"unix:path={path}"
        monkeypatch.setenv("DBUS_SYSTEM_BUS_ADDRESS", address)
        yield address
    finally:
        daemon.kill()
        daemon.wait()


def _listens(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as one:
        return one.connect_ex(str(path)) == 0


@pytest.fixture
async def fake(bus_address: str) -> AsyncIterator[FakeResolved]:
    service = FakeResolved()
    bus = await MessageBus(bus_address=bus_address).connect()
    bus.add_message_handler(service.handle)
    await bus.request_name("org.freedesktop.resolve1")
    yield service
    bus.disconnect()


CHANGE = LinkDnsSet("lo", ("10.1.1.1", "fd00::1"), ("corp.example", "~lab.example", "~."))


async def test_servers_and_domains_are_set_for_the_interface(fake: FakeResolved) -> None:
    await CHANGE.make(())
    index = socket.if_nametoindex("lo")
    assert fake.calls == [
        ("SetLinkDNS", index, [[2, bytes([10, 1, 1, 1])], [10, bytes.fromhex("fd" + "00" * 14 + "01")]]),
        ("SetLinkDomains", index, [["corp.example", False], ["lab.example", True], [".", True]]),
        ("SetLinkDefaultRoute", index, True),
        ("FlushCaches",),
    ]


async def test_undo_reverts_and_knows_that_a_gone_interface_needs_nothing(fake: FakeResolved) -> None:
    await CHANGE.undo(())
    assert fake.calls == [("RevertLink", socket.if_nametoindex("lo")), ("FlushCaches",)]
    fake.calls.clear()
    await LinkDnsSet("nowhere0", ("10.1.1.1",), ()).undo(())
    assert fake.calls == []


async def test_a_refusal_tells_what_resolved_said(fake: FakeResolved) -> None:
    fake.refuse = "SetLinkDNS"
    with pytest.raises(HostError, match="refused SetLinkDNS: Link 99 not known"):
        await CHANGE.make(())


@pytest.mark.parametrize("member", ["SetLinkDNS", "RevertLink"])
async def test_a_resolved_that_hangs_holds_nothing_up(
    fake: FakeResolved, monkeypatch: pytest.MonkeyPatch, member: str
) -> None:
    """Neither a connection, nor its end: routes and rules are still to be undone then."""
    monkeypatch.setattr(resolved, "_ANSWER_SECONDS", 0.2)
    fake.ignore = member
    complaints: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: complaints.append(context))
    async with asyncio.timeout(20):
        with pytest.raises(HostError, match=f"does not answer {member}"):
            await (CHANGE.make(()) if member == "SetLinkDNS" else CHANGE.undo(()))
    await asyncio.sleep(0.05)
    assert complaints == []


async def test_a_bus_that_hangs_holds_nothing_up(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(resolved, "_ANSWER_SECONDS", 0.2)
    monkeypatch.setenv("DBUS_SYSTEM_BUS_ADDRESS", f"unix:path={tmp_path / 'bus'}")
    with socket.socket(socket.AF_UNIX) as silent:
        silent.bind(str(tmp_path / "bus"))
        silent.listen()
        async with asyncio.timeout(20):
            with pytest.raises(HostError, match="bus does not answer"):
                await CHANGE.make(())


@pytest.mark.parametrize(
    ("resolv_conf", "nsswitch", "expected"),
    [
        ("nameserver 127.0.0.53\n", "", True),
        ("nameserver 192.0.2.1\n", "hosts: files resolve [!UNAVAIL=return] dns\n", True),
        ("nameserver 192.0.2.1\n", "hosts: files dns\n", False),
    ],
)
async def test_is_used_only_where_programs_ask_it(
    fake: FakeResolved, tmp_path: Path, resolv_conf: str, nsswitch: str, expected: bool
) -> None:
    (tmp_path / "resolv.conf").write_text(resolv_conf)
    (tmp_path / "nsswitch.conf").write_text(nsswitch)
    assert await resolved.is_in_charge(tmp_path / "resolv.conf", tmp_path / "nsswitch.conf") is expected


async def test_is_not_used_when_it_does_not_run(bus_address: str, tmp_path: Path) -> None:
    (tmp_path / "resolv.conf").write_text("nameserver 127.0.0.53\n")
    assert not await resolved.is_in_charge(tmp_path / "resolv.conf", tmp_path / "nsswitch.conf")


async def test_is_not_used_without_a_bus(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "resolv.conf").write_text("nameserver 127.0.0.53\n")
    monkeypatch.setenv("DBUS_SYSTEM_BUS_ADDRESS", f"unix:path={tmp_path / 'nothing'}")
    assert not await resolved.is_in_charge(tmp_path / "resolv.conf", tmp_path / "nsswitch.conf")
