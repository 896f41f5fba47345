"""What a client profile may say, section by section; docs/profile.md is made from this."""

from __future__ import annotations

import ipaddress
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, PlainValidator

from ikeway.config import fields
from ikeway.config.dialects import AnyConnectClientSection, ClientDialect, FortiGateSection
from ikeway.config.eap import EapLogin
from ikeway.config.fields import FilePath, IdentityText, IpAddress, IpNetwork, Kind, Listed, PatternText, Section
from ikeway.config.protocol import ChildSection, ClientEspSection, ClientIkeSection
from ikeway.config.secrets import Secret
from ikeway.config.trust import GatewayChecksSection
from ikeway.config.tunnels import InnerLogin
from ikeway.dataplane.choice import DataPlaneKind


def _parse_wish(value: object) -> str | IpAddress:
    if value in ("ipv4", "ipv6"):
        return str(value)
    try:
        return ipaddress.ip_address(str(value))
    except ValueError:
        fields.refuse("this is no address to ask for", expected=WISH_TEXT, got=str(value)[:60])


def _no_link_local(value: str) -> str:
    """A link-local address means nothing without an interface, and the data plane knows none of its peers' (RFC 4007)."""
    try:
        address = ipaddress.ip_address(value.partition("%")[0])
    except ValueError:
        return value
    if address.is_link_local:
        fields.refuse(
            "a gateway cannot be reached at a link-local address",
            expected="a host name, or an address that is good beyond one link",
            got=value,
        )
    return value


def _parse_route(value: object) -> str | IpNetwork:
    return value if value in ("granted", "told") else fields.parse_network(value)


WISH_TEXT = '"ipv4", "ipv6", or one address such as "10.0.0.7"'
Port = Annotated[int, fields.between(1, 65535), Kind("a port from 1 to 65535")]
Mtu = Annotated[int, fields.between(0, 65535), Kind("0, or octets from 576 to 65535")]
Wish = Annotated[str | IpAddress, PlainValidator(_parse_wish), Kind(WISH_TEXT)]
ROUTE_TEXT = '"granted", "told", or a network such as "10.1.0.0/16"'
Route = Annotated[str | IpNetwork, PlainValidator(_parse_route), Kind(ROUTE_TEXT)]
LoginMethod = Literal["certificate", "psk", EapLogin]
InterfaceName = Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]{0,15}$"), Kind("up to 15 letters, digits, . _ -")]


class FurtherGateway(Section):
    """A further proof of the gateway (RFC 4739), by a certificate."""

    ca: Annotated[Listed[FilePath], Field(min_length=1)] = Field(
        description="Files with the certificates of the authorities that may vouch for it."
    )
    identity: PatternText | None = Field(
        default=None, description="Who it must be. By default any that these authorities vouch for."
    )
    crls: Listed[FilePath] = Field(default=(), description="Files with certificate revocation lists (CRLs).")
    checks: GatewayChecksSection = Field(
        default=GatewayChecksSection(), description="How strictly the certificate is judged."
    )


class GatewaySection(Section):
    """The gateway, and how it has to prove that it is the right one."""

    address: Annotated[
        str, Field(min_length=1, max_length=253), AfterValidator(_no_link_local), Kind("a host name or an IP address")
    ] = Field(description="Where the gateway is reached.")
    port: Port = Field(
        default=500,
        description=(
            "Its IKE port. With another than 500, the whole conversation stays on it and is encapsulated as on port "
            "4500."
        ),
    )
    local_address: fields.Address | None = Field(
        default=None, description="The address of this host to use. By default what the routes say."
    )
    identity: PatternText | None = Field(
        default=None, description="Who the gateway must be (IDr). By default its `address`."
    )
    send_identity: bool = Field(
        default=True,
        description=(
            "Tell the gateway which identity is expected. A gateway with several names needs it; a few old ones "
            "refuse it."
        ),
    )
    authentication: Literal["certificate", "psk", "eap-only"] | None = Field(
        default=None,
        description=(
            "How the gateway proves its identity. By default `psk` when the login is by `psk`, else "
            "`certificate`. `eap-only`: by the EAP method alone (RFC 5998); EAP-MSCHAPv2 is not good enough for that."
        ),
        json_schema_extra={"shown": "see text"},
    )
    ca: Listed[FilePath] = Field(
        default=(),
        description=(
            "Files with the certificates of the authorities that may vouch for the gateway. By default those of the "
            "system."
        ),
    )
    crls: Listed[FilePath] = Field(default=(), description="Files with certificate revocation lists (CRLs).")
    checks: GatewayChecksSection = Field(
        default=GatewayChecksSection(), description="How strictly the gateway's certificate is judged."
    )
    then: Annotated[Listed[FurtherGateway], Field(max_length=1)] = Field(
        default=(),
        description=(
            "What the gateway proves after that, by another certificate (RFC 4739). Keys: `ca`, which is needed, `identity` "
            "(by default any that these authorities vouch for), `crls` and `checks`."
        ),
        json_schema_extra={"shown": "nothing follows"},
    )
    dialect: ClientDialect | None = Field(
        default=None, description="Speak as a vendor's client does, for gateways that want it: docs/dialects.md."
    )
    anyconnect: AnyConnectClientSection = Field(
        default=AnyConnectClientSection(), description='Settings of `dialect = "anyconnect"`.'
    )
    fortigate: FortiGateSection = Field(default=FortiGateSection(), description='Settings of `dialect = "fortigate"`.')


