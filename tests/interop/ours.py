"""Ikeway itself as a user runs it: `ikeway up PROFILE` and `ikeway gateway run CONFIG`, in a namespace with a /run of
its own."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ikeway.daemon.control import ControlClient
from ikeway.daemon.status import SessionStatus, Status
from ikeway.errors import IkewayError
from ikeway.host.namespaces import Namespace
from tests.interop.agreement import Agreement, Party
from tests.interop.strongswan import ConnectFailed
from tests.interop.waiting import PATIENCE, wait_for_text, wait_until

# Where keys are renewed every few seconds: collisions put a rekeying off for longer than a tenth of that.
LIFETIME = 3600
IKEWAY = (sys.executable, "-m", "ikeway")

Table = Mapping[str, object]


class Ikeway:
    """One long-running command."""

    is_ours = True

    def __init__(
        self, namespace: Namespace, folder: Path, *words: str, environment: Mapping[str, str] | None = None
    ) -> None:
        self.namespace, self.folder = namespace, folder
        self._run = folder / "run"
        self._run.mkdir()
        self._output = folder / "output"
        with self._output.open("wb") as output:
            self.process = namespace.popen(
                [*IKEWAY, *words],
                files={"/run": self._run},
                environment={**self._environment(), **(environment or {})},
                stdout=output,
                stderr=subprocess.STDOUT,
            )

    def _environment(self) -> dict[str, str]:
        return {"HOME": str(self.folder), "PYTHONUNBUFFERED": "1", "TERM": "dumb", "COLUMNS": "500"}

    def call(self, command: str, **arguments: object) -> Any:
        """Give a command on the control socket, as `ikeway status`, `rekey`, `down`... do."""
        (path,) = (self._run / "ikeway").glob("*.sock")
        with ControlClient(path) as control:
            return control.call(command, **arguments)

    def sessions(self) -> tuple[SessionStatus, ...]:
        """The IKE SAs that stand."""
        return Status.from_json(self.call("status")).sessions

    def log(self) -> str:
        """All that it said."""
        return self._output.read_text(errors="replace")

    def status(self) -> str:
        """Its counters, for people who look for a lost packet."""
        try:
            return json.dumps(self.call("status"), indent=1)
        except (ValueError, IkewayError) as error:  # no socket: it does not run
            return str(error)

    def wait_for_log(self, pattern: str, timeout: float = 15) -> str:
        """Wait until a line matches, or the process ends."""
        return wait_for_text(self.log, pattern, timeout, lambda: self.process.poll() is not None, ConnectFailed)

    def interrupt(self, timeout: float = 15) -> int:
        """End it as its user would, and return its exit code."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        return self.process.wait(timeout * PATIENCE)

    def kill(self) -> None:
        """End it without a word."""
        self.process.kill()
        self.process.wait(10)

    def stop(self) -> None:
        """End it, however it is."""
        try:
            self.interrupt()
        except subprocess.TimeoutExpired:
            self.kill()
            raise AssertionError(f"ikeway did not end on SIGTERM:\n{self.log()}") from None

    def rekey(self, what: str) -> None:
        """Renew keys now: of the "child" SAs or the "ike" SA."""
        self.call("rekey", what=what)


class IkewayGateway(Ikeway):
    """`ikeway gateway run` for an agreement."""

    def __init__(self, namespace: Namespace, folder: Path, agreed: Agreement) -> None:
        own = agreed.gateway
        configuration = folder / "gateway.toml"
        users = folder / "users.toml"
        write_private(users, {"users": _users(own, agreed)})
        write_private(configuration, _gateway(own, agreed, folder, users))
        words = ("gateway", "run", str(configuration), "-vv")
        super().__init__(namespace, folder, *words, environment=own.environment)
        self.wait_for_log(r"(?i)\bserving\b|\bserves\b")

    def rekey(self, what: str) -> None:
        """Renew keys now."""
        (session,) = self.sessions()
        self.call("rekey", session=str(session.id), what=what)

    def close(self) -> None:
        """End the session, with the peer's consent, and go on serving."""
        assert self.call("terminate", all=True)["ended"]
        self.wait_until_gone(10)

    def wait_until_gone(self, timeout: float) -> None:
        """Wait until it has given the session up."""
        wait_until(lambda: not self.sessions(), "the gateway still has the session", timeout, self.log)


class IkewayClient(Ikeway):
    """`ikeway up` for an agreement; runs from `connect()` on."""

    def __init__(self, namespace: Namespace, folder: Path, agreed: Agreement) -> None:
        self.namespace, self.folder, self.agreed = namespace, folder, agreed
        self.profile = folder / "lab.toml"
        write_private(self.profile, _profile(agreed.client, agreed, folder))
        self._started = False

    def connect(self, timeout: float = 15) -> None:
        """Bring it up; raises `ConnectFailed` with what it said."""
        self._started = True
        words = ("up", str(self.profile), "-v")
        super().__init__(self.namespace, self.folder, *words, environment=self.agreed.client.environment)
        self.wait_for_log(r"\bis up: ", timeout)

    def close(self) -> None:
        """Disconnect, as `ikeway down` does."""
        self.call("down")
        self.wait_until_gone(10)

    def wait_until_gone(self, timeout: float) -> None:
        """Wait for its end: it is not to reconnect."""
        wait_until(lambda: self.process.poll() is not None, "the client still runs", timeout, self.log)

    def log(self) -> str:
        """All that it said."""
        return super().log() if self._started else "(not started)"

    def status(self) -> str:
        """Its counters."""
        return super().status() if self._started else ""

    def stop(self) -> None:
        """End it, if it ever began."""
        if self._started:
            super().stop()


