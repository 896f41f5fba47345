"""The gateway's configuration: one TOML file (docs/gateway.md) and a users file, and what they mean."""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from ikeway.auth.binding import carried_identities
from ikeway.auth.certificate import CertificateCredential
from ikeway.auth.identity import Identity, IdentityPattern
from ikeway.config.credentials import expiry_warnings, load_credential
from ikeway.config.eap import (
    ALONE_REFUSED,
    may_stand_alone,
)
from ikeway.config.fields import IpAddress, IpInterface, IpNetwork
from ikeway.config.protocol import EspSection, connection_options
from ikeway.config.reading import Change, Location, Problems, read_document, validate
from ikeway.config.secrets import Prompt
from ikeway.dataplane.choice import DataPlaneKind
from ikeway.dialects import for_gateway
from ikeway.errors import ConfigError, ConfigErrors
from ikeway.gateway.attempts import AttemptLimits
from ikeway.gateway.config_model import AddressRange, ConnectionPart, GatewayFile, LoginPart, NetworkPart
from ikeway.gateway.dialect import ConnectionDialects
from ikeway.gateway.logins import Logins
from ikeway.gateway.radius.config import RadiusBuilder
from ikeway.gateway.radius.settings import RadiusSettings
from ikeway.gateway.select import Candidate
from ikeway.gateway.users import FileUserStore, User, UserStore, load_users
from ikeway.ike.selectors import networks as selector_networks
from ikeway.ike.selectors import parse_selector
from ikeway.ike.settings import (
    ChildSettings,
    Connection,
    LocalCredential,
    PskCredential,
    ResponderSettings,
)
from ikeway.wire.payloads import TrafficSelector

_INTERFACE_NAME = 15
_MOST_BY_DEFAULT = 16  # workers: each takes some 40 MB

EVERYWHERE = (parse_selector("0.0.0.0/0"), parse_selector("::/0"))


@dataclass(frozen=True, slots=True, kw_only=True)
class GatewayHostSettings:
    """What the gateway's host is to look like."""

    interface: str = ""  # wanted name; empty: a free one
    addresses: tuple[IpInterface, ...] = ()
    mtu: int = 0  # 0: chosen
    pools: tuple[IpNetwork, ...] = ()  # what is reached through the interface: pools and clients' networks
    forward: bool = True
    masquerade: bool = False
    masquerade_interfaces: tuple[str, ...] = ()
    data_plane: DataPlaneKind = "auto"
    workers: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientSettings:
    """What clients of one connection get."""

    pools: tuple[str, ...]
    dns: tuple[IpAddress, ...]
    domains: tuple[str, ...]
    subnets: tuple[TrafficSelector, ...]  # empty: everything
    networks: tuple[IpNetwork, ...] = ()  # behind the client
    radius: str = ""  # the `[radius.NAME]` that judges them; empty: none
    groups: tuple[str, ...] = ()  # whom it is for, of those whom RADIUS lets in; empty: all
    logins: tuple[tuple[str, ...], ...] = ()  # what they have to prove, and before whom


@dataclass(frozen=True, slots=True, kw_only=True)
class GatewayConfig:
    """A configuration that was read and found right."""

    path: Path
    listen: tuple[IpAddress, ...]
    port: int
    nat_port: int
    responder: ResponderSettings
    candidates: tuple[Candidate, ...] = field(repr=False)
    clients: dict[str, ClientSettings]  # by name of the connection
    pools: dict[str, tuple[AddressRange, ...]]
    reserved: frozenset[IpAddress]  # addresses that are not given out from pools
    own_addresses: tuple[tuple[IpAddress, ...], ...]  # of users who have some for themselves
    attempts: AttemptLimits
    users: UserStore = field(repr=False)
    radius: dict[str, RadiusSettings]  # by name
    host: GatewayHostSettings
    application_version: str
    warnings: tuple[str, ...]


def load_gateway_config(
    path: Path | str, prompt: Prompt | None = None, *, change: Change | None = None
) -> GatewayConfig:
    """Read a gateway's configuration with all files that it names; `change` may have it say something else. Raises
    `ConfigErrors` with every mistake."""
    document = read_document(Path(path))
    if change is not None:
        change(document.content)
    file, problems = validate(document, GatewayFile)
    if file is None:
        problems.raise_if_any()
        raise AssertionError("a configuration that is not valid has mistakes")
    config = _Builder(file, problems, prompt).config()
    problems.raise_if_any()
    return config


def workers_of(wish: int | Literal["auto"]) -> int:
    """How many workers that is on this host."""
    return min(len(os.sched_getaffinity(0)), _MOST_BY_DEFAULT) if wish == "auto" else wish