class LoginPart(Section):
    """One log-in."""

    method: Listed[LoginMethod] = Field(
        default=(),
        description=(
            "By default `certificate` when there is a `certificate`, `pkcs12` or `pkcs11`, `psk` when there is a `psk`, "
            "else `eap-mschapv2` (user name and password). Several EAP methods: those that the gateway may choose from."
        ),
        json_schema_extra={"shown": "see text"},
    )
    identity: IdentityText | None = Field(
        default=None,
        description=(
            "Who you say that you are (IDi). By default the `username`, the certificate's first alternative name or "
            "its subject, or the address of this host."
        ),
    )
    username: str | None = Field(
        default=None,
        min_length=1,
        max_length=253,
        description=(
            "The user name for EAP. By default the `identity`, and with `eap-tls` the name in the certificate."
        ),
    )
    password: Secret | None = Field(default=None, description="The password. Asked for when absent.")
    code: Secret | None = Field(
        default=None,
        description=(
            "Where a one-time code comes from when the gateway asks for one, such as `{ command = ... }`. Asked for when "
            "absent, in the gateway's words."
        ),
    )
    totp: Secret | None = Field(
        default=None,
        description=(
            "In place of `code`: the secret of the authenticator app (base32, or its `otpauth://` URI), so that codes are "
            "computed here. For scripts: with the password beside it, it is no second factor any more."
        ),
    )
    ki: Secret | None = Field(
        default=None,
        description=(
            "With `eap-aka-prime`, `eap-aka` and `eap-sim`: the subscriber key K (Ki) of the SIM card that this profile "
            "stands for, 32 hexadecimal digits. `username` is then the IMSI, perhaps with `@realm`."
        ),
    )
    opc: Secret | None = Field(default=None, description="Beside `ki`: OPc, 32 hexadecimal digits.")
    op: Secret | None = Field(
        default=None, description="In place of `opc`: the operator's OP, from which OPc is computed."
    )
    network_name: str | None = Field(
        default=None,
        min_length=1,
        max_length=253,
        description="With `eap-aka-prime`: refuse a gateway whose network has another name. By default any.",
    )
    psk: Secret | None = Field(
        default=None,
        description=(
            "The pre-shared key that either side, or both, authenticate with: a text, or octets as `0x...` or base64 "
            "as `0s...`. Asked for when absent."
        ),
    )
    certificate: FilePath | None = Field(
        default=None, description="Your certificate, followed by intermediate ones (PEM or DER)."
    )
    key: FilePath | None = Field(
        default=None, description="Its private key (PEM or DER). By default in the file of the certificate."
    )
    pkcs12: FilePath | None = Field(
        default=None, description="Certificate and key in one PKCS#12 file, in place of `certificate` and `key`."
    )
    key_password: Secret | None = Field(
        default=None, description="What the key or PKCS#12 file is encrypted with. Asked for when absent and needed."
    )

    pkcs11: fields.Pkcs11 | None = Field(
        default=None,
        description=(
            "In place of these: the token that has the key, and the certificate unless `certificate` names one, as a "
            "PKCS#11 URI (RFC 7512). Needs `ikeway[pkcs11]`. Not with `eap-tls`."
        ),
    )
    pin: Secret | None = Field(default=None, description="The PIN of that token. Asked for when absent.")
    inner: Listed[InnerLogin] = Field(
        default=(),
        description=(
            "With `eap-ttls` and `eap-peap`: how to log in within the tunnel. By default `pap` (the password itself, to a "
            "server that has proven who it is) with `eap-ttls`, `eap-mschapv2` with `eap-peap`."
        ),
        json_schema_extra={"shown": "see text"},
    )
    anonymous_identity: str | None = Field(
        default=None,
        min_length=1,
        max_length=253,
        description=(
            "With `eap-ttls` and `eap-peap`: what to say outside of the tunnel in place of the user name, such as "
            "`anonymous@example.com`. It is then the default of `identity` too."
        ),
    )
    server_ca: Listed[FilePath] = Field(
        default=(),
        description=(
            "With EAP methods on TLS: files with the authorities that may vouch for the EAP server, which may be another "
            "than the gateway (RADIUS). By default `ca` of [gateway]."
        ),
    )
    server_crls: Listed[FilePath] = Field(
        default=(), description="The same for its revocation lists (CRLs). By default `crls` of [gateway]."
    )
    server_identity: PatternText | None = Field(
        default=None,
        description="Who the EAP server must be, as its certificate says. By default who the gateway must be.",
    )
    require_cryptobinding: bool = Field(
        default=False,
        description=(
            "With `eap-peap`: the server must prove that tunnel and log-in belong together. FreeRADIUS 3 cannot, "
            "Microsoft's NPS can."
        ),
    )

    @property
    def methods(self) -> tuple[str, ...]:
        """The method, or the EAP methods to choose from; where none is written, what is there suggests."""
        if self.method:
            return self.method
        if self.certificate is not None or self.pkcs12 is not None or self.pkcs11 is not None:
            return ("certificate",)
        return ("psk",) if self.psk is not None else ("eap-mschapv2",)


