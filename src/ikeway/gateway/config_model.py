"""What a gateway's configuration may say, section by section; docs/gateway.md is made from this."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field, PlainValidator

from ikeway.config import fields
from ikeway.config.dialects import AnyConnectGatewaySection, FortiGateGatewaySection, GatewayDialect
from ikeway.config.eap import EapLogin
from ikeway.config.fields import (
    FilePath,
    IdentityText,
    IpAddress,
    IpNetwork,
    Kind,
    Listed,
    PatternText,
    Section,
    Selector,
)
from ikeway.config.protocol import EspSection, IkeSection
from ikeway.config.secrets import Secret
from ikeway.config.trust import ChecksSection
from ikeway.config.tunnels import InnerLogin
from ikeway.dataplane.choice import DataPlaneKind
from ikeway.dataplane.userspace.steering import MOST_WORKERS
from ikeway.gateway.attempts import AttemptLimits
from ikeway.gateway.radius.config import RadiusPart
from ikeway.gateway.select import LoginKind

RANGE_TEXT = 'a network such as "10.99.0.0/24", or a range such as "10.99.0.10-10.99.0.200"'


@dataclass(frozen=True, slots=True)
class AddressRange:
    """Consecutive addresses, both ends included. Of an IPv4 network, the first and last address are left out."""

    first: IpAddress
    last: IpAddress
    network: IpNetwork | None  # when it was written as one

    @property
    def size(self) -> int:
        """How many addresses."""
        return int(self.last) - int(self.first) + 1

    def __contains__(self, address: IpAddress) -> bool:
        return address.version == self.first.version and int(self.first) <= int(address) <= int(self.last)

    def networks(self) -> tuple[IpNetwork, ...]:
        """The networks that cover it, for routes."""
        if self.network is not None:
            return (self.network,)
        return tuple(ipaddress.summarize_address_range(self.first, self.last))

    def __str__(self) -> str:
        return str(self.network) if self.network is not None else f"{self.first}-{self.last}"


def parse_range(value: object) -> AddressRange:
    """An address range, from the two forms that people write."""
    text = str(value).strip()
    if "-" not in text:
        network = fields.parse_network(text)
        # The first address of an IPv6 network belongs to its routers (RFC 4291 section 2.6.1).
        spare = (1, 1) if network.version == 4 and network.prefixlen < 31 else (0, 0)
        spare = (1, 0) if network.version == 6 and network.prefixlen < 127 else spare
        return AddressRange(network[spare[0]], network[-1 - spare[1]], network)
    try:
        first, last = (ipaddress.ip_address(part.strip()) for part in text.split("-", 1))
    except ValueError:
        fields.refuse("this is no range of addresses", expected=RANGE_TEXT, got=text[:60])
    if first.version != last.version or int(first) > int(last):
        fields.refuse("the range ends before it begins", expected=RANGE_TEXT, got=text[:60])
    return AddressRange(first, last, None)


def _parse_masquerade(value: object) -> bool | str:
    if isinstance(value, str) and value.lower() in {"true", "false", "yes", "no", "on", "off"}:
        fields.refuse(
            "this would be an interface's name", got=f'"{value}"', remedy="write true or false, without quotes"
        )
    if not isinstance(value, bool | str) or (isinstance(value, str) and not re.fullmatch(r"[\w.@-]{1,15}", value)):
        fields.refuse("this is no name of an interface", expected="true, false, or names of interfaces")
    return value


def _parse_workers(value: object) -> int | Literal["auto"]:
    if value == "auto":
        return "auto"
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= MOST_WORKERS:
        fields.refuse("this is no number of workers", expected=f'1 to {MOST_WORKERS}, or "auto"', got=str(value)[:60])
    return value


Workers = Annotated[int | Literal["auto"], PlainValidator(_parse_workers), Kind(f"1 to {MOST_WORKERS}, or auto")]
Range = Annotated[AddressRange, PlainValidator(parse_range), Kind(RANGE_TEXT)]
Port = Annotated[int, fields.between(0, 65535), Kind("a port from 1 to 65535; 0 takes a free one")]
Mtu = Annotated[int, fields.between(0, 65535), Kind("0, or octets from 576 to 65535")]
Count = Annotated[int, fields.between(0, 10_000_000), Kind("a whole number")]
Retries = Annotated[int, fields.between(0, 9), Kind("a number from 0 to 9")]
Masquerade = Annotated[bool | str, PlainValidator(_parse_masquerade), Kind("true, false, or names of interfaces")]
LoginMethod = Literal["certificate", "psk", "eap", EapLogin]
InterfaceName = Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]{0,15}$"), Kind("up to 15 letters, digits, . _ -")]


class GatewayPart(Section):
    """Where the gateway listens, and how it proves who it is."""

    listen: Listed[fields.Address] = Field(
        default=(ipaddress.IPv4Address("0.0.0.0"), ipaddress.IPv6Address("::")),  # noqa: S104 - a gateway serves all
        min_length=1,
        description="The addresses to listen on. By default all.",
    )
    port: Port = Field(default=500, description="The IKE port.")
    nat_port: Port = Field(
        default=4500, description="The port for IKE and ESP in UDP, which all clients move to behind a NAT."
    )
    identity: IdentityText | None = Field(
        default=None,
        description=(
            "Who the gateway is (IDr): the name that clients connect to. By default what the certificate says."
        ),
    )
    certificate: FilePath | None = Field(
        default=None, description="The gateway's certificate, followed by intermediate ones (PEM or DER)."
    )
    key: FilePath | None = Field(
        default=None, description="Its private key. By default in the file of the certificate."
    )
    pkcs12: FilePath | None = Field(
        default=None, description="Certificate and key in one PKCS#12 file, in place of `certificate` and `key`."
    )
    key_password: Secret | None = Field(default=None, description="What the key or PKCS#12 file is encrypted with.")
    pkcs11: fields.Pkcs11 | None = Field(
        default=None,
        description=(
            "In place of these: the token that has the key, and the certificate unless `certificate` names one, as a "
            "PKCS#11 URI (RFC 7512). Needs `ikeway[pkcs11]`."
        ),
    )
    pin: Secret | None = Field(default=None, description="The PIN of that token.")
    users: FilePath | None = Field(default=None, description="The users file.")
    application_version: str = Field(
        default="",
        max_length=255,
        description="What to answer a client that asks for the version (APPLICATION_VERSION). Empty: nothing.",
    )


class NetworkPart(Section):
    """The gateway's host."""

    interface: InterfaceName = Field(
        default="", description="The name of the tunnel interface. By default a free `ikeway0`, `ikeway1`..."
    )
    addresses: Listed[fields.Interface] = Field(
        default=(), description="The gateway's own addresses inside the tunnel."
    )
    mtu: Mtu = Field(default=0, description="The largest inner packet; 0 chooses it so that nothing fragments.")
    data_plane: DataPlaneKind = Field(
        default="auto",
        description=(
            "Who carries ESP: the `kernel`, `userspace`, or with `auto` the kernel where it can, which `ikeway doctor` "
            "tells."
        ),
    )
    workers: Workers = Field(
        default=1,
        description=(
            "How many processes share ESP in userspace, each with a core, an interface and a slice of the pools of its "
            "own; `auto`: one for each core, up to 16."
        ),
    )
    forward: bool = Field(
        default=True,
        description="Let this host forward packets between clients and its networks, while the gateway runs.",
    )
    nat: Listed[Masquerade] = Field(
        default=(False,),
        description=(
            "Give what clients send to other networks this host's own address (nftables masquerade): `true`, or the "
            "names of the interfaces where that is done."
        ),
        json_schema_extra={"shown": "false"},
    )


