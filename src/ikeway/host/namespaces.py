"""Network namespaces for the demonstration and the tests, that cannot be left behind.

A `Namespace` has no name in the file system: a descriptor holds it, so it is gone, with its interfaces, when we and the
processes inside are, whichever way we end. Those processes are told to die with us (PR_SET_PDEATHSIG).

`isolate` goes further and moves the whole program into user, mount, PID and network namespaces of its own. Nothing
that it then starts, mounts or writes to /run outlives it; the kernel sees to that. It needs no root where
user namespaces are allowed, and everything inside is the same with root and without.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from ipaddress import ip_interface
from pathlib import Path
from types import TracebackType
from typing import IO, Any, TypeVar

from ikeway.errors import HostError
from ikeway.host.checks import user_namespaces_allowed
from ikeway.host.linux.links import add_address, add_veth, set_link
from ikeway.host.linux.netlink import Netlink
from ikeway.host.linux.sysctl import ROOT as SYSCTLS

if sys.platform == "linux":
    _LIBC = ctypes.CDLL(None, use_errno=True)

CLONE_NEWNS = 0x00020000
CLONE_NEWUSER = 0x10000000
CLONE_NEWPID = 0x20000000
CLONE_NEWNET = 0x40000000

_MS_BIND, _MS_REC, _MS_PRIVATE = 0x1000, 0x4000, 1 << 18
_PR_SET_PDEATHSIG = 1

Result = TypeVar("Result")


def unshare(flags: int) -> None:
    """Move the calling thread to namespaces of its own (man 2 unshare; `OSError`)."""
    _checked(_LIBC.unshare(flags), "unshare")


def set_namespace(fd: int, flags: int) -> None:
    """Move the calling thread to a namespace: setns(2) (`OSError`)."""
    _checked(_LIBC.setns(fd, flags), "setns")


def mount(source: str, target: str, kind: str = "", flags: int = 0, options: str = "") -> None:
    """Mount a file system, or bind a path to another (man 2 mount; `OSError`)."""
    arguments = (
        source.encode(),
        target.encode(),
        kind.encode() or None,
        ctypes.c_ulong(flags),
        options.encode() or None,
    )
    _checked(_LIBC.mount(*arguments), f"mount {target}")


def die_with_parent() -> None:
    """Have the kernel kill this process when the thread that started it ends."""
    _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


def isolate() -> None:
    """Go on in namespaces of our own, as root of them, with an empty /run that also holds temporary files (`HostError`).

    Returns in a grandchild. This process stays behind, passes signals on, and exits with the grandchild's exit code;
    the child between them is the new PID namespace's init. Call it while there is one thread.
    """
    rootless = os.geteuid() != 0
    uid, gid = os.geteuid(), os.getegid()
    try:
        unshare(CLONE_NEWNS | CLONE_NEWPID | CLONE_NEWNET | (CLONE_NEWUSER if rootless else 0))
        if rootless:
            Path("/proc/self/setgroups").write_text("deny")
            Path("/proc/self/uid_map").write_text(f"0 {uid} 1")
            Path("/proc/self/gid_map").write_text(f"0 {gid} 1")
    except OSError as error:
        raise _cannot_isolate(rootless, error) from error
    init = os.fork()
    if init:
        _wait_outside(init)
    die_with_parent()
    mount("none", "/", flags=_MS_REC | _MS_PRIVATE)
    mount("proc", "/proc", "proc")
    mount("ikeway", "/run", "tmpfs", options="mode=0755")
    Path("/run/tmp").mkdir(mode=0o700)
    os.environ["TMPDIR"] = tempfile.tempdir = "/run/tmp"
    worker = os.fork()
    if worker:
        _be_init(worker)
    die_with_parent()
    with Netlink() as nl:
        set_link(nl, "lo", up=True)


class Namespace:
    """A network namespace, its loopback up. A context manager. `label` is for messages."""

    def __init__(self, label: str = "") -> None:
        self.label = label
        self._processes: list[subprocess.Popen[Any]] = []
        self.fd = _in_thread(_new_namespace)
        self.call(_furnish)

    def __enter__(self) -> Namespace:
        """Return itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close."""
        self.close()

    def close(self) -> None:
        """Kill what was started inside and give the namespace up. Idempotent."""
        for process in reversed(self._processes):
            if process.poll() is None:
                process.kill()
            process.wait()
        self._processes.clear()
        fd, self.fd = self.fd, -1
        if fd >= 0:
            os.close(fd)

    def call(self, function: Callable[[], Result]) -> Result:
        """Run a function inside, in a thread of its own."""

        def inside() -> Result:
            set_namespace(self.fd, CLONE_NEWNET)
            return function()

        return _in_thread(inside)

    def entering(self, files: Mapping[str, Path] | None = None) -> Callable[[], None]:
        """What a child has to call before exec to be inside (`preexec_fn`). `files` are mounted over paths, for that
        child alone, as `ip netns exec` does."""

        def enter() -> None:
            die_with_parent()
            set_namespace(self.fd, CLONE_NEWNET)
            if files:
                unshare(CLONE_NEWNS)
                mount("none", "/", flags=_MS_REC | _MS_PRIVATE)
                for path, source in files.items():
                    mount(str(source), path, flags=_MS_BIND)

        return enter

    def popen(
        self,
        arguments: Sequence[str],
        *,
        files: Mapping[str, Path] | None = None,
        environment: Mapping[str, str] | None = None,
        stdin: int | IO[Any] | None = subprocess.DEVNULL,
        stdout: int | IO[Any] | None = None,
        stderr: int | IO[Any] | None = None,
    ) -> subprocess.Popen[str]:
        """Start a program inside; `close` kills it if it still runs."""
        process = subprocess.Popen(
            arguments,
            text=True,
            stdin=stdin,
            stdout=stdout,
            stderr=stderr,
            env={**os.environ, **environment} if environment else None,
            preexec_fn=self.entering(files),  # noqa: PLW1509  one thread in the programs that use it
        )
        self._processes.append(process)
        return process

    def run(
        self,
        arguments: Sequence[str],
        *,
        timeout: float = 60.0,
        files: Mapping[str, Path] | None = None,
        environment: Mapping[str, str] | None = None,
        check: bool = True,
    ) -> str:
        """Run a program inside to its end and return what it wrote (`subprocess.CalledProcessError`)."""
        process = self.popen(
            arguments, files=files, environment=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )
        try:
            output, _ = process.communicate(timeout=timeout)
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()
            self._processes.remove(process)
        if check and process.returncode:
            raise subprocess.CalledProcessError(process.returncode, list(arguments), output)
        return output


@dataclass(frozen=True, slots=True)
class Port:
    """One end of a cable: the interface's name, its addresses with prefix lengths, and its MTU."""

    namespace: Namespace
    interface: str
    addresses: tuple[str, ...] = field(default=())
    mtu: int = 1500


