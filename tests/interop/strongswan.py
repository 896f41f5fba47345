"""Debian's strongSwan as client or gateway in a namespace, with ESP in userspace (kernel-libipsec) and a /run of its own.

What to know of it: kernel-libipsec always encapsulates in UDP; as a client it needs `allow_peer_ts` to keep the route to
its gateway.
"""

from __future__ import annotations

import contextlib
import subprocess
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Union

from ikeway.host.namespaces import Namespace
from tests.interop.agreement import Agreement, Party
from tests.interop.vici import Answer, Section, Vici, ViciError
from tests.interop.waiting import PATIENCE, wait_for_text, wait_until

CHARON = "/usr/lib/ipsec/charon"
EAP_PLUGINS = (
    "eap-identity",
    "eap-mschapv2",
    "eap-md5",
    "eap-gtc",
    "eap-tls",
    "eap-ttls",
    "xauth-generic",  # judges what a client of its eap-gtc answers, by the secrets that are loaded
)
PLUGINS = (
    "aes aesni sha1 sha2 md5 random nonce x509 revocation constraints pubkey pkcs1 pkcs8 pem openssl curve25519 chapoly "
    "gcm hmac kdf drbg kernel-libipsec kernel-netlink socket-default vici updown attr " + " ".join(EAP_PLUGINS)
)

Settings = Mapping[str, Union[str, "Settings"]]


class ConnectFailed(AssertionError):
    """A client could not connect; the text is what it said."""


@dataclass(frozen=True)
class Child:
    """A child SA as charon lists it. SPIs in hexadecimal."""

    name: str
    state: str
    spi_in: str
    spi_out: str
    encryption: str
    key_bits: int
    integrity: str
    key_exchange: str
    octets_in: int
    octets_out: int
    local: tuple[str, ...]
    remote: tuple[str, ...]


@dataclass(frozen=True)
class Sa:
    """An IKE SA as charon lists it."""

    name: str
    id: str
    state: str
    local_host: str
    remote_host: str
    remote_port: int
    remote_identity: str
    eap_identity: str
    initiator_spi: str
    encryption: str
    key_bits: int
    key_exchange: str
    virtual: tuple[str, ...]
    children: tuple[Child, ...] = field(default=())

    @property
    def installed(self) -> tuple[Child, ...]:
        """The children that carry traffic."""
        return tuple(child for child in self.children if child.state == "INSTALLED")