class PoolPart(Section):
    """Addresses for clients."""

    ipv4: Range | None = Field(default=None, description="IPv4 addresses to assign.")
    ipv6: Range | None = Field(default=None, description="IPv6 addresses to assign.")


class LimitsPart(Section):
    """How much strangers can ask of the gateway."""

    cookie_threshold: Count = Field(
        default=32,
        description=(
            "With more half-open log-ins than this, clients must show that their address is real (COOKIE). 0: always."
        ),
    )
    half_open: Count = Field(default=2000, description="With more half-open log-ins than this, new ones are dropped.")
    half_open_per_address: Count = Field(
        default=64, description="The same for one source address (many users may share one behind a NAT)."
    )
    half_open_time: fields.Duration = Field(
        default=30.0,
        description=(
            "A log-in that takes longer is given up. People who type their password while connecting need a minute."
        ),
    )
    login_failures: Count = Field(
        default=5,
        description=(
            "After so many failed log-ins of one user from one address (of IPv6: one /64), that user waits there. 0: never."
        ),
    )
    login_failures_per_address: Count = Field(
        default=50,
        description="After so many failed log-ins from one address, whoever it was, all wait there. 0: never.",
    )
    login_failures_per_user: Count = Field(
        default=30,
        description=(
            "After so many failed log-ins of one user from anywhere, each address has one try in place of "
            "`login_failures`. 0: never."
        ),
    )
    login_wait: fields.Duration = Field(
        default=30.0, description="How long to wait. Each further failure doubles it, up to `login_wait_limit`."
    )
    login_wait_limit: fields.Duration = Field(default=900.0, description="The longest wait.")

    @property
    def attempts(self) -> AttemptLimits:
        """How often somebody may fail to log in."""
        return AttemptLimits(
            per_user_and_address=self.login_failures,
            per_address=self.login_failures_per_address,
            per_user=self.login_failures_per_user,
            wait=self.login_wait,
            longest_wait=self.login_wait_limit,
        )


