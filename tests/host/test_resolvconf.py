import errno
import os
from pathlib import Path

import pytest

from ikeway.errors import HostError
from ikeway.host.journal import Changes
from ikeway.host.linux import resolvconf
from ikeway.host.linux.resolvconf import ResolvConfReplaced

OURS = "nameserver 10.1.1.1\nnameserver 10.1.1.2\n"


def record(path: Path, *servers: str, search: tuple[str, ...] = ()) -> ResolvConfReplaced:
    return ResolvConfReplaced.of(path, servers or ("10.1.1.1", "10.1.1.2"), search)


@pytest.fixture
def etc(tmp_path: Path) -> Path:
    directory = tmp_path / "etc"
    directory.mkdir()
    return directory


@pytest.fixture
def journals(tmp_path: Path) -> Path:
    directory = tmp_path / "journal"
    directory.mkdir()
    return directory


def body(path: Path) -> str:
    return "".join(line for line in path.read_text().splitlines(keepends=True) if not line.startswith("#"))


async def test_a_file_comes_back_with_all_its_properties(etc: Path, journals: Path) -> None:
    path = etc / "resolv.conf"
    path.write_text("nameserver 9.9.9.9\n")
    path.chmod(0o640)
    os.utime(path, (1, 2))
    before = path.stat()
    async with Changes(journals) as changes:
        await changes.make(record(path, search=("corp.example",)))
        assert body(path) == "search corp.example\n" + OURS
        assert path.stat().st_mode & 0o777 == 0o644
    after = path.stat()
    assert path.read_text() == "nameserver 9.9.9.9\n"
    assert (after.st_ino, after.st_mode, after.st_mtime) == (before.st_ino, before.st_mode, before.st_mtime)
    assert [each.name for each in etc.iterdir()] == ["resolv.conf"]


@pytest.mark.parametrize("target", ["../run/stub-resolv.conf", "/nowhere/at/all"])
async def test_a_link_comes_back_and_its_target_is_untouched(etc: Path, journals: Path, target: str) -> None:
    stub = etc.parent / "run" / "stub-resolv.conf"
    stub.parent.mkdir()
    stub.write_text("nameserver 127.0.0.53\n")
    path = etc / "resolv.conf"
    path.symlink_to(target)
    async with Changes(journals) as changes:
        await changes.make(record(path))
        assert not path.is_symlink()
        assert body(path) == OURS
        assert stub.read_text() == "nameserver 127.0.0.53\n"
    assert os.readlink(path) == target
    assert [each.name for each in etc.iterdir()] == ["resolv.conf"]


async def test_no_file_before_means_no_file_after(etc: Path, journals: Path) -> None:
    path = etc / "netns" / "blue" / "resolv.conf"
    async with Changes(journals) as changes:
        await changes.make(record(path))
        assert body(path) == OURS
    assert not path.exists()
    assert not path.parent.exists()


async def test_two_connections_share_the_file_in_whatever_order_they_end(etc: Path, journals: Path) -> None:
    path = etc / "resolv.conf"
    for first_to_leave in (0, 1):
        path.write_text("nameserver 9.9.9.9\n")
        both = Changes(journals), Changes(journals)
        await both[0].make(record(path, "10.0.0.1"))
        await both[1].make(record(path, "10.0.0.2", search=("two",)))
        assert body(path) == "search two\nnameserver 10.0.0.2\nnameserver 10.0.0.1\n"
        await both[first_to_leave].close()
        assert body(path) == ("search two\nnameserver 10.0.0.2\n" if first_to_leave == 0 else "nameserver 10.0.0.1\n")
        await both[1 - first_to_leave].close()
        assert path.read_text() == "nameserver 9.9.9.9\n"
        assert [each.name for each in etc.iterdir()] == ["resolv.conf"]


async def test_what_a_dhcp_client_wrote_meanwhile_stays(etc: Path, journals: Path) -> None:
    path = etc / "resolv.conf"
    path.write_text("nameserver 9.9.9.9\n")
    async with Changes(journals) as changes:
        await changes.make(record(path))
        new = etc / "new"
        new.write_text("nameserver 8.8.8.8\n")
        new.rename(path)
    assert path.read_text() == "nameserver 8.8.8.8\n"
    assert [each.name for each in etc.iterdir()] == ["resolv.conf"]


async def test_after_a_rewrite_ours_is_put_back_and_theirs_is_the_new_original(etc: Path, journals: Path) -> None:
    path = etc / "resolv.conf"
    path.write_text("nameserver 9.9.9.9\n")
    async with Changes(journals) as changes:
        change = await changes.make(record(path))
        path.unlink()
        path.write_text("nameserver 8.8.8.8\n")
        assert isinstance(change, ResolvConfReplaced)
        assert not change.is_in_place()
        await changes.make_again(change)
        assert body(path) == OURS
    assert path.read_text() == "nameserver 8.8.8.8\n"


@pytest.mark.parametrize("killed", ["before the file was replaced", "after"])
async def test_an_orphan_of_the_last_boot_is_put_back(etc: Path, killed: str) -> None:
    path = etc / "resolv.conf"
    path.write_text("nameserver 9.9.9.9\n")
    if killed == "after":
        await record(path).make(())
        assert resolvconf.restore_orphan(path)
        assert not resolvconf.restore_orphan(path)
    else:
        os.link(path, etc / "resolv.conf.before-ikeway")
        assert not resolvconf.restore_orphan(path)  # nothing of ours is in use
        await record(path).undo(())
        assert [each.name for each in etc.iterdir()] == ["resolv.conf"]
    assert path.read_text() == "nameserver 9.9.9.9\n"


async def test_a_full_disk_costs_nobody_his_file(etc: Path, journals: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that has to be written in place is empty when there is no room for ours."""
    path = etc / "resolv.conf"
    path.write_text("nameserver 9.9.9.9\n")
    monkeypatch.setattr(resolvconf, "_is_mount_point", lambda path: True)
    write_text = Path.write_text

    def write(path: Path, text: str) -> int:
        if resolvconf._MARK in text:
            os.truncate(path, 0)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return write_text(path, text)

    monkeypatch.setattr(Path, "write_text", write)
    async with Changes(journals) as changes:
        with pytest.raises(HostError, match="No space left"):
            await changes.make(record(path))
        assert path.read_text() == "nameserver 9.9.9.9\n"


async def test_undoing_twice_does_no_harm(etc: Path) -> None:
    path = etc / "resolv.conf"
    path.write_text("nameserver 9.9.9.9\n")
    change = record(path)
    await change.make(())
    await change.undo(())
    await change.undo(())
    assert path.read_text() == "nameserver 9.9.9.9\n"


async def test_at_most_the_servers_that_the_c_library_reads(etc: Path) -> None:
    path = etc / "resolv.conf"
    await record(path, "1.1.1.1", "1.1.1.2", "1.1.1.3", "1.1.1.4").make(())
    assert body(path).count("nameserver") == 3


async def test_a_refusal_names_the_file_and_a_remedy(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(HostError, match=r"cannot change .*resolv\.conf.*leave DNS alone"):
        await ResolvConfReplaced(str(tmp_path / "file" / "resolv.conf"), ("1.1.1.1",), (), False, "", False).make(())
