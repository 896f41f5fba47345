"""Client profiles: one TOML file a gateway (docs/profile.md), and what it means to the engine and to the host."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from ikeway.address import Address
from ikeway.auth.identity import Identity, IdentityPattern
from ikeway.client.dialect import ProfileDialect, takes_told_routes, with_login_of_dialect
from ikeway.client.login import LoginBuilder, further_builders, further_login, username_of
from ikeway.client.profile_model import LoginPart, LoginSection, NetworkSection, ProfileFile
from ikeway.config.credentials import load_trust, system_authorities
from ikeway.config.eap import ALONE_REFUSED, PEERS, may_stand_alone
from ikeway.config.fields import IpAddress, IpInterface, IpNetwork
from ikeway.config.paths import find_profile
from ikeway.config.protocol import ChildSection, ClientEspSection, connection_options
from ikeway.config.reading import Change, Location, Problems, read_document, validate
from ikeway.config.secrets import Prompt, SecretSource
from ikeway.config.tunnels import TUNNEL_LOGINS
from ikeway.dataplane.choice import DataPlaneKind
from ikeway.errors import ConfigError
from ikeway.ike.selectors import parse_selector
from ikeway.ike.settings import (
    CertificateExpected,
    ChildSettings,
    Connection,
    EapOnlyExpected,
    FurtherCredential,
    FurtherExpectation,
    PeerExpectation,
    PskCredential,
    PskExpected,
)
from ikeway.wire.payloads import ConfigurationAttribute, TrafficSelector
from ikeway.wire.registry import ConfigurationAttributeType as Attribute

EVERYWHERE = (parse_selector("0.0.0.0/0"), parse_selector("::/0"))


@dataclass(frozen=True, slots=True, kw_only=True)
class HostSettings:
    """What the client's host is to look like."""

    interface: str = ""  # wanted name; empty: a free one
    mtu: int = 0  # 0: chosen
    addresses: tuple[IpInterface, ...] = ()  # beside what the gateway assigns
    routes: tuple[IpNetwork, ...] | None = None  # None: as granted
    told_routes: bool = False  # of what is granted, what the gateway names, where it names something
    exclude: tuple[IpNetwork, ...] = ()
    kill_switch: bool = False
    keep_local_networks: bool = True
    block_leaks: bool = True
    dns: Literal["auto", "all", "domains", "off"] = "auto"
    dns_servers: tuple[IpAddress, ...] = ()  # empty: the gateway's
    domains: tuple[str, ...] = ()  # beside the gateway's
    data_plane: DataPlaneKind = "auto"


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionSettings:
    """How the client behaves."""

    reconnect: bool = True
    retry_limit: float = 60.0


@dataclass(frozen=True, slots=True)
class Profile:
    """A profile that was read and found right."""

    name: str
    path: Path
    remote: Address  # host may be a name, to be resolved anew at each attempt
    local_address: IpAddress | None
    host: HostSettings
    session: SessionSettings
    warnings: tuple[str, ...]
    username: str  # for EAP; empty with other methods
    password: SecretSource | None = field(repr=False)
    psk: SecretSource | None = field(repr=False)
    code: SecretSource | None = field(repr=False)
    totp: SecretSource | None = field(repr=False)
    ki: SecretSource | None = field(repr=False)  # of a SIM card, with one of the next two
    opc: SecretSource | None = field(repr=False)
    op: SecretSource | None = field(repr=False)
    takes_password: bool  # one of its EAP methods may want one
    _connection: Connection = field(repr=False)
    further: tuple[Profile, ...] = ()  # the same with the user name and the secrets of each log-in that follows

    def connection(self) -> Connection:
        """What may be agreed with the gateway. Passwords and shared secrets are not in it: they are asked for with
        questions, which `ikeway.client.secrets` answers."""
        return self._connection

    @property
    def needs_psk(self) -> bool:
        """True when a pre-shared key proves this side, the gateway, or both."""
        connection = self._connection
        return isinstance(connection.local_credential, PskCredential) or isinstance(
            connection.remote_expectation, PskExpected
        )

    @property
    def asks_secret(self) -> bool:
        """True when a person will be asked for a password or a pre-shared key."""
        asks_password = self.takes_password and self.password is None
        return asks_password or (self.needs_psk and self.psk is None) or any(each.asks_secret for each in self.further)