class _Builder:
    """Turns a checked file into a `GatewayConfig`, and notes what does not go together."""

    def __init__(self, file: GatewayFile, problems: Problems, prompt: Prompt | None) -> None:
        self._file = file
        self._problems = problems
        self._warnings = file.ike.warnings() + file.esp.warnings()
        self._credential = self._load_credential(prompt)
        self._dialects = ConnectionDialects(file, problems, self._credential)
        self._users = self._load_users()
        self._identity = file.gateway.identity or self._certificate_identity()
        self._logins = Logins(file, problems, self._credential, self._identity, self._dialects)

    def config(self) -> GatewayConfig:
        """All of it; of no use when problems were noted."""
        file = self._file
        file.ike.check(lambda at, reason, remedy: self._problems.add(("ike", *at), reason, remedy=remedy))
        file.esp.check(lambda at, reason, remedy: self._problems.add(("esp", *at), reason, remedy=remedy))
        self._check_pools()
        self._check_network(file.network)
        candidates = [
            candidate
            for name, part in file.connections.items()
            if (candidate := self._candidate(name, part)) is not None
        ]
        return GatewayConfig(
            path=self._problems.document.path,
            listen=file.gateway.listen,
            port=file.gateway.port,
            nat_port=file.gateway.nat_port,
            responder=self._responder(),
            candidates=tuple(candidates),
            clients={name: self._client_settings(part) for name, part in file.connections.items()},
            pools={name: tuple(one for one in (pool.ipv4, pool.ipv6) if one) for name, pool in file.pools.items()},
            reserved=self._reserved(),
            own_addresses=self._own_addresses(),
            attempts=file.limits.attempts,
            users=self._users or FileUserStore({}),
            radius=self._radius(),
            host=self._host(),
            application_version=file.gateway.application_version,
            warnings=tuple(dict.fromkeys((*self._warnings, *self._logins.warnings))),
        )

    def _radius(self) -> dict[str, RadiusSettings]:
        builder = RadiusBuilder(self._problems, str(self._identity) if self._identity is not None else "ikeway")
        found = {name: builder.settings(name, part) for name, part in self._file.radius.items()}
        self._warnings += builder.warnings
        used = {part.radius for part in self._file.connections.values()}
        self._warnings += [f"[radius.{name}] is not used by any connection" for name in found if name not in used]
        return {name: settings for name, settings in found.items() if settings is not None}

    def _load_credential(self, prompt: Prompt | None) -> CertificateCredential | None:
        gateway = self._file.gateway
        if gateway.pkcs12 is not None and (gateway.certificate is not None or gateway.key is not None):
            self._problems.add(
                ("gateway", "pkcs12"), "there are both `pkcs12` and `certificate` or `key`", remedy="remove one of them"
            )
        if gateway.pkcs11 is not None and (gateway.pkcs12 is not None or gateway.key is not None):
            self._problems.add(
                ("gateway", "pkcs11"), "there are both `pkcs11` and `pkcs12` or `key`", remedy="remove one of them"
            )
        if gateway.pin is not None and gateway.pkcs11 is None:
            self._problems.add(("gateway", "pin"), "there is a `pin` without `pkcs11`", remedy="add `pkcs11`")
        if gateway.key is not None and gateway.certificate is None:
            self._problems.add(("gateway", "key"), "there is a `key` without `certificate`", remedy="add `certificate`")
        credential = load_credential(
            self._problems,
            ("gateway",),
            certificate=gateway.certificate,
            key=gateway.key,
            pkcs12=gateway.pkcs12,
            password=gateway.key_password,
            prompt=prompt,
            pkcs11=gateway.pkcs11,
            pin=gateway.pin,
        )
        if credential is not None:
            self._warnings += expiry_warnings(credential.chain)
        return credential

    def _load_users(self) -> FileUserStore | None:
        path = self._file.gateway.users
        if path is None:
            return None
        try:
            return load_users(path)
        except ConfigErrors as error:
            self._problems.errors.extend(error.errors)
        except ConfigError as error:
            self._problems.errors.append(error)
        return None

    def _certificate_identity(self) -> Identity | None:
        if self._credential is None:
            return None
        try:
            return self._credential.identity
        except ConfigError as error:
            self._problems.add_error(("gateway", "certificate"), error)
            return None

    def _names(self) -> tuple[Identity, ...]:
        """The identities that clients may ask for (IDr), the usual one first."""
        carried = carried_identities(self._credential.certificate) if self._credential is not None else ()
        first = (self._identity,) if self._identity is not None else ()
        return tuple(dict.fromkeys((*first, *carried)))

    def _candidate(self, name: str, part: ConnectionPart) -> Candidate | None:
        at: Location = ("connections", name)
        self._check_connection(at, part)
        further = self._logins.further(at, part)
        credential, expectation = self._local_credential(at, part), self._logins.expectation(at, name, part)
        if credential is None or expectation is None or len(further) < len(part.then):
            return None
        by_certificate = isinstance(credential, CertificateCredential)
        names = self._names() if by_certificate else tuple(filter(None, (self._file.gateway.identity,)))
        connection = Connection(
            name=name,
            local_identity=names[0] if names else None,
            local_credential=credential,
            remote_identity=None,
            remote_expectation=expectation,
            further_expectations=further,
            prefer_initiator_order=self._file.ike.prefer_client_order,
            children=(self._child(at, name, part),),
            require_configuration_request=bool(part.pools) and not part.client_subnets,
            **connection_options(self._file.ike),
        )
        patterns = part.identities or (IdentityPattern.ANY,)
        dialect = self._dialects.of(name)
        if dialect is not None:
            connection = for_gateway(dialect, connection)
        return Candidate(
            claims=dialect.claims if dialect is not None else None,
            apart=part.dialect is not None,
            login=part.kind,
            patterns=patterns,
            names=names,
            connections=tuple(
                replace(connection, remote_identity=None if part.kind == "eap" else pattern) for pattern in patterns
            ),
        )

    def _local_credential(self, at: Location, part: ConnectionPart) -> LocalCredential | None:
        method = part.gateway_authentication
        gateway = self._file.gateway
        has_certificate = any(each is not None for each in (gateway.certificate, gateway.pkcs12, gateway.pkcs11))
        if method is None:
            method = "psk" if part.kind == "psk" and not has_certificate else "certificate"
        # What RADIUS servers choose is seen when it runs: the relay then takes mutual methods only.
        if method == "eap-only" and not (part.is_relayed or may_stand_alone(part.login)):
            self._problems.add(
                (*at, "gateway_authentication"),
                ALONE_REFUSED.format(login=part.words),
                remedy='write gateway_authentication = "certificate" (`ikeway pki` makes one), or "psk"',
            )
        if method != "certificate":
            return PskCredential()
        if not has_certificate and not self._problems.was_removed("gateway", "certificate"):
            self._problems.add(
                (*at, "login"),
                f"clients that log in by {part.words} need the gateway to have a certificate",
                expected="`certificate` and `key`, `pkcs12` or `pkcs11`, in [gateway]",
                remedy="add them (`ikeway pki` makes a certificate)",
            )
        return self._credential

    def _child(self, at: Location, name: str, part: ConnectionPart) -> ChildSettings:
        own = part.esp
        esp: EspSection = self._file.esp.model_copy(update={key: getattr(own, key) for key in own.model_fields_set})
        if own.model_fields_set:
            esp.check(lambda where, reason, remedy: self._problems.add((*at, "esp", *where), reason, remedy=remedy))
            self._warnings += esp.warnings()
        # In transport mode the engine takes the two outer addresses.
        everything = EVERYWHERE if esp.mode == "tunnel" else ()
        settings = esp.child_settings(name, part.subnets or everything, part.client_subnets)
        return replace(settings, single_pair=part.single_pair)

    def _check_connection(self, at: Location, part: ConnectionPart) -> None:
        self._logins.check(at, part)
        for name in part.pools:
            if name not in self._file.pools and not self._problems.was_removed("pools", name):
                known = ", ".join(self._file.pools) or "none"
                self._problems.add(
                    (*at, "pools"),
                    f"there is no pool {name!r}",
                    expected=known,
                    remedy=f"add [pools.{name}], or correct the name",
                )
        mode = part.esp.mode if "mode" in part.esp.model_fields_set else self._file.esp.mode
        has_addresses = bool(part.pools or part.client_subnets) or mode == "transport"
        if not has_addresses and not self._problems.was_removed(*at, "pools"):
            self._problems.add(
                at,
                "clients would get no address",
                expected="`pools`, or `client_subnets` for branches with addresses of their own",
                remedy="add one of them",
            )

    def _check_pools(self) -> None:
        pools = self._file.pools
        ranges = [
            (name, key, one) for name, pool in pools.items() for key in ("ipv4", "ipv6") if (one := getattr(pool, key))
        ]
        for name, pool in pools.items():
            if (
                pool.ipv4 is None
                and pool.ipv6 is None
                and not any(self._problems.was_removed("pools", name, key) for key in ("ipv4", "ipv6"))
            ):
                self._problems.add(
                    ("pools", name), "the pool has no addresses", expected="`ipv4`, `ipv6`, or both", remedy="add one"
                )
        for name, key, one in ranges:
            if one.first.version != int(key[-1]):
                self._problems.add(("pools", name, key), f"{one} is not {key}", remedy="move it to the other key")
        for index, (name, key, one) in enumerate(ranges):
            for other_name, _, other in ranges[:index]:
                if one.first in other or other.first in one:
                    self._problems.add(
                        ("pools", name, key),
                        f"{one} overlaps {other} of pool {other_name!r}: an address could be given out twice",
                        remedy="separate them",
                    )
        used = {name for part in self._file.connections.values() for name in part.pools}
        self._warnings += [f"the pool {name!r} is not used by any connection" for name in pools if name not in used]

    def _check_network(self, network: NetworkPart) -> None:
        if 0 < network.mtu < 576:
            self._problems.add(
                ("network", "mtu"),
                "the MTU is too small",
                expected="0, or 576 (IPv6: 1280) and more",
                remedy="write 0 to have it chosen",
            )
        longest = network.interface + f"-{workers_of(network.workers) - 1}"
        if network.interface and workers_of(network.workers) > 1 and len(longest) > _INTERFACE_NAME:
            self._problems.add(
                ("network", "interface"),
                f"the interface of the last worker would be {longest}",
                expected=f"up to {_INTERFACE_NAME} characters",
                remedy="shorten the name, or write workers = 1",
            )
        if any(network.nat) and not network.forward:
            self._problems.add(("network", "nat"), "`nat` needs `forward`", remedy="write forward = true")

    def _reserved(self) -> frozenset[IpAddress]:
        users: Sequence[User] = self._users.all if self._users is not None else ()
        own = {interface.ip for interface in self._file.network.addresses}
        seen: dict[IpAddress, str] = {}
        for user in users:
            for address in (user.ipv4, user.ipv6):
                if address is None:
                    continue
                if address in seen or address in own:
                    holder = f"the user {seen[address]!r}" if address in seen else "the gateway itself"
                    reason = f"the address {address} of the user {user.name!r} is that of {holder} too"
                    self._problems.errors.append(
                        ConfigError(reason, file=str(self._file.gateway.users), remedy="give each one its own")
                    )
                seen[address] = user.name
        return frozenset(own | set(seen))

    def _own_addresses(self) -> tuple[tuple[IpAddress, ...], ...]:
        users: Sequence[User] = self._users.all if self._users is not None else ()
        found = (tuple(address for address in (user.ipv4, user.ipv6) if address is not None) for user in users)
        return tuple(addresses for addresses in found if addresses)

    def _responder(self) -> ResponderSettings:
        file = self._file
        settings = ResponderSettings(
            ike_proposals=file.ike.proposals,
            prefer_initiator_order=file.ike.prefer_client_order,
            vendor_ids=file.ike.vendor_ids,
            fragmentation=file.ike.fragment_size > 0,
            multiple_auth=any(part.then for part in file.connections.values()),
            force_udp_encapsulation=file.ike.force_udp_encapsulation,
            certificate_authorities=b"".join(self._logins.authorities) if file.ike.send_certificate_requests else b"",
            cookie_threshold=file.limits.cookie_threshold,
            half_open_limit=file.limits.half_open,
            half_open_per_address=file.limits.half_open_per_address,
            half_open_seconds=file.limits.half_open_time,
        )
        return self._dialects.responder(settings)

    def _client_settings(self, part: ConnectionPart) -> ClientSettings:
        logins: list[LoginPart] = [part, *part.then]
        judged = next((each for each in logins if each.radius is not None), part)
        return ClientSettings(
            pools=part.pools,
            dns=part.dns,
            domains=part.domains,
            subnets=part.subnets,
            networks=tuple(selector_networks(part.client_subnets)),
            radius=judged.radius or "",
            groups=judged.groups,
            logins=tuple((*each.login, each.radius or "") for each in logins),
        )

    def _host(self) -> GatewayHostSettings:
        file = self._file
        pools = [one for pool in file.pools.values() for one in (pool.ipv4, pool.ipv6) if one is not None]
        reached = [network for one in pools for network in one.networks()]
        for part in file.connections.values():
            reached += [network for selector in part.client_subnets for network in selector_networks((selector,))]
        # Users' own addresses outside of the pools are reached the same way.
        for user in self._users.all if self._users is not None else ():
            for address in (user.ipv4, user.ipv6):
                if address is not None and not any(address in one for one in pools):
                    reached.append(ipaddress.ip_network(address))
        nat = file.network.nat
        return GatewayHostSettings(
            interface=file.network.interface,
            addresses=file.network.addresses,
            mtu=file.network.mtu,
            pools=tuple(dict.fromkeys(reached)),
            forward=file.network.forward,
            data_plane=file.network.data_plane,
            workers=workers_of(file.network.workers),
            masquerade=any(nat),
            # Without names (or with `true` among them) wherever packets leave.
            masquerade_interfaces=() if True in nat else tuple(each for each in nat if isinstance(each, str)),
        )