def connect(one: Port, other: Port) -> None:
    """Lay a cable (a veth pair) between two namespaces; it goes with either of them."""
    one.namespace.call(lambda: _lay(one, other))
    for port in (one, other):
        port.namespace.call(lambda port=port: _configure(port))  # type: ignore[misc]


def _lay(one: Port, other: Port) -> None:
    with Netlink() as nl:
        add_veth(nl, one.interface, other.interface, other.namespace.fd)


def _configure(port: Port) -> None:
    with Netlink() as nl:
        set_link(nl, port.interface, up=True, mtu=port.mtu)
        for address in port.addresses:
            add_address(nl, port.interface, ip_interface(address), prefix_route=True)


def _furnish() -> None:
    """Loopback up. Addresses are to be usable at once: nobody else is here who could have the same (RFC 4862)."""
    with Netlink() as nl:
        set_link(nl, "lo", up=True)
    for scope in ("all", "default"):
        with contextlib.suppress(OSError):
            (SYSCTLS / f"net/ipv6/conf/{scope}/accept_dad").write_text("0")


def _new_namespace() -> int:
    """Make a network namespace in a thread that ends afterwards, and return a descriptor that keeps it."""
    try:
        unshare(CLONE_NEWNET)
    except OSError as error:
        raise HostError(
            "cannot make a network namespace",
            expected="CAP_SYS_ADMIN",
            got=str(error.strerror),
            remedy="run as root, or inside a user namespace (unshare -Ur)",
        ) from error
    return os.open(f"/proc/self/task/{threading.get_native_id()}/ns/net", os.O_RDONLY | os.O_CLOEXEC)


def _in_thread(function: Callable[[], Result]) -> Result:
    """Run a function in a new thread, as a namespace is a thread's own."""
    results: list[Result] = []
    errors: list[BaseException] = []

    def body() -> None:
        try:
            results.append(function())
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=body)
    thread.start()
    thread.join()
    if errors:
        raise errors[0]
    return results[0]


def _wait_outside(init: int) -> None:
    """Pass signals to the isolated program; exit as it does."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda received, _: _pass_on(init, received))
    while True:
        with contextlib.suppress(InterruptedError):
            _, status = os.waitpid(init, 0)
            break
    code = os.waitstatus_to_exitcode(status)
    os._exit(code if code >= 0 else 128 - code)


def _be_init(worker: int) -> None:
    """Reap whatever ends; pass signals on; exit with the worker's code, on which the kernel kills all that is left."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda received, _: _pass_on(worker, received))
    while True:
        pid, status = os.waitpid(-1, 0)
        if pid == worker:
            code = os.waitstatus_to_exitcode(status)
            os._exit(code if code >= 0 else 128 - code)


def _pass_on(pid: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)


def _cannot_isolate(rootless: bool, error: OSError) -> HostError:
    if not rootless:
        return HostError(
            "cannot make namespaces",
            expected="CAP_SYS_ADMIN",
            got=str(error.strerror),
            remedy="give the container that right (docker: --cap-add SYS_ADMIN --security-opt apparmor=unconfined)",
        )
    settings = "" if user_namespaces_allowed() else " (the settings of this host forbid it)"
    return HostError(
        f"cannot make a user namespace{settings}",
        got=str(error.strerror),
        remedy="run as root, or allow it: sysctl -w kernel.unprivileged_userns_clone=1 (Debian), "
        "kernel.apparmor_restrict_unprivileged_userns=0 (Ubuntu), user.max_user_namespaces=10000",
    )


def _checked(result: int, what: str) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), what)