class FurtherLogin(LoginPart):
    """A log-in that follows the first one (RFC 4739)."""


class LoginSection(LoginPart):
    """Who you are, and how you prove it."""

    then: Annotated[Listed[FurtherLogin], Field(max_length=3)] = Field(
        default=(),
        description=(
            "What the gateway wants after that, in this order: a person after the machine's certificate, a code after the "
            "password. The keys are those of `[login]`; it cannot be by `psk`. The `username` is by default that of the "
            "log-in before."
        ),
        json_schema_extra={"shown": "nothing follows"},
    )


class NetworkSection(Section):
    """What the tunnel looks like on this host."""

    request: Listed[Wish] = Field(
        default=("ipv4", "ipv6"),
        description=(
            "What to ask the gateway for: an address of a family, or a certain one. An empty list asks for nothing."
        ),
    )
    addresses: Listed[fields.Interface] = Field(
        default=(), description="Addresses of the tunnel interface that the gateway does not assign."
    )
    routes: Listed[Route] = Field(
        default=("granted",),
        description=(
            "What goes through the tunnel: all that the gateway grants, or only these networks of it. An empty list "
            "sets no routes. `told`: where the gateway grants everything and names its networks as well "
            "(INTERNAL_IP4_SUBNET, Cisco's SPLIT_INCLUDE), those alone; that is the default in the dialects "
            "`anyconnect` and `fortigate`, whose gateways mean it so."
        ),
        json_schema_extra={"shown": "see text"},
    )
    exclude: Listed[fields.Network] = Field(
        default=(),
        description=(
            "Networks that are reached beside the tunnel, whatever is granted. (Those that this host is directly on: "
            "`keep_local_networks`.) In `ikeway run` and `proxy` they are not reached at all."
        ),
    )
    kill_switch: bool = Field(
        default=False,
        description=(
            "From the first connection on, what goes through the tunnel is refused rather than sent beside it, also "
            "after `kill -9`: until the next start of Ikeway or `ikeway down`. `ikeway run` and `proxy` need none."
        ),
    )
    keep_local_networks: bool = Field(
        default=True,
        description=(
            "With a full tunnel, private networks that this host is directly on (printer, router) stay reachable."
        ),
    )
    block_leaks: bool = Field(
        default=True,
        description=(
            "When a full tunnel carries only one of IPv4 and IPv6, refuse the other instead of letting it leave "
            "beside the tunnel."
        ),
    )
    dns: Literal["auto", "all", "domains", "off"] = Field(
        default="auto",
        description=(
            "What to ask the gateway's name servers: `all` names, those of the gateway's `domains` only, or nothing "
            "(`off`). `auto` asks all names in a full tunnel or without domains."
        ),
    )
    dns_servers: Listed[fields.Address] = Field(
        default=(), description="Name servers to use in place of the gateway's."
    )
    domains: Listed[fields.Domain] = Field(default=(), description="Domains beside those that the gateway tells.")
    interface: InterfaceName = Field(
        default="", description="The name of the tunnel interface. By default a free `ikeway0`, `ikeway1`..."
    )
    mtu: Mtu = Field(default=0, description="The largest inner packet; 0 chooses it so that nothing fragments.")
    data_plane: DataPlaneKind = Field(
        default="auto",
        description=(
            "Who carries ESP: the `kernel`, `userspace`, or with `auto` the kernel where it can, which `ikeway doctor` "
            "tells. `ikeway run` and `proxy` carry it in userspace in any case."
        ),
    )


class SessionSection(Section):
    """How `ikeway up` behaves."""

    reconnect: bool = Field(
        default=True,
        description="Connect again when the connection is lost (sleep, another network, a restarted gateway).",
    )
    retry_limit: fields.Duration = Field(
        default=60.0, description="The longest wait between two attempts to connect again."
    )


class ProfileFile(Section):
    """A client profile."""

    gateway: GatewaySection
    login: LoginSection = LoginSection()
    network: NetworkSection = NetworkSection()
    ike: ClientIkeSection = ClientIkeSection()
    esp: ClientEspSection = ClientEspSection()
    children: dict[str, ChildSection] = Field(
        default={}, description="Several child SAs, each with a name: `[children.NAME]`. By default there is one."
    )
    session: SessionSection = SessionSection()
