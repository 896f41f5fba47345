"""Two strongSwan daemons with ESP in userspace (kernel-libipsec), joined by a pre-shared key: the measure of the field."""

from __future__ import annotations

import asyncio
import contextlib
import os
import subprocess
import tempfile
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

from tests.dataplane.namespaces import ip, two_namespaces

CHARON = Path("/usr/lib/ipsec/charon")
NEEDED = (CHARON, Path("/usr/sbin/swanctl"), Path("/usr/lib/ipsec/plugins/libstrongswan-kernel-libipsec.so"))
PLUGINS = "aes aesni sha1 sha2 random nonce openssl curve25519 chapoly gcm hmac kdf drbg kernel-libipsec kernel-netlink"
ENDS = (("10.77.0.1", "10.78.1.1"), ("10.77.0.2", "10.78.2.1"))  # outer, inner

_STRONGSWAN = """charon {{
  load = {plugins} socket-default vici
  install_routes = yes
  plugins {{
    vici {{ socket = unix://{folder}/charon.vici }}
    kernel-libipsec {{ allow_peer_ts = yes }}
  }}
}}
"""
_SWANCTL = """connections {{ bench {{
  version = 2
  local_addrs = {local}
  remote_addrs = {remote}
  proposals = aes128gcm16-prfsha256-x25519
  local {{ auth = psk
    id = {local} }}
  remote {{ auth = psk
    id = {remote} }}
  children {{ bench {{
    local_ts = {local_inner}/32
    remote_ts = {remote_inner}/32
    esp_proposals = {suite} }} }}
}} }}
secrets {{ ike-bench {{ secret = "of this benchmark only" }} }}
"""


@dataclass
class Pair:
    """Two namespaces with a tunnel between them."""

    client: str
    server: str
    client_inner: str
    server_inner: str
    processes: tuple[int, ...]


def strongswan_is_here() -> bool:
    """True when all that is needed is installed."""
    return all(path.exists() for path in NEEDED)


def _start(namespace: str, folder: Path, number: int, suite: str) -> subprocess.Popen[bytes]:
    (local, local_inner), (remote, remote_inner) = ENDS[number], ENDS[1 - number]
    (folder / "strongswan.conf").write_text(_STRONGSWAN.format(plugins=PLUGINS, folder=folder))
    (folder / "swanctl.conf").write_text(
        _SWANCTL.format(local=local, remote=remote, local_inner=local_inner, remote_inner=remote_inner, suite=suite)
    )
    ip("addr", "add", f"{local_inner}/32", "dev", "lo", namespace=namespace)
    with (folder / "output").open("wb") as output:
        process = subprocess.Popen(
            ["ip", "netns", "exec", namespace, "sh", "-c", f"mount --bind {folder} /run && exec {CHARON}"],
            env={**os.environ, "STRONGSWAN_CONF": str(folder / "strongswan.conf")},
            stdout=output,
            stderr=output,
            stdin=subprocess.DEVNULL,
        )
    deadline = time.monotonic() + 10
    while not (folder / "charon.vici").exists():
        if process.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError(f"charon did not start: {(folder / 'output').read_text()[-500:]}")
        time.sleep(0.05)
    return process


def _control(folder: Path, *arguments: str) -> None:
    subprocess.run(
        ["swanctl", *arguments, "--uri", f"unix://{folder}/charon.vici"],
        env={**os.environ, "SWANCTL_DIR": str(folder), "STRONGSWAN_CONF": str(folder / "strongswan.conf")},
        check=True,
        capture_output=True,
    )


@contextlib.asynccontextmanager
async def libipsec_pair(suite: str, prefix: str = "ikbsw") -> AsyncIterator[Pair]:
    """A tunnel that is up."""
    with contextlib.ExitStack() as stack:
        names = stack.enter_context(two_namespaces(prefix))
        folders = [Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="ikb"))) for _ in names]
        processes = []
        for number, (name, folder) in enumerate(zip(names, folders, strict=True)):
            process = _start(name, folder, number, suite)
            processes.append(process)
            stack.callback(_stop, process)
            _control(folder, "--load-all")
        await asyncio.to_thread(_control, folders[0], "--initiate", "--child", "bench")
        yield Pair(*names, ENDS[0][1], ENDS[1][1], tuple(process.pid for process in processes))


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(5)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