def load_profile(name_or_path: str | Path, prompt: Prompt | None = None, *, change: Change | None = None) -> Profile:
    """Read a profile by its name or its path, with the certificates and keys that it names.

    `prompt` is asked for the password of an encrypted key when the profile does not say where it is; `change` may have
    the file say something else. Raises `ConfigError`, or `ConfigErrors` with all mistakes.
    """
    path = name_or_path if isinstance(name_or_path, Path) else find_profile(name_or_path)
    document = read_document(path)
    if change is not None:
        change(document.content)
    file, problems = validate(document, ProfileFile)
    if file is None:
        problems.raise_if_any()
        raise AssertionError("a profile that is not valid has mistakes")
    file = with_login_of_dialect(file)
    builder = _Builder(path.stem, file, problems, prompt)
    connection = builder.connection()
    problems.raise_if_any()
    if connection is None:
        raise AssertionError("a connection that cannot be made has a reason")
    network = file.network
    profile = Profile(
        name=path.stem,
        path=path,
        remote=Address(file.gateway.address, file.gateway.port),
        local_address=file.gateway.local_address,
        host=HostSettings(
            interface=network.interface,
            mtu=network.mtu,
            addresses=network.addresses,
            routes=_routes(network),
            told_routes=takes_told_routes(file),
            exclude=network.exclude,
            kill_switch=network.kill_switch,
            keep_local_networks=network.keep_local_networks,
            block_leaks=network.block_leaks,
            dns=network.dns,
            dns_servers=network.dns_servers,
            domains=network.domains,
            data_plane=network.data_plane,
        ),
        session=SessionSettings(reconnect=file.session.reconnect, retry_limit=file.session.retry_limit),
        warnings=tuple(dict.fromkeys((*_warnings(file), *builder.warnings))),
        username=username_of(file.login),
        password=file.login.password,
        psk=file.login.psk,
        code=file.login.code,
        totp=file.login.totp,
        ki=file.login.ki,
        opc=file.login.opc,
        op=file.login.op,
        takes_password=_takes_password(file.login),
        _connection=connection,
    )
    return replace(profile, further=tuple(_further(profile, file.login, builder.usernames)))


def _takes_password(login: LoginPart) -> bool:
    return any("password" in PEERS[method].uses for method in login.methods if method in PEERS)


def _further(profile: Profile, login: LoginSection, usernames: Sequence[str]) -> Iterator[Profile]:
    """The profile as each of its further log-ins sees it."""
    connection = profile.connection()
    credentials = (each.credential for each in connection.further_credentials)
    for part, username, credential in zip(login.then, usernames, credentials, strict=True):
        yield replace(
            profile,
            username=username,
            password=part.password,
            code=part.code,
            totp=part.totp,
            ki=part.ki,
            opc=part.opc,
            op=part.op,
            takes_password=_takes_password(part),
            _connection=replace(connection, local_credential=credential, further_credentials=()),
        )