def _profile(own: Party, agreed: Agreement, folder: Path) -> Table:
    gateway: dict[str, object] = {"address": agreed.way.gateway, "identity": own.expects}
    login: dict[str, object] = {"identity": own.identity}
    if agreed.gateway.auth == "cert" and own.trusts is not None:
        gateway |= {"authentication": "certificate", "ca": str(own.trusts.write(folder, "gateway")[2])}
    if own.auth == "psk":
        login |= {"method": "psk", "psk": own.secret}
    elif own.credential is not None:
        certificate, key, _ = own.credential.write(folder, "client")
        login |= {"method": {"cert": "certificate"}.get(own.auth, own.auth)}
        login |= {"certificate": str(certificate), "key": str(key)}
    else:
        login |= {"method": own.auth, "username": own.identity, "password": own.password}
    if own.then:
        further = {"username": own.identity, "password": own.then_password}
        login["then"] = [{"method": method, **further} for method in own.then]
    children = {name: {"remote": list(networks)} for name, networks in own.networks.items() if networks}
    profile: Table = {
        "gateway": gateway,
        "login": login,
        "network": {
            "request": [f"ipv{version}" for version in agreed.pool],
            "dns": "off",
            "data_plane": own.data_plane,
        },
        "ike": _ike(own),
        "esp": _esp(own),
        "children": children,
        "session": {"reconnect": False},
    }
    return _laid_over(profile, own.ours)


def _gateway(own: Party, agreed: Agreement, folder: Path, users: Path) -> Table:
    gateway: dict[str, object] = {"identity": own.identity, "users": str(users)}
    connection: dict[str, object] = {
        "login": {"cert": "certificate"}.get(agreed.client.auth, agreed.client.auth),
        "gateway_authentication": {"cert": "certificate"}.get(own.auth, own.auth),
        "identities": [own.expects],
        "pools": ["lab"] if agreed.pool else [],
        "subnets": [network for networks in own.networks.values() for network in networks],
    }
    if agreed.client.then:
        connection["then"] = [{"login": method} for method in agreed.client.then]
    if own.credential is not None:
        certificate, key, _ = own.credential.write(folder, "gateway")
        gateway |= {"certificate": str(certificate), "key": str(key)}
    if own.trusts is not None:
        connection["ca"] = str(own.trusts.write(folder, "clients")[2])
    configuration: Table = {
        "gateway": gateway,
        "network": {"data_plane": own.data_plane},
        "limits": {"cookie_threshold": 0 if agreed.always_cookie else 32},
        "ike": _ike(own),
        "esp": _esp(own),
        "pools": {}
        if not agreed.pool
        else {"lab": {f"ipv{version}": network for version, network in agreed.pool.items()}},
        "connections": {"lab": connection},
    }
    return _laid_over(configuration, own.ours)


def _laid_over(table: Table, above: Table) -> Table:
    """`table` with the keys of `above`, section by section; a key that is None there is left out."""
    both = dict(table)
    for key, value in above.items():
        below = both.get(key)
        both[key] = (
            _laid_over(below if isinstance(below, Mapping) else {}, value) if isinstance(value, Mapping) else value
        )
    return {key: value for key, value in both.items() if value is not None}


def _users(own: Party, agreed: Agreement) -> Table:
    users: dict[str, object] = {"%any": {"psk": own.secret}} if agreed.client.auth == "psk" else {}
    if any(method.startswith("eap") for method in (agreed.client.auth, *agreed.client.then)):
        users["alice@lab.test"] = own.user if own.user is not None else {"password": own.password}
    return users


def _ike(own: Party) -> Table:
    section: dict[str, object] = {
        "proposals": own.ike.split(", "),
        "rekey": own.rekey_ike,
        "lifetime": LIFETIME if own.rekey_ike else 0,
        "dpd": own.dpd,
        "mobike": own.mobike,
        "fragment_size": own.fragment_size,
        "jitter": 0.0,
    }
    if not own.patient:
        section["retransmit"] = {"first": 0.5, "factor": 1.4, "tries": 3}
    return section


def _esp(own: Party) -> Table:
    lifetime = LIFETIME if own.rekey_child else 0
    proposals = own.esp.split(", ")
    return {
        "proposals": proposals,
        "mode": own.mode,
        "rekey": own.rekey_child,
        "lifetime": lifetime,
        "rekey_bytes": own.rekey_bytes,
        "jitter": 0.0,
    }


def write_private(path: Path, table: Table) -> None:
    """Write a TOML file that only its owner may read."""
    path.touch(mode=0o600)
    path.write_text("\n".join(_toml(table)) + "\n")


def _toml(table: Table, name: str = "") -> Iterator[str]:
    inner = {key: value for key, value in table.items() if isinstance(value, Mapping)}
    arrays = {key: value for key, value in table.items() if isinstance(value, list) and _are_tables(value)}
    for key, value in table.items():
        if key not in inner and key not in arrays:
            yield f"{_word(key)} = {json.dumps(value)}"
    for key, value in inner.items():
        path = f"{name}.{_word(key)}" if name else _word(key)
        yield f"[{path}]"
        yield from _toml(value, path)
    for key, tables in arrays.items():
        path = f"{name}.{_word(key)}" if name else _word(key)
        for each in tables:
            yield f"[[{path}]]"
            yield from _toml(each, path)


def _are_tables(values: list[object]) -> bool:
    return bool(values) and all(isinstance(each, Mapping) for each in values)


def _word(key: str) -> str:
    return key if re.fullmatch(r"[A-Za-z0-9_-]+", key) else json.dumps(key)
