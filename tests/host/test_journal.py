import asyncio
import json
import os
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from ikeway.errors import HostError
from ikeway.host.journal import Change, Changes, recover_stale, standing_changes

LOG: list[str] = []


@dataclass(frozen=True, slots=True)
class Noted(Change):
    """A change to a list. `trouble` may be "make" or "undo"."""

    name: str
    trouble: str = ""

    async def make(self, others: tuple[Change, ...]) -> None:
        LOG.append(f"+{self.name}")
        if self.trouble == "make":
            raise PermissionError(1, "no")

    async def undo(self, others: tuple[Change, ...]) -> None:
        LOG.append(f"-{self.name}")
        if self.trouble == "undo":
            raise HostError("stuck")

    def __str__(self) -> str:
        return f"note {self.name}"


@dataclass(frozen=True, slots=True)
class Shared(Change):
    """A change to a file that several share: what was in it comes back when the last is gone."""

    path: str
    value: str
    before: tuple[str, ...] = ()

    @property
    def shared_key(self) -> str:
        return f"shared {self.path}"

    def joining(self, others: tuple[Change, ...]) -> Change:
        return Shared(self.path, self.value, others[0].before) if others else self  # type: ignore[attr-defined]

    async def make(self, others: tuple[Change, ...]) -> None:
        Path(self.path).write_text(self.value)

    async def undo(self, others: tuple[Change, ...]) -> None:
        if not others:
            Path(self.path).write_text(*self.before)


@pytest.fixture(autouse=True)
def _clean_log() -> None:
    LOG.clear()


async def test_undoes_in_reverse_and_leaves_no_journal(tmp_path: Path) -> None:
    async with Changes(tmp_path) as changes:
        for name in "abc":
            await changes.make(Noted(name))
        await changes.undo(Noted("b"))
        assert [change.name for change in changes.made if isinstance(change, Noted)] == ["a", "c"]
    assert LOG == ["+a", "+b", "+c", "-b", "-c", "-a"]
    assert list(tmp_path.iterdir()) == []


async def test_is_written_before_it_is_made(tmp_path: Path) -> None:
    @dataclass(frozen=True, slots=True)
    class Looking(Change):
        async def make(self, others: tuple[Change, ...]) -> None:
            (journal,) = tmp_path.iterdir()
            assert json.loads(journal.read_text().splitlines()[-1]) == {"made": 0, "kind": "Looking"}
            assert journal.stat().st_mode & 0o777 == 0o600
            LOG.append("looked")

        async def undo(self, others: tuple[Change, ...]) -> None:
            pass

    async with Changes(tmp_path) as changes:
        await changes.make(Looking())
    assert LOG == ["looked"]


async def test_a_failing_change_leaves_nothing_of_itself(tmp_path: Path) -> None:
    async with Changes(tmp_path) as changes:
        await changes.make(Noted("a"))
        with pytest.raises(HostError, match="cannot note b: no"):
            await changes.make(Noted("b", "make"))
        assert changes.made == (Noted("a"),)
    assert LOG == ["+a", "+b", "-b", "-a"]


async def test_goes_on_after_a_failing_undo_and_keeps_the_journal(tmp_path: Path) -> None:
    changes = Changes(tmp_path)
    for change in (Noted("a"), Noted("b", "undo"), Noted("c")):
        await changes.make(change)
    await changes.close()
    assert LOG[3:] == ["-c", "-b", "-a"]
    (journal,) = tmp_path.iterdir()
    assert '"undone": 1' not in journal.read_text()
    await changes.close()
    assert len(LOG) == 6


async def test_what_was_being_undone_when_its_owner_was_stopped_is_undone_at_the_end(tmp_path: Path) -> None:
    """As a gateway's rules, that are being replaced when it ends: forgotten, they would stay for ever."""

    @dataclass(frozen=True, slots=True)
    class Slow(Noted):
        async def undo(self, others: tuple[Change, ...]) -> None:
            if not LOG.count("slow"):
                LOG.append("slow")
                await asyncio.sleep(60)
            LOG.append(f"-{self.name}")

    changes = Changes(tmp_path)
    for change in (Noted("a"), Slow("b"), Noted("c")):
        await changes.make(change)
    undoing = asyncio.create_task(changes.undo(Slow("b")))
    await asyncio.sleep(0)
    undoing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await undoing
    assert changes.made == (Noted("a"), Slow("b"), Noted("c"))
    await changes.close()
    assert LOG == ["+a", "+b", "+c", "slow", "-c", "-b", "-a"]
    assert list(tmp_path.iterdir()) == []


