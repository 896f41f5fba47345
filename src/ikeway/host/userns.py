"""Whether a user without rights can have namespaces and a TUN device here, and if not, what to switch on.

Settings alone do not tell: AppArmor lets the namespace be made and then refuses every right in it, containers forbid the
system call. So `probe` tries what `ikeway run` does, in a child process, and reads settings to explain a refusal.
"""

from __future__ import annotations

import contextlib
import enum
import errno
import json
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ikeway.errors import HostError
from ikeway.host import namespaces
from ikeway.host.namespaces import CLONE_NEWNET, CLONE_NEWNS, CLONE_NEWUSER
from ikeway.host.tun import DEVICE, open_tun

_SYSCTLS = Path("/proc/sys")
_CAP_SYS_ADMIN = 21
_APPARMOR = """\
let this program alone: write to /etc/apparmor.d/ikeway
    abi <abi/4.0>,
    profile ikeway {python} flags=(unconfined) {{ userns, }}
  and run `apparmor_parser -r /etc/apparmor.d/ikeway`; or allow it to all: \
sysctl -w kernel.apparmor_restrict_unprivileged_userns=0"""


class Step(enum.Enum):
    """What an enclave takes, in order."""

    USER_NAMESPACE = "a user namespace"
    MAPPING = "this user inside the user namespace"
    OTHER_NAMESPACES = "network and mount namespaces"
    DEVICE = "a TUN device inside"


@dataclass(frozen=True, slots=True)
class UserNamespaceSupport:
    """Whether `ikeway run` and `proxy` work here without root. `failed` is the step that was refused, None when all is
    well; `got` what the kernel said; each of `remedies` is something to do about it."""

    failed: Step | None = None
    got: str = ""
    remedies: tuple[str, ...] = ()

    @property
    def usable(self) -> bool:
        """True when nothing was refused."""
        return self.failed is None

    def error(self) -> HostError:
        """The same as an error."""
        assert self.failed is not None, "nothing was refused"
        return HostError(
            f"this host does not let this user have {self.failed.value}",
            expected="unprivileged user namespaces and /dev/net/tun, or root",
            got=self.got,
            remedy="; ".join((*self.remedies, "or run it as root (`sudo ikeway run --user $USER ...`)")),
        )


def may_make_namespaces() -> bool:
    """True when this process needs no user namespace to make others (CAP_SYS_ADMIN)."""
    for line in _read(Path("/proc/self/status")).splitlines():
        if line.startswith("CapEff:"):
            return bool(int(line.split()[1], 16) >> _CAP_SYS_ADMIN & 1)
    return False


def enter_namespaces(*, rootless: bool) -> None:
    """Move this process, which has one thread, to new network and mount namespaces; `rootless`: inside a user
    namespace in which the user is who it was, with all rights until it starts another program (`HostError`)."""
    uid, gid = os.geteuid(), os.getegid()
    if rootless:
        _try(Step.USER_NAMESPACE, lambda: namespaces.unshare(CLONE_NEWUSER))
        _try(Step.MAPPING, lambda: _map(uid, gid))
    _try(Step.OTHER_NAMESPACES, lambda: namespaces.unshare(CLONE_NEWNS | CLONE_NEWNET))


def probe() -> UserNamespaceSupport:
    """Try it in a child process, and leave nothing behind. For a program with one thread."""
    if sys.platform != "linux":
        return UserNamespaceSupport(Step.USER_NAMESPACE, f"this is {sys.platform}", ("use Linux",))
    if (missing := _device_problem()) is not None:
        return missing
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        with contextlib.suppress(BaseException):
            os.write(writing, json.dumps(_attempt()).encode())
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        answer = pipe.read()
    os.waitpid(child, 0)
    name, number = json.loads(answer) if answer else (Step.USER_NAMESPACE.name, errno.EPERM)
    return explain(Step[name], number) if name else UserNamespaceSupport()


def explain(step: Step, number: int) -> UserNamespaceSupport:
    """What the refusal of a step with an errno means on this host."""
    found = list(_settings())
    if step is Step.DEVICE and (problem := _device_problem()) is not None:
        return problem
    if not found and _read(Path("/proc/self/status")).find("\nSeccomp:\t2") >= 0:
        found.append(
            "let the container make namespaces (docker: --security-opt seccomp=unconfined, or --cap-add SYS_ADMIN)"
        )
    if not found and not Path("/proc/self/ns/user").exists():
        found.append("take a kernel with user namespaces (CONFIG_USER_NS)")
    if not found and number == errno.ENOSPC:
        found.append(
            "raise user.max_user_namespaces and user.max_net_namespaces (sysctl -w user.max_user_namespaces=10000)"
        )
    return UserNamespaceSupport(step, os.strerror(number), tuple(found))


def _settings() -> list[str]:
    """What the settings of this host forbid, each with what allows it."""
    found = []
    if _sysctl("kernel/unprivileged_userns_clone") == "0":
        found.append("sysctl -w kernel.unprivileged_userns_clone=1")
    for kind in ("user", "net", "mnt"):
        if _sysctl(f"user/max_{kind}_namespaces") == "0":
            found.append(f"sysctl -w user.max_{kind}_namespaces=10000")
    if _sysctl("kernel/apparmor_restrict_unprivileged_userns") == "1":
        found.append(_APPARMOR.format(python=Path(sys.executable).resolve()))
    return found


def _attempt() -> tuple[str, int]:
    try:
        enter_namespaces(rootless=not may_make_namespaces())
        open_tun("ikeway-probe").close()
    except HostError as error:
        step = error.step if isinstance(error, NamespaceRefused) else Step.DEVICE
        cause = error.__cause__
        return step.name, (cause.errno or errno.EPERM) if isinstance(cause, OSError) else errno.EPERM
    return "", 0


class NamespaceRefused(HostError):
    """A step that the kernel refused."""

    def __init__(self, step: Step, number: int) -> None:
        told = explain(step, number).error()
        super().__init__(told.reason, expected=told.expected, got=told.got, remedy=told.remedy)
        self.step = step


def _try(step: Step, action: Callable[[], None]) -> None:
    try:
        action()
    except OSError as error:
        raise NamespaceRefused(step, error.errno or errno.EPERM) from error


def _map(uid: int, gid: int) -> None:
    Path("/proc/self/setgroups").write_text("deny")
    Path("/proc/self/uid_map").write_text(f"{uid} {uid} 1")
    Path("/proc/self/gid_map").write_text(f"{gid} {gid} 1")


def _device_problem() -> UserNamespaceSupport | None:
    if not DEVICE.exists():
        remedy = "load the module (modprobe tun); in a container, add the device (docker: --device /dev/net/tun)"
        return UserNamespaceSupport(Step.DEVICE, f"no {DEVICE}", (remedy,))
    if not os.access(DEVICE, os.R_OK | os.W_OK):
        remedy = f"chmod 0666 {DEVICE} (safe: using it takes CAP_NET_ADMIN in the namespace)"
        return UserNamespaceSupport(Step.DEVICE, f"{DEVICE} is closed to this user", (remedy,))
    return None


def _sysctl(name: str) -> str:
    return _read(_SYSCTLS / name)


def _read(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""