class _Builder:
    """Turns a checked file into a `Connection`, and notes what does not go together."""

    def __init__(self, name: str, file: ProfileFile, problems: Problems, prompt: Prompt | None) -> None:
        self._name = name
        self._file = file
        self._problems = problems
        self._prompt = prompt
        self.usernames: list[str] = []  # of the further log-ins
        self.warnings: list[str] = []  # of the dialect

    def connection(self) -> Connection | None:
        """The connection; None after a problem was noted."""
        file = self._file
        file.ike.check(lambda at, reason, remedy: self._problems.add(("ike", *at), reason, remedy=remedy))
        file.esp.check(lambda at, reason, remedy: self._problems.add(("esp", *at), reason, remedy=remedy))
        self._check_network(file.network)
        dialect = ProfileDialect(self._name, file, self._problems)
        login = LoginBuilder(file.login, file.gateway, self._problems, self._prompt, dialect=dialect)
        credential = login.credential(psk_is_used=self._gateway_method() == "psk")
        further = self._further_credentials()
        expectation, children = self._expectation(), self._children()
        further_expectations = self._further_expectations()
        pattern = self._remote_identity()
        if credential is None or expectation is None or pattern is None or len(further) < len(file.login.then):
            return None
        connection = Connection(
            name=self._name,
            local_identity=self._local_identity(file.login),
            local_credential=credential,
            further_credentials=further,
            further_expectations=further_expectations,
            remote_identity=pattern,
            remote_expectation=expectation,
            send_idr=file.gateway.send_identity,
            children=children,
            request_configuration=tuple(_requests(file.network)),
            initial_contact=file.ike.initial_contact,
            **connection_options(file.ike),
        )
        self.warnings = dialect.warnings()
        return dialect.apply(connection)

    def _gateway_method(self) -> str:
        given = self._file.gateway.authentication
        return given or ("psk" if self._file.login.methods == ("psk",) else "certificate")

    def _expectation(self) -> PeerExpectation | None:
        gateway = self._file.gateway
        method = self._gateway_method()
        login = self._file.login
        methods = [method for each in (login, *login.then) for method in each.methods]
        asks_server = not TUNNEL_LOGINS.isdisjoint(methods)  # an EAP server, which the same files may vouch for
        if method != "certificate" and not asks_server:
            for name in ("ca", "crls"):
                if getattr(gateway, name):
                    self._problems.add(
                        ("gateway", name),
                        f"`{name}` is not used: the gateway authenticates by {method}",
                        remedy='remove it, or write authentication = "certificate"',
                    )
        if method == "psk":
            return PskExpected()
        if method == "eap-only":
            logins = self._file.login.methods
            if not may_stand_alone(logins):
                self._problems.add(
                    ("gateway", "authentication"),
                    ALONE_REFUSED.format(login=" or ".join(logins)),
                    remedy='write authentication = "certificate", and name the `ca` that made the gateway\'s one',
                )
            return EapOnlyExpected()
        trust = load_trust(
            self._problems,
            ("gateway",),
            authorities=gateway.ca or system_authorities(self._problems, ("gateway", "ca")),
            crls=gateway.crls,
            policy=gateway.checks.policy(),
        )
        return CertificateExpected(trust) if trust is not None else None

    def _further_expectations(self) -> tuple[FurtherExpectation, ...]:
        """What the gateway proves in `then`, fewer of them after a problem was noted."""
        found = []
        for number, part in enumerate(self._file.gateway.then):
            at: Location = ("gateway", "then", number)
            if self._gateway_method() == "eap-only":
                self._problems.add(
                    at,
                    "a gateway that proves itself by EAP alone cannot go on with a certificate",
                    remedy='remove it, or write authentication = "certificate" in [gateway]',
                )
            policy = part.checks.policy()
            trust = load_trust(self._problems, at, authorities=part.ca, crls=part.crls, policy=policy)
            if trust is not None:
                found.append(FurtherExpectation(CertificateExpected(trust), part.identity))
        return tuple(found)

    def _remote_identity(self) -> IdentityPattern | None:
        gateway = self._file.gateway
        pattern = gateway.identity
        if pattern is None and gateway.dialect == "fortigate" and self._gateway_method() == "psk":
            return IdentityPattern.ANY  # its outer address, whatever that is behind a NAT: the key is what proves it
        if pattern is None:
            try:
                return IdentityPattern.of(Identity.parse(gateway.address))
            except ConfigError:
                self._problems.add(
                    ("gateway", "address"),
                    "this is no host name and no IP address",
                    got=gateway.address[:60],
                    remedy='write for example address = "vpn.example.com"',
                )
                return None
        if pattern.exact is None and self._gateway_method() == "certificate" and not gateway.ca:
            self._problems.add(
                ("gateway", "identity"),
                "any site with a certificate of a public authority could pass for the gateway",
                expected="one identity, or `ca` with the gateway's own authority",
                remedy="write the gateway's name, or name its authority in `ca`",
            )
        return pattern

    def _further_credentials(self) -> tuple[FurtherCredential, ...]:
        """The log-ins of `then`, fewer of them after a problem was noted."""
        found = []
        builders = further_builders(self._file.login, self._file.gateway, self._problems, self._prompt)
        for number, builder in enumerate(builders):
            self.usernames.append(builder.username)
            identity = self._local_identity(self._file.login.then[number])
            if (credential := builder.credential()) is not None:
                found.append(FurtherCredential(further_login(credential, number), identity))
        return tuple(found)

    @staticmethod
    def _local_identity(login: LoginPart) -> Identity | None:
        name = login.anonymous_identity if login.anonymous_identity is not None else login.username
        if login.identity is not None or name is None:
            return login.identity
        return Identity.of_user(name.encode())  # names of many users are no identities (`CORP\\alice`)

    def _children(self) -> tuple[ChildSettings, ...]:
        esp = self._file.esp
        assigns = bool(self._file.network.request)
        children = []
        several: dict[str, ChildSection | None] = {**self._file.children} or {"": None}
        for name, own in several.items():
            at: tuple[str, ...] = ("children", name) if name else ("esp",)
            merged = esp
            if own is not None:
                merged = esp.model_copy(update={key: getattr(own, key) for key in own.model_fields_set})
                self._check_child(at, merged)
            if not assigns and not merged.local and merged.mode == "tunnel":
                self._problems.add(
                    (*at, "local") if name else ("network", "request"),
                    "there is no traffic of this side: no address is asked for and no `local` is given",
                    expected='`local`, such as "192.168.1.0/24", or `request` in [network]',
                    remedy="add one of them",
                )
            children.append(
                merged.child_settings(name or self._name, merged.local, merged.remote or self._everything(merged.mode))
            )
        return tuple(children)

    def _check_child(self, at: tuple[str, ...], child: ClientEspSection) -> None:
        child.check(lambda where, reason, remedy: self._problems.add((*at, *where), reason, remedy=remedy))

    @staticmethod
    def _everything(mode: str) -> tuple[TrafficSelector, ...]:
        """All that the gateway grants; in transport mode the engine takes the outer addresses."""
        return EVERYWHERE if mode == "tunnel" else ()

    def _check_network(self, network: NetworkSection) -> None:
        if 0 < network.mtu < 576:
            self._problems.add(
                ("network", "mtu"),
                "the MTU is too small",
                expected="0, or 576 (IPv6: 1280) and more",
                got=str(network.mtu),
                remedy="write 0 to have it chosen",
            )
        if network.dns == "off":
            for name in ("dns_servers", "domains"):
                if getattr(network, name):
                    self._problems.add(
                        ("network", name), f'`{name}` is not used: dns = "off"', remedy="remove it, or `dns`"
                    )