class Charon:
    """A charon process; `stop()` or `kill()` ends it."""

    def __init__(self, namespace: Namespace, folder: Path, settings: Settings | None = None) -> None:
        self.namespace, self.folder = namespace, folder
        self._run = folder / "run"
        self._run.mkdir(parents=True, exist_ok=True)
        self._log = folder / "charon.log"
        self._log.unlink(missing_ok=True)
        self._mark = 0
        configuration = folder / "strongswan.conf"
        configuration.write_text("charon {\n" + "\n".join(_lines(self._settings(settings or {}))) + "\n}\n")
        with (folder / "stdout").open("wb") as output:
            self._process = namespace.popen(
                [CHARON],
                files={"/run": self._run},
                environment={"STRONGSWAN_CONF": str(configuration)},
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        self._wait_for_socket()

    def _settings(self, extra: Settings) -> Settings:
        log = {"path": str(self._log), "default": "1", "ike": "2", "flush_line": "yes"}
        log |= {"time_format": "%H:%M:%S", "time_add_ms": "yes"}
        base: Settings = {
            "load": PLUGINS,
            "install_routes": "yes",
            "plugins": {
                "vici": {"socket": f"unix://{self._socket}"},
                "kernel-libipsec": {"allow_peer_ts": "yes"},
                "eap-gtc": {"backend": "generic"},
            },
            "filelog": {"file": log},
        }
        return _laid_over(base, extra)

    @property
    def _socket(self) -> Path:
        return self._run / "charon.vici"

    def _wait_for_socket(self) -> None:
        deadline = time.monotonic() + 10 * PATIENCE
        while time.monotonic() < deadline and self._process.poll() is None:
            try:
                self.vici("version")
            except (OSError, ViciError):
                time.sleep(0.02)
            else:
                return
        self.kill()
        raise AssertionError(f"charon did not start: {(self.folder / 'stdout').read_text()}\n{self.log()}")

    @property
    def running(self) -> bool:
        return self._process.poll() is None

    def stop(self) -> None:
        """End it as its operator would: it says goodbye to its peers."""
        self._process.terminate()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self.kill()

    def kill(self) -> None:
        """End it without a word to anybody."""
        self._process.kill()
        self._process.wait(10)

    def vici(self, command: str, message: Section | None = None, timeout: float = 30) -> Answer:
        """One command."""
        with Vici(self._socket, timeout) as control:
            return control.command(command, message)

    def log(self) -> str:
        """What was logged since the last `configure`."""
        return self._log.read_bytes()[self._mark :].decode(errors="replace") if self._log.exists() else ""

    def wait_for_log(self, pattern: str, timeout: float = 10) -> str:
        """Wait until a line matches."""
        return wait_for_text(self.log, pattern, timeout)

    def sas(self) -> list[Sa]:
        """All IKE SAs with their children."""
        with Vici(self._socket) as control:
            listed = control.stream("list-sas", "list-sa")
        return [_sa(name, section) for event in listed for name, section in event.items() if isinstance(section, dict)]

    def forget(self) -> None:
        """Drop all connections, SAs, secrets and pools of the case before."""
        wait_until(self._ends_all, "an SA stays")
        for name in _list(self.vici("get-conns").get("conns")):
            self.vici("unload-conn", {"name": name})
        for name in _list(self.vici("get-shared").get("keys")):
            self.vici("unload-shared", {"id": name})
        with Vici(self._socket) as control:
            for name in control.command("get-pools"):
                wait_until(lambda name=name: _unload_pool(control, name), f"pool {name} keeps its leases")
        self.vici("clear-creds")
        self._mark = self._log.stat().st_size

    def _ends_all(self) -> bool:
        """Ask for the end of every SA; True when none is left. One that is rekeyed meanwhile is another one then."""
        for sa in self.sas():
            with contextlib.suppress(ViciError), Vici(self._socket) as control:
                control.command("terminate", {"ike-id": sa.id, "force": "yes", "timeout": "2000"})
        return not self.sas()

    def load(self, name: str, connection: Section, own: Party) -> None:
        """Load a connection with the secrets that its own side needs."""
        self.vici("load-shared", {"id": "psk", "type": "IKE", "data": own.secret, "owners": []})
        self.vici("load-shared", {"id": "eap", "type": "EAP", "data": own.password, "owners": [_eap_user(own)]})
        for credential in filter(None, (own.credential, own.second)):
            self.vici("load-key", {"type": "any", "data": credential.key_der})
        if own.trusts is not None:
            self.vici("load-cert", {"type": "X509", "flag": "CA", "data": own.trusts.issuer_der})
        self.vici("load-conn", {name: connection})


def daemon_settings(agreed: Agreement, own: Party) -> Settings:
    """What a case wants of the whole daemon rather than of a connection."""
    settings: dict[str, str | Settings] = {"fragment_size": str(own.fragment_size or 1280)}
    if not own.patient:
        settings |= {"retransmit_timeout": "0.5", "retransmit_base": "1.4", "retransmit_tries": "3"}
    if agreed.always_cookie:
        settings |= {"cookie_threshold": "1"}
    if own.data_plane == "kernel":
        settings |= {"load": PLUGINS.replace("kernel-libipsec ", "")}
    return _laid_over(settings, own.charon)


class _Side:
    """What a gateway and a client have in common."""

    is_ours = False

    def __init__(self, charon: Charon, name: str, own: Party) -> None:
        self.charon, self.name, self.own = charon, name, own
        self.namespace = charon.namespace

    def sas(self) -> list[Sa]:
        """The IKE SAs that stand."""
        return [sa for sa in self.charon.sas() if sa.state == "ESTABLISHED"]

    def rekey(self, what: str) -> None:
        """Renew keys now: of the first "child" SA or the "ike" SA."""
        self.charon.vici("rekey", {what: self.name if what == "ike" else next(iter(self.own.networks))})

    def close(self) -> None:
        """Delete the IKE SA, with the peer's consent. One that it has replaced goes before: `terminate` fails when one of
        several has ended by itself."""
        wait_until(
            lambda: sum(sa.name == self.name for sa in self.charon.sas()) <= 1, "a rekeying does not end", logs=self.log
        )
        self.charon.vici("terminate", {"ike": self.name, "timeout": "10000"})

    def kill(self) -> None:
        """End the daemon without a word."""
        self.charon.kill()

    def wait_until_gone(self, timeout: float) -> None:
        """Wait until it has given the IKE SA up."""
        wait_until(lambda: not self.charon.sas(), "charon still has an IKE SA", timeout, self.log)

    def stop(self) -> None:
        """Leave the daemon to the next case, without this one's SAs."""
        if self.charon.running:
            self.charon.forget()

    def log(self) -> str:
        """What the daemon logged in this case."""
        return self.charon.log()

    def status(self) -> str:
        """Its SAs, with what they carried."""
        return "\n".join(map(str, self.charon.sas())) if self.charon.running else "(it does not run)"


class StrongswanGateway(_Side):
    """Charon as the gateway of an agreement."""

    def __init__(self, charon: Charon, agreed: Agreement) -> None:
        own = agreed.gateway
        super().__init__(charon, "gateway", own)
        charon.forget()
        for version, network in agreed.pool.items():
            charon.vici("load-pool", {f"pool{version}": {"addrs": network}})
        connection = _connection(own) | {
            "local_addrs": ["%any"],
            "pools": [f"pool{version}" for version in agreed.pool],
            "remote": _remote(own, agreed.client.auth) | dict(own.charon_round),
            **_rounds("remote", agreed.client.then, {"eap_id": "%any"}),
            **_second_proof(own),
            "children": {name: _child(own, local=networks) for name, networks in own.networks.items()},
        }
        charon.load(self.name, connection, own)


class StrongswanClient(_Side):
    """Charon as the client of an agreement."""

    def __init__(self, charon: Charon, agreed: Agreement) -> None:
        own = agreed.client
        super().__init__(charon, "client", own)
        charon.forget()
        connection = _connection(own) | {
            "local_addrs": ["%any"],
            "remote_addrs": [agreed.way.gateway],
            "vips": [{4: "0.0.0.0", 6: "::"}[version] for version in agreed.pool],
            "remote": _remote(own, agreed.gateway.auth),
            **_rounds("local", own.then, {"id": own.identity, "eap_id": own.identity}),
            "children": {name: _child(own, remote=networks) for name, networks in own.networks.items()},
        }
        charon.load(self.name, connection, own)

    def connect(self, timeout: float = 15) -> None:
        """Bring up every child; raises `ConnectFailed` with charon's log."""
        for child in self.own.networks:
            message = {"child": child, "ike": self.name, "timeout": str(int(timeout * 1000)), "init-limits": "no"}
            try:
                self.charon.vici("initiate", message, timeout + 5)
            except ViciError as error:
                raise ConnectFailed(f"{error}\n{self.charon.log()}") from error


def _connection(own: Party) -> dict[str, object]:
    local: dict[str, object] = {"auth": {"cert": "pubkey"}.get(own.auth, own.auth), "id": own.identity}
    if own.credential is not None:
        local["certs"] = [own.credential.der]
    if own.auth.startswith("eap"):
        local |= {"eap_id": own.identity} | dict(own.charon_round)
    return {
        "version": "2",
        "proposals": own.ike.split(", "),
        "fragmentation": "yes" if own.fragment_size else "no",
        "mobike": "yes" if own.mobike else "no",
        "dpd_delay": f"{own.dpd or 0:g}s",
        "rekey_time": f"{own.rekey_ike:g}s",
        "over_time": "3600s",
        "rand_time": "0s",
        "send_certreq": "yes",
        "send_cert": "always",
        "local": local,
    }


def _second_proof(own: Party) -> dict[str, object]:
    """The gateway's second round."""
    if own.second is None:
        return {}
    return {"local-2": {"round": "2", "auth": "pubkey", "certs": [own.second.der]}}


def _rounds(side: str, methods: tuple[str, ...], keys: dict[str, str]) -> dict[str, object]:
    """The rounds of one side after the first."""
    return {f"{side}-{at}": {"round": str(at), "auth": method, **keys} for at, method in enumerate(methods, 2)}


def _remote(own: Party, auth: str) -> dict[str, object]:
    wanted = "%any" if own.expects == "*" else own.expects
    remote: dict[str, object] = {"auth": {"cert": "pubkey"}.get(auth, auth), "id": wanted}
    if auth.startswith("eap"):
        remote["eap_id"] = "%any"
    return remote


def _child(own: Party, local: tuple[str, ...] = (), remote: tuple[str, ...] = ()) -> dict[str, object]:
    child: dict[str, object] = {
        "esp_proposals": own.esp.split(", "),
        "rekey_time": f"{own.rekey_child:g}s",
        "life_time": "3600s",
        "rand_time": "0s",
        "dpd_action": "clear",
        "mode": own.mode,
        "rekey_bytes": str(own.rekey_bytes),
    }
    return child | ({"local_ts": list(local)} if local else {}) | ({"remote_ts": list(remote)} if remote else {})


def _eap_user(own: Party) -> str:
    """Whose password it is: the client's own, or on the gateway the client's whom it expects."""
    return own.identity if own.auth.startswith("eap") else "alice@lab.test"


def _laid_over(below: Settings, above: Settings) -> Settings:
    """`below` with the settings of `above`, section by section."""
    both = dict(below)
    for key, value in above.items():
        lower = both.get(key)
        both[key] = _laid_over(lower, value) if isinstance(lower, Mapping) and isinstance(value, Mapping) else value
    return both


def _lines(settings: Settings, depth: int = 1) -> Iterator[str]:
    indent = "  " * depth
    for key, value in settings.items():
        if isinstance(value, str):
            yield f"{indent}{key} = {value}"
        else:
            yield f"{indent}{key} {{"
            yield from _lines(value, depth + 1)
            yield f"{indent}}}"


def _unload_pool(control: Vici, name: str) -> bool:
    """False while a lease of an SA that is ending holds it."""
    try:
        control.command("unload-pool", {"name": name})
    except ViciError:
        return False
    return True


def _list(value: object) -> list[str]:
    return [str(item) for item in value] if isinstance(value, list) else []


def _sa(name: str, section: Answer) -> Sa:
    def text(key: str, default: str = "") -> str:
        return str(section.get(key, default))

    children = section.get("child-sas")
    return Sa(
        name=name,
        id=text("uniqueid"),
        state=text("state"),
        local_host=text("local-host"),
        remote_host=text("remote-host"),
        remote_port=int(text("remote-port", "0")),
        remote_identity=text("remote-id"),
        eap_identity=text("remote-eap-id"),
        initiator_spi=text("initiator-spi"),
        encryption=text("encr-alg"),
        key_bits=int(text("encr-keysize", "0")),
        key_exchange=text("dh-group"),
        virtual=tuple(_list(section.get("local-vips")) or _list(section.get("remote-vips"))),
        children=tuple(
            _child_sa(child)
            for child in (children.values() if isinstance(children, dict) else ())
            if isinstance(child, dict)
        ),
    )


def _child_sa(section: Answer) -> Child:
    def text(key: str, default: str = "") -> str:
        return str(section.get(key, default))

    return Child(
        name=text("name"),
        state=text("state"),
        spi_in=text("spi-in"),
        spi_out=text("spi-out"),
        encryption=text("encr-alg"),
        key_bits=int(text("encr-keysize", "0")),
        integrity=text("integ-alg"),
        key_exchange=text("dh-group"),
        octets_in=int(text("bytes-in", "0")),
        octets_out=int(text("bytes-out", "0")),
        local=tuple(_list(section.get("local-ts"))),
        remote=tuple(_list(section.get("remote-ts"))),
    )
