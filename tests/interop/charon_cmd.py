"""charon-cmd, strongSwan's client without a daemon: EAP, and RSA certificates."""

from __future__ import annotations

import subprocess
from pathlib import Path

from ikeway.host.namespaces import Namespace
from tests.interop.agreement import Agreement
from tests.interop.strongswan import PLUGINS, ConnectFailed
from tests.interop.waiting import wait_for_text

PROGRAM = "/usr/sbin/charon-cmd"
# Without vici, and without what it does not need: charon-cmd brings its credentials itself.
_PLUGINS = " ".join(plugin for plugin in PLUGINS.split() if plugin not in {"vici", "updown"})


class CharonCmd:
    """charon-cmd as the client of an agreement."""

    is_ours = False

    def __init__(self, namespace: Namespace, folder: Path, agreed: Agreement) -> None:
        self.namespace, self.folder, self.agreed = namespace, folder, agreed
        self._process: subprocess.Popen[str] | None = None
        self._output = folder / "output"

    def connect(self, timeout: float = 15) -> None:
        """Bring it up; raises `ConnectFailed` with what it said."""
        run = self.folder / "run"
        run.mkdir()
        configuration = self.folder / "strongswan.conf"
        configuration.write_text(
            f"charon-cmd {{\n  load = {_PLUGINS}\n  plugins {{ kernel-libipsec {{ allow_peer_ts = yes\n }} }}\n}}\n"
        )
        with self._output.open("wb") as output:
            # Without a terminal of its own it reads the password from its input.
            self._process = self.namespace.popen(
                ["setsid", "stdbuf", "-oL", PROGRAM, *self._words()],
                files={"/run": run},
                environment={"STRONGSWAN_CONF": str(configuration)},
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        assert self._process.stdin is not None
        self._process.stdin.write(f"{self.agreed.client.password}\n")
        self._process.stdin.flush()
        wait_for_text(self.log, r"CHILD_SA .* established", timeout, lambda: self._ended, ConnectFailed)

    def _words(self) -> list[str]:
        own = self.agreed.client
        words = ["--host", self.agreed.way.gateway, "--remote-identity", own.expects, "--identity", own.identity]
        for networks in own.networks.values():
            for network in networks:
                words += ["--remote-ts", network]
        if own.trusts is not None:
            words += ["--cert", str(own.trusts.write(self.folder, "gateway")[2])]
        if own.credential is not None:
            certificate, key, _ = own.credential.write(self.folder, "client")
            return [*words, "--profile", "ikev2-pub", "--cert", str(certificate), "--rsa", str(key)]
        return [*words, "--profile", "ikev2-eap"]

    @property
    def _ended(self) -> bool:
        return self._process is None or self._process.poll() is not None

    def log(self) -> str:
        """All that it said."""
        return self._output.read_text(errors="replace")

    def status(self) -> str:
        """Nothing to tell."""
        return ""

    def close(self) -> None:
        """Take leave and end."""
        self.stop()

    def stop(self) -> None:
        """End it."""
        if self._process is not None and self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(10)
            except subprocess.TimeoutExpired:
                self.kill()

    def kill(self) -> None:
        """End it without a word."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(10)

    def wait_until_gone(self, timeout: float) -> None:
        """Wait until it ended."""
        assert self._process is not None
        self._process.wait(timeout)
