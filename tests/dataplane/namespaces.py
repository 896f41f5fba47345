"""Network namespaces for tests: made and removed by the test, used from threads that step into them."""

from __future__ import annotations

import contextlib
import ctypes
import os
import subprocess
import threading
from collections.abc import Callable, Iterator
from typing import TypeVar

T = TypeVar("T")

_CLONE_NEWNET = 0x40000000


def ip(*arguments: str, namespace: str | None = None) -> str:
    """Run `ip`, in a namespace if one is named."""
    command = ["ip", *(["-n", namespace] if namespace else []), *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def run_in(namespace: str, *command: str, timeout: float = 60.0) -> subprocess.CompletedProcess[str]:
    """Run a command in a namespace."""
    return subprocess.run(
        ["ip", "netns", "exec", namespace, *command], capture_output=True, text=True, timeout=timeout, check=False
    )


def inside(namespace: str, function: Callable[[], T]) -> T:
    """What `function` returns when a thread calls it inside the namespace. Its sockets stay there."""
    result: list[T] = []
    errors: list[BaseException] = []

    def enter() -> None:
        try:
            fd = os.open(f"/run/netns/{namespace}", os.O_RDONLY)
            try:
                if ctypes.CDLL(None, use_errno=True).setns(fd, _CLONE_NEWNET):
                    raise OSError(ctypes.get_errno(), "setns")
            finally:
                os.close(fd)
            result.append(function())
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=enter)
    thread.start()
    thread.join()
    if errors:
        raise errors[0]
    return result[0]


@contextlib.contextmanager
def two_namespaces(prefix: str) -> Iterator[tuple[str, str]]:
    """Two namespaces joined by a veth pair: 10.77.0.1 - 10.77.0.2 and fd77::1 - fd77::2. The names are our own."""
    names = (f"{prefix}-a-{os.getpid()}", f"{prefix}-b-{os.getpid()}")
    try:
        for name in names:
            ip("netns", "add", name)
            run_in(name, "sysctl", "-qw", "net.ipv4.conf.all.promote_secondaries=1")
            ip("link", "set", "lo", "up", namespace=name)
        ip("link", "add", "wan", "netns", names[0], "type", "veth", "peer", "name", "wan", "netns", names[1])
        for number, name in enumerate(names, 1):
            ip("addr", "add", f"10.77.0.{number}/24", "dev", "wan", namespace=name)
            ip("addr", "add", f"fd77::{number}/64", "dev", "wan", "nodad", namespace=name)
            ip("link", "set", "wan", "up", namespace=name)
        yield names
    finally:
        for name in names:
            subprocess.run(["ip", "netns", "del", name], check=False, capture_output=True)