def _routes(network: NetworkSection) -> tuple[IpNetwork, ...] | None:
    """The networks to route through the tunnel; None for all that are granted."""
    if not {"granted", "told"}.isdisjoint(network.routes):
        return None
    return tuple(route for route in network.routes if not isinstance(route, str))


def _requests(network: NetworkSection) -> list[ConfigurationAttribute]:
    """The CFG_REQUEST (RFC 7296 section 3.15.1)."""
    wishes, wants_dns = network.request, network.dns != "off"
    found: list[ConfigurationAttribute] = []
    v4 = [wish for wish in wishes if wish == "ipv4" or isinstance(wish, ipaddress.IPv4Address)]
    v6 = [wish for wish in wishes if wish == "ipv6" or isinstance(wish, ipaddress.IPv6Address)]
    for wish in v4[:1]:
        value = wish.packed if isinstance(wish, ipaddress.IPv4Address) else b""
        found.append(ConfigurationAttribute(Attribute.INTERNAL_IP4_ADDRESS, value))
        found += [ConfigurationAttribute(Attribute.INTERNAL_IP4_NETMASK)]
        found += [ConfigurationAttribute(Attribute.INTERNAL_IP4_DNS)] if wants_dns else []
        found.append(ConfigurationAttribute(Attribute.INTERNAL_IP4_SUBNET))
    for wish in v6[:1]:
        # An address wished for comes with its prefix length (RFC 7296 section 3.15.1).
        value = wish.packed + b"\x80" if isinstance(wish, ipaddress.IPv6Address) else b""
        found.append(ConfigurationAttribute(Attribute.INTERNAL_IP6_ADDRESS, value))
        found += [ConfigurationAttribute(Attribute.INTERNAL_IP6_DNS)] if wants_dns else []
        found.append(ConfigurationAttribute(Attribute.INTERNAL_IP6_SUBNET))
    if found and wants_dns:
        found.append(ConfigurationAttribute(Attribute.INTERNAL_DNS_DOMAIN))
    return found


def _warnings(file: ProfileFile) -> list[str]:
    found = file.ike.warnings() + file.esp.warnings() + file.gateway.checks.warnings()
    methods = [method for login in (file.login, *file.login.then) for method in login.methods]
    found += [PEERS[method].warning for method in methods if method in PEERS and PEERS[method].warning]
    for child in file.children.values():
        found += child.warnings() if "proposals" in child.model_fields_set else []
    if file.network.kill_switch and not file.session.reconnect:
        found.append("with `reconnect = false` the kill switch ends with the connection")
    if file.gateway.identity is not None and file.gateway.identity.exact is None:
        found.append(f"any gateway that matches {file.gateway.identity} is taken for the right one")
    return list(dict.fromkeys(found))