class ConnectionEspPart(EspSection):
    """What is different from [esp]."""


class LoginPart(Section):
    """One log-in of clients."""

    login: Annotated[Listed[LoginMethod], Field(min_length=1)] = Field(
        description=(
            "How clients prove who they are. Of several EAP methods, those before are proposed first. `eap`: by whatever "
            "method the RADIUS servers of `radius` choose."
        )
    )
    network_name: str | None = Field(
        default=None,
        min_length=1,
        max_length=253,
        description="With `eap-aka-prime`: what the network is called, which goes into the keys. By default `WLAN`.",
        json_schema_extra={"shown": '"WLAN"'},
    )
    identities: Listed[PatternText] = Field(
        default=(),
        description=(
            "Which clients: identities or patterns. By default all. With EAP, it is the user name that counts; with "
            "certificates any name in the certificate."
        ),
    )
    retries: Retries = Field(
        default=0,
        description=(
            "With `eap-mschapv2`: after a wrong password, so many others may be tried in the same log-in, by clients "
            "that ask their user again (Windows, Ikeway)."
        ),
    )
    radius: str | None = Field(
        default=None,
        description=(
            "With `eap`: the name of the RADIUS servers that run the method, `[radius.NAME]`. With `eap-gtc`, and "
            "with `eap-ttls` and `eap-peap` around `pap` or `eap-gtc`: those that judge the passwords, in place of the "
            "users file."
        ),
    )
    groups: Listed[str] = Field(
        default=(),
        description=(
            "With `radius`: only for users of whom the server says one of these groups, in Filter-Id or Class. By default "
            "for all. Of several connections with the same servers, the first that fits is taken."
        ),
    )
    inner: Listed[InnerLogin] = Field(
        default=(),
        description=(
            "With `eap-ttls` and `eap-peap`: how clients may log in within the tunnel. By default `pap`, `mschapv2` and "
            "`eap-mschapv2` with `eap-ttls`, `eap-mschapv2` with `eap-peap`."
        ),
        json_schema_extra={"shown": "see text"},
    )
    require_cryptobinding: bool = Field(
        default=False,
        description=(
            "With `eap-peap`: clients must prove that tunnel and log-in belong together. Windows and wpa_supplicant can, "
            "some others cannot."
        ),
    )
    resume: bool = Field(
        default=True,
        description=(
            "With `eap-tls`, `eap-ttls` and `eap-peap`: clients may resume the TLS session of a log-in for an hour, which "
            "is then the log-in. In `eap-ttls` and `eap-peap` those may whose password the users file has and who have no "
            "second factor, as long as neither changes; with `eap-tls` in `inner` nobody may."
        ),
    )
    ca: Listed[FilePath] = Field(
        default=(),
        description=(
            "With `certificate`, and with `eap-tls` (also in a tunnel): files with the authorities that vouch for clients."
        ),
    )
    crls: Listed[FilePath] = Field(
        default=(), description="With the same: files with certificate revocation lists (CRLs)."
    )
    checks: ChecksSection = Field(default=ChecksSection(), description="With the same: how strictly they are judged.")

    @property
    def kind(self) -> LoginKind:
        """By what kind of AUTH payload clients log in."""
        return "certificate" if self.login[0] == "certificate" else "psk" if self.login[0] == "psk" else "eap"

    @property
    def is_relayed(self) -> bool:
        """True when RADIUS servers run the EAP method."""
        return self.login == ("eap",)

    @property
    def words(self) -> str:
        """How clients log in, for people."""
        return " or ".join(self.login)