async def test_nothing_is_changed_that_cannot_be_written_down(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a full disk: no change without its line, no line by halves, and what stands is undone all the same."""
    changes = Changes(tmp_path)
    await changes.make(Noted("a"))
    await changes.make(Noted("b"))
    (journal,) = tmp_path.iterdir()
    written, write = journal.read_bytes(), os.write
    monkeypatch.setattr(os, "write", lambda fd, octets: write(fd, octets[:5]))
    with pytest.raises(HostError, match="journal cannot be written") as refused:
        await changes.make(Noted("c"))
    assert refused.value.remedy
    with pytest.raises(HostError, match="journal cannot be written"):
        await Changes(tmp_path).make(Noted("d"))
    assert list(tmp_path.glob("*.journal")) == [journal]
    assert journal.read_bytes() == written
    await changes.close()
    assert LOG == ["+a", "+b", "-b", "-a"]
    assert list(tmp_path.glob("*.journal")) == []


async def test_exceptions_and_cancellation_undo(tmp_path: Path) -> None:
    async def hold() -> None:
        async with Changes(tmp_path) as changes:
            await changes.make(Noted("a"))
            await asyncio.sleep(60)

    task = asyncio.create_task(hold())
    await asyncio.sleep(0.05)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert LOG == ["+a", "-a"]
    assert list(tmp_path.iterdir()) == []


def abandon(directory: Path) -> None:
    """Make changes in a child that is killed."""
    child = os.fork()
    if child == 0:
        asyncio.run(_make_two(directory))
        os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(child, 0)


async def _make_two(directory: Path) -> None:
    changes = Changes(directory)
    await changes.make(Noted("a"))
    await changes.make(Noted("b"))
    await changes.make(Noted("c", "undo"))


async def test_recovers_what_a_killed_process_left(tmp_path: Path) -> None:
    await asyncio.to_thread(abandon, tmp_path)
    (recovered,) = await recover_stale(tmp_path)
    assert recovered.undone == ("note b", "note a")
    assert recovered.failed == ("note c: stuck",)
    assert LOG == ["-c", "-b", "-a"]
    assert await recover_stale(tmp_path) == []
    assert list(tmp_path.iterdir()) == []


async def test_leaves_the_living_alone(tmp_path: Path) -> None:
    async with Changes(tmp_path) as changes:
        await changes.make(Noted("a"))
        assert await recover_stale(tmp_path) == []
        assert LOG == ["+a"]


async def test_a_reused_process_number_is_another_owner(tmp_path: Path) -> None:
    await asyncio.to_thread(abandon, tmp_path)
    (journal,) = tmp_path.iterdir()
    header, *rest = journal.read_text().splitlines()
    values = json.loads(header)
    values["owner"]["pid"] = os.getpid()
    journal.write_text("\n".join([json.dumps(values), *rest]) + "\n")
    (recovered,) = await recover_stale(tmp_path)
    assert len(recovered.undone) == 2


@pytest.mark.parametrize("damage", ["cut", "empty", "garbage", "future"])
async def test_a_damaged_journal_harms_nobody(tmp_path: Path, damage: str) -> None:
    await asyncio.to_thread(abandon, tmp_path)
    (journal,) = tmp_path.iterdir()
    text = journal.read_text()
    changed = {
        "cut": text[:-10],
        "empty": "",
        "garbage": "\0\0{",
        "future": text.replace('"version": 1', '"version": 99'),
    }
    journal.write_text(changed[damage])
    recovered = await recover_stale(tmp_path)
    assert (["-b", "-a"] if damage == "cut" else []) == LOG
    assert len(recovered) == (damage == "cut")


async def test_the_last_owner_restores_what_is_shared(tmp_path: Path) -> None:
    shared = tmp_path / "shared"
    shared.write_text("original")
    one, two = Changes(tmp_path), Changes(tmp_path)
    await one.make(Shared(str(shared), "one", ("original",)))
    await two.make(Shared(str(shared), "two", ("one",)))
    assert len(standing_changes(f"shared {shared}", tmp_path)) == 2
    await one.close()
    assert shared.read_text() == "two"
    await two.close()
    assert shared.read_text() == "original"


def test_the_process_wide_interface_runs_without_extra_imports() -> None:
    """Start-up time is promised: the host room pulls in neither D-Bus nor a netlink library."""
    code = (
        "import sys, ikeway.host, ikeway.host.linux.network as n;"
        "assert not {'dbus_fast', 'pyroute2'} & set(sys.modules), sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
