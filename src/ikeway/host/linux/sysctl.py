"""Kernel settings under /proc/sys, and switching on forwarding so that it can be switched off again exactly.

Both forwarding switches have side effects. net.ipv4.ip_forward overwrites the `forwarding` of every interface and
`accept_redirects`. net.ipv6.conf.all.forwarding does the first too and makes the host a router, which forgets default
routes learned from router advertisements unless `accept_ra` is 2. So what they touch is read before and put back after.
"""

from __future__ import annotations

import dataclasses
import errno
from dataclasses import dataclass, field
from pathlib import Path

from ikeway.errors import HostError
from ikeway.host.journal import Change

ROOT = Path("/proc/sys")


@dataclass(frozen=True, slots=True)
class SysctlsSet(Change):
    """Settings that were changed together. `name` tells what for; `writes` and `before` are "path=value" texts,
    written in order when the change is made and undone. Only `name` is compared: a host that is configured again finds
    the new values there, and must not take them for what was before."""

    name: str
    writes: tuple[str, ...] = field(compare=False)
    before: tuple[str, ...] = field(compare=False)

    @property
    def shared_key(self) -> str:
        """Several owners want the same setting; the last one to leave puts it back."""
        return f"sysctl {self.name}"

    def joining(self, others: tuple[Change, ...]) -> Change:
        """What was before us is the others' doing; what was before them counts."""
        first = others[0] if others else None
        return dataclasses.replace(self, before=first.before) if isinstance(first, SysctlsSet) else self

    async def make(self, others: tuple[Change, ...]) -> None:
        """Write the new values."""
        for line in self.writes:
            write(*_split(line))

    async def undo(self, others: tuple[Change, ...]) -> None:
        """Write the old values, unless somebody still needs the new ones."""
        for line in () if others else self.before:
            write(*_split(line), missing_ok=True)

    def __str__(self) -> str:
        """Say what it does."""
        return f"switch on {self.name}"


def forwarding(version: int) -> SysctlsSet:
    """The change that lets this host forward IPv4 or IPv6 packets."""
    return _ipv6_forwarding() if version == 6 else _ipv4_forwarding()


def _ipv4_forwarding() -> SysctlsSet:
    switch = "net/ipv4/ip_forward"
    before = [_line(switch), *_lines("net/ipv4/conf/*/forwarding"), *_lines("net/ipv4/conf/*/accept_redirects")]
    return SysctlsSet("IPv4 forwarding", (f"{switch}=1",), tuple(before))


def _ipv6_forwarding() -> SysctlsSet:
    switch = "net/ipv6/conf/all/forwarding"
    # 1 means "unless forwarding"; 2 keeps them, and so the default route.
    advertised = [line for line in _lines("net/ipv6/conf/*/accept_ra") if line.endswith("=1")]
    writes = [line[:-1] + "2" for line in advertised] + [f"{switch}=1"]
    return SysctlsSet(
        "IPv6 forwarding", tuple(writes), (_line(switch), *_lines("net/ipv6/conf/*/forwarding"), *advertised)
    )


def read(path: str) -> str:
    """The value of a setting, by its path with slashes (`HostError`)."""
    try:
        return (ROOT / path).read_text().strip()
    except OSError as error:
        raise HostError(f"cannot read the kernel setting {path}: {error.strerror}") from error


def write(path: str, value: str, *, missing_ok: bool = False) -> None:
    """Give a setting a value; nothing is written when it has that already (writing may have side effects)."""
    try:
        if (ROOT / path).read_text().strip() != value:
            (ROOT / path).write_text(value)
    except OSError as error:
        if missing_ok and error.errno in (errno.ENOENT, errno.ENOTDIR):
            return
        raise HostError(
            f"cannot set the kernel setting {path} to {value}: {error.strerror}",
            remedy=f"set it beforehand (sysctl -w {path.replace('/', '.')}={value}), or let this process write to /proc/sys",
        ) from error


def _line(path: str) -> str:
    return f"{path}={read(path)}"


def _lines(pattern: str) -> list[str]:
    return [_line(str(path.relative_to(ROOT))) for path in sorted(ROOT.glob(pattern))]


def _split(line: str) -> tuple[str, str]:
    path, _, value = line.rpartition("=")
    return path, value