class FurtherLoginPart(LoginPart):
    """A log-in that follows the first one (RFC 4739)."""


class ConnectionPart(LoginPart):
    """Clients of one kind: how they log in, and what they get."""

    then: Annotated[Listed[FurtherLoginPart], Field(max_length=3)] = Field(
        default=(),
        description=(
            "What clients have to prove after the first log-in, all of it and in this order (RFC 4739): a person after "
            "the machine's certificate, or `eap-gtc`, the one-time code, after the password. The keys are `login`, EAP "
            "methods here, and those that belong to it above. EAP after EAP has to be of the same user, whom the "
            "addresses are for."
        ),
        json_schema_extra={"shown": "nothing follows"},
    )
    dialect: GatewayDialect | None = Field(
        default=None, description="Speak with these clients as their vendor's gateway does: docs/dialects.md."
    )
    anyconnect: AnyConnectGatewaySection = Field(
        default=AnyConnectGatewaySection(), description='Settings of `dialect = "anyconnect"`.'
    )
    fortigate: FortiGateGatewaySection = Field(
        default=FortiGateGatewaySection(), description='Settings of `dialect = "fortigate"`.'
    )
    gateway_authentication: Literal["certificate", "psk", "eap-only"] | None = Field(
        default=None,
        description=(
            "How the gateway proves who it is. By default `psk` when clients log in by `psk` and there is no "
            "certificate, else `certificate`. `eap-only`: by the EAP method alone (RFC 5998); EAP-MSCHAPv2 is not good "
            "enough for that."
        ),
        json_schema_extra={"shown": "see text"},
    )
    pools: Listed[str] = Field(
        default=(), description="The pools to assign addresses from: the first of each family that has one free."
    )
    subnets: Listed[Selector] = Field(
        default=(), description="What clients may reach through the tunnel. By default everything."
    )
    client_subnets: Listed[Selector] = Field(
        default=(),
        description=(
            "Networks behind the client, for gateways of branches. By default the client's assigned address only."
        ),
    )
    dns: Listed[fields.Address] = Field(default=(), description="Name servers for clients.")
    domains: Listed[fields.Domain] = Field(
        default=(), description="Domains that these name servers are to be asked about. By default all."
    )
    single_pair: bool = Field(
        default=False, description="Grant one pair of addresses at a time only (SINGLE_PAIR_REQUIRED)."
    )
    esp: ConnectionEspPart = Field(
        default=ConnectionEspPart(),
        description="What is different from [esp] for these clients.",
        json_schema_extra={"shown": "as [esp]"},
    )


class GatewayIkePart(IkeSection):
    """The IKE SA: the control channel."""

    prefer_client_order: bool = Field(
        default=False,
        description="Of the proposals in common, take the one that the client likes best instead of the gateway's.",
    )


class GatewayFile(Section):
    """A gateway's configuration."""

    gateway: GatewayPart
    network: NetworkPart = NetworkPart()
    limits: LimitsPart = LimitsPart()
    ike: GatewayIkePart = GatewayIkePart()
    esp: EspSection = EspSection()
    radius: dict[str, RadiusPart] = Field(
        default={}, description="RADIUS servers that judge clients, each group with a name: `[radius.NAME]`."
    )
    pools: dict[str, PoolPart] = Field(default={}, description="Pools of addresses, each with a name: `[pools.NAME]`.")
    connections: dict[str, ConnectionPart] = Field(
        min_length=1, description="Who may connect: `[connections.NAME]`. The first that fits a client is taken."
    )
