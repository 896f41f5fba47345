"""Dialects as configurations name them: which there are, and the settings of each.

A dialect's table is read whether it is used or not; one that is not is complained of by who reads the file.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field, PlainValidator

from ikeway.auth.identity import Identity
from ikeway.config import fields
from ikeway.config.fields import Kind, Listed, Octets, Section, between
from ikeway.config.reading import Location, Problems
from ikeway.config.secrets import Secret

if TYPE_CHECKING:
    from cryptography import x509

    from ikeway.auth.certificate import CertificateCredential
    from ikeway.dialects import Dialect
    from ikeway.dialects.anyconnect.options import ClientOptions, GatewayOptions
    from ikeway.dialects.fortigate import FortiGateOptions
    from ikeway.eap.method import AuthenticatorMethodFactory, PeerMethodFactory
    from ikeway.eap.session import EapAuthenticator, EapPeer
    from ikeway.eap.tunnel.trust import PeerTrust
    from ikeway.questions import Ask

    NewPeer = Callable[[Ask, bytes, Sequence[PeerMethodFactory]], EapPeer]
    NewAuthenticator = Callable[[Ask, Sequence[AuthenticatorMethodFactory]], EapAuthenticator]

ClientDialect = Literal["anyconnect", "fortigate", "windows", "azure"]
GatewayDialect = Literal["anyconnect", "fortigate"]
ANYCONNECT_LOGIN = "eap-anyconnect"
FORTIGATE_LOGIN = "eap-mschapv2"  # what the second factor of the dialect follows
UNTRIED = "the dialect anyconnect was not tried against Cisco's products; see docs/anyconnect.md"
UNTRIED_FORTIGATE = (
    "the second factor of the dialect fortigate was not tried with Fortinet's clients; see docs/dialects.md"
)


def _parse_auth_vendor_id(value: object) -> bytes | None:
    if value in ("random", "none"):
        return b"" if value == "random" else None
    return fields.parse_octets(value)


AuthVendorId = Annotated[
    bytes | None, PlainValidator(_parse_auth_vendor_id), Kind('"random", "none", a text, or octets as "0x..."')
]
IdentityType = Annotated[int, between(1, 255), Kind("a number from 1 to 255")]
VendorType = Annotated[int, between(0, 0xFFFFFFFF), Kind("a number of 32 bits")]
Attempts = Annotated[int, between(1, 10), Kind("a number from 1 to 10")]
Port = Annotated[int, between(1, 65535), Kind("a port from 1 to 65535")]
Octet = Annotated[int, between(0, 255), Kind("a number from 0 to 255")]
Line = Annotated[str, Field(max_length=200, pattern=r"^[^\x00-\x1f\x7f]*$"), Kind("a text on one line")]
Text = Annotated[str, Field(max_length=500), Kind("a text")]


class _AnyConnectSection(Section):
    """What both roles may set."""

    vendor_ids: Listed[Octets] | None = Field(
        default=None,
        description="Vendor IDs of IKE_SA_INIT, in place of the seven that are known: texts, or octets as 0x...",
        json_schema_extra={"shown": "the known ones"},
    )
    auth_vendor_id: AuthVendorId = Field(
        default=b"",
        description="The Vendor ID of the first IKE_AUTH message: `random` (20 octets), `none`, or these octets.",
        json_schema_extra={"shown": '"random"'},
    )
    vendor_type: VendorType = Field(
        default=0x44425250, description="The EAP method's number below Cisco's 9; the default is \"DBRP\"."
    )
    signature_hash: Literal["prf", "sha1", "sha256", "sha384", "sha512"] = Field(
        default="prf", description="The hash of signatures inside the EAP method, and of RSA without RFC 7427."
    )
    fragments: Literal["cisco", "standard"] = Field(
        default="cisco", description="How long messages are cut when both ways were agreed on. Both are understood."
    )


class AnyConnectClientSection(_AnyConnectSection):
    """Cisco AnyConnect, for `dialect = "anyconnect"`. What is certain about it, and what is not: docs/anyconnect.md."""

    identity_type: IdentityType = Field(
        default=201, description="Type of the identity `*$AnyConnectClient$*`. A gateway takes 201 and 11 (key ID)."
    )
    group: Text = Field(default="", description="The group to select (group-access, and group-select in forms).")
    second_username: Text = Field(default="", description="For a form that asks for a second user name.")
    host_scan: Secret | None = Field(
        default=None,
        description=(
            "What to answer a gateway that wants to examine this host (HostScan), which is not done here: a token, or "
            "`echo` for the token that it sends. By default the log-in is given up."
        ),
    )
    capabilities: Listed[Text] = Field(
        default=(), description="auth-method capabilities to announce, such as `multiple-cert`."
    )
    client_version: Text = Field(default="4.9.01095", description="The version that the client says it has.")
    platform: Text = Field(default="win", description="What the client says it runs on: `win`, `mac`, `linux`.")
    computer_name: Text = Field(default="", description="What the client calls this host.")
    device_type: Text = Field(default="", description="What the client says this host is.")
    platform_version: Text = Field(default="", description="The version of what the client says it runs on.")
    unique_id: Text = Field(
        default="",
        description="64 hexadecimal digits that stand for this host. By default made from the profile's name.",
        json_schema_extra={"shown": "see text"},
    )
    unique_id_global: Text = Field(
        default="",
        description="40 hexadecimal digits that stand for this host. By default made from the profile's name.",
        json_schema_extra={"shown": "see text"},
    )
    mac_addresses: Listed[Text] = Field(default=(), description="MAC addresses to tell, as `82-00-11-aa-bb-cc`.")


class FortiGateSection(Section):
    """FortiGate, for `dialect = "fortigate"`: what FortiClient tells of itself (notify 0xF100). See docs/dialects.md."""

    notify: bool = Field(default=True, description="Tell all this. FortiGates are said to refuse who does not.")
    version: Line = Field(default="7.4.8.2066", description="The version of FortiClient.")
    unique_id: Line = Field(
        default="",
        description="32 hexadecimal digits that stand for this host. By default made from the profile's name.",
        json_schema_extra={"shown": "see text"},
    )
    address: Line = Field(
        default="",
        description="This host's IPv4 address. By default the one that the connection has.",
        json_schema_extra={"shown": "see text"},
    )
    mac_addresses: Listed[Line] = Field(default=(), description="MAC addresses, as `82-00-11-aa-bb-cc`.")
    host: Line = Field(default="", description="This host's name.")
    user: Line = Field(
        default="",
        description="Who uses this host. By default the `username`.",
        json_schema_extra={"shown": "see text"},
    )
    system: Line = Field(default="", description="The operating system.")
    network_id: Octet | None = Field(
        default=None,
        description="The network ID of the tunnel (notify 61520), where the gateway has several for such clients.",
        json_schema_extra={"shown": "not told"},
    )
    second_factor: Literal["repeat", "identity", "off"] = Field(
        default="repeat",
        description=(
            "What to say when the gateway, after EAP-MSCHAPv2, names EAP-GTC as what comes next: `repeat` the last "
            "response, or the `identity`; `off` gives up. The code is that of `[login]`, or is asked for."
        ),
    )
    second_factor_auth: Literal["sk_p", "msk"] = Field(
        default="sk_p",
        description=(
            "What the last AUTH is made with after a second factor: SK_p, for EAP-GTC gives no key, or the key of "
            "EAP-MSCHAPv2."
        ),
    )


class FortiGateGatewaySection(Section):
    """FortiGate, for `dialect = "fortigate"`: EAP-MSCHAPv2 and then the one-time code, in FortiGate's own way. Every user
    needs a `totp`. See docs/dialects.md."""

    prompt: Line = Field(default="Code: ", description="The words with which the code is asked for.")
    second_factor_auth: Literal["sk_p", "msk"] = Field(
        default="sk_p", description="What the last AUTH is made with; the same as with the client."
    )


class AnyConnectGatewaySection(_AnyConnectSection):
    """Cisco AnyConnect, for `dialect = "anyconnect"`. What is certain about it, and what is not: docs/anyconnect.md."""

    client_identities: Listed[Octets] = Field(
        default=(b"*$AnyConnectClient$*",),
        description="What these clients say in IDi, as texts; another one where their profile has an IKEIdentity.",
        json_schema_extra={"shown": '"*$AnyConnectClient$*"'},
    )
    password: bool = Field(default=True, description="Ask for user name and password.")
    second_password: bool = Field(
        default=False, description="Ask for the one-time code in the same form (every user needs a `totp` then)."
    )
    certificate: bool = Field(default=False, description="Ask for a certificate of the authorities in `ca`.")
    same_user: bool = Field(
        default=True, description="With both: the user's name must be one of the certificate's names."
    )
    groups: Listed[Text] = Field(default=(), description="Groups of which a client must choose one.")
    message: Text = Field(default="Please enter your username and password.", description="The words above the form.")
    csport: Port = Field(default=443, description="The HTTPS port that clients are told (nothing listens there).")
    attempts: Attempts = Field(default=3, description="How often a user may fill in the form.")
    server_cert_hash: Literal["certificate", "public-key", "none"] = Field(
        default="certificate",
        description="What the last document says the SHA-1 of: the gateway's certificate, its public key, or nothing.",
    )
    host_scan: bool = Field(
        default=False, description="Demand the answer of a client that examined its host; for tests of clients."
    )
    banner: Text = Field(default="", description="A text for the user to read.")
    default_domain: fields.Domain | None = Field(default=None, description="DEF_DOMAIN of Cisco's attributes.")
    split_dns: Listed[fields.Domain] = Field(
        default=(),
        description="SPLITDNS_NAME of Cisco's attributes. By default the connection's `domains`.",
        json_schema_extra={"shown": "see text"},
    )
    split_include: Listed[fields.Network] = Field(
        default=(),
        description="SPLIT_INCLUDE of Cisco's attributes, IPv4. By default the connection's `subnets`.",
        json_schema_extra={"shown": "see text"},
    )


def _common(section: _AnyConnectSection) -> dict[str, object]:
    from ikeway.dialects.anyconnect.options import VENDOR_IDS
    from ikeway.eap.packet import MethodType

    return {
        "vendor_ids": VENDOR_IDS if section.vendor_ids is None else section.vendor_ids,
        "auth_vendor_id": section.auth_vendor_id,
        "method": MethodType(9, section.vendor_type),
        "signature_hash": section.signature_hash,
        "fragments": section.fragments,
    }


def client_options(section: AnyConnectClientSection, profile: str) -> ClientOptions:
    """The values of a profile. Raises ConfigError when the token cannot be read."""
    import hashlib

    from ikeway.dialects.anyconnect.messages import Device
    from ikeway.dialects.anyconnect.options import IDENTITY, ClientOptions
    from ikeway.wire.registry import IdentificationType

    host = hashlib.sha512(b"Ikeway profile " + profile.encode()).hexdigest()
    attributes = {
        "computer-name": section.computer_name,
        "device-type": section.device_type,
        "platform-version": section.platform_version,
        "unique-id": section.unique_id or host[:64],
        "unique-id-global": section.unique_id_global or host[64:104],
    }
    return ClientOptions(
        **_common(section),  # type: ignore[arg-type]
        identity=Identity(IdentificationType(section.identity_type), IDENTITY),
        device=Device(
            section.client_version,
            section.platform,
            tuple((name, value) for name, value in attributes.items() if value),
            section.mac_addresses,
        ),
        group=section.group,
        capabilities=section.capabilities,
        second_username=section.second_username,
        host_scan=section.host_scan.read("HostScan token") if section.host_scan is not None else "",
    )


def gateway_options(
    section: AnyConnectGatewaySection,
    domains: Sequence[str],
    networks: Iterable[fields.IpNetwork],
    certificate: x509.Certificate | None,
) -> GatewayOptions:
    """The values of a gateway's connection; `domains` and `networks` are what else is told, `certificate` is what the
    gateway proves itself with."""
    from ikeway.dialects.anyconnect.options import GatewayOptions

    include = section.split_include or tuple(networks)
    return GatewayOptions(
        **_common(section),  # type: ignore[arg-type]
        identities=section.client_identities,
        password=section.password,
        second_password=section.second_password,
        certificate=section.certificate,
        same_user=section.same_user,
        groups=section.groups,
        message=section.message,
        csport=section.csport,
        attempts=section.attempts,
        server_cert_hash=_server_cert_hash(section, certificate),
        host_scan=section.host_scan,
        banner=section.banner,
        default_domain=section.default_domain or "",
        split_dns=section.split_dns or tuple(domains),
        split_include=tuple(str(network) for network in include if network.version == 4),
    )


def _server_cert_hash(section: AnyConnectGatewaySection, certificate: x509.Certificate | None) -> str:
    from cryptography import x509
    from cryptography.hazmat.primitives.hashes import SHA1

    if certificate is None or section.server_cert_hash == "none":
        return ""
    if section.server_cert_hash == "certificate":
        return certificate.fingerprint(SHA1()).hex().upper()  # noqa: S303  # whose SHA-1 is what clients look for
    return x509.SubjectKeyIdentifier.from_public_key(certificate.public_key()).digest.hex().upper()


def anyconnect_client(options: ClientOptions) -> Dialect:
    """The dialect of a profile that speaks AnyConnect."""
    from ikeway.dialects.anyconnect import dialect

    return dialect.client(options)


def fortigate_options(section: FortiGateSection, profile: str, user: str) -> FortiGateOptions:
    """The values of a profile."""
    import hashlib

    from ikeway.dialects.fortigate import FortiGateOptions

    return FortiGateOptions(
        notify=section.notify,
        version=section.version,
        unique_id=section.unique_id or hashlib.sha256(b"Ikeway profile " + profile.encode()).hexdigest()[:32].upper(),
        address=section.address,
        mac_addresses="".join(f"{each};" for each in section.mac_addresses),
        host=section.host,
        user=section.user or user,
        system=section.system,
        network_id=section.network_id,
    )


def fortigate_client(options: FortiGateOptions) -> Dialect:
    """The dialect of a profile that passes for FortiClient."""
    from ikeway.dialects.fortigate import client

    return client(options)


def fortigate_session(section: FortiGateSection) -> NewPeer:
    """The user's side of a log-in that may have a second factor."""
    from ikeway.dialects.fortigate_eap import SecondFactorPeer

    return partial(SecondFactorPeer, answer=section.second_factor, key=section.second_factor_auth)


def fortigate_authenticator(section: FortiGateGatewaySection) -> NewAuthenticator:
    """The gateway's side of it."""
    from ikeway.dialects.fortigate_eap import SecondFactorAuthenticator

    return partial(SecondFactorAuthenticator, prompt=section.prompt, key=section.second_factor_auth)


def microsoft_client(name: Literal["windows", "azure"]) -> Dialect:
    """The dialect of a profile for a gateway of Microsoft's."""
    from ikeway.dialects import microsoft

    return microsoft.windows() if name == "windows" else microsoft.azure()


def gateway_dialect(options: GatewayOptions) -> Dialect:
    """The dialect of a gateway's connection."""
    from ikeway.dialects.anyconnect import dialect

    return dialect.gateway(options)


def anyconnect_peer(
    options: ClientOptions, username: str, credential: CertificateCredential | None
) -> PeerMethodFactory:
    """The user's side of the EAP method."""
    from ikeway.dialects.anyconnect.peer import AnyConnectPeer

    return lambda: AnyConnectPeer(options, username, credential)


def anyconnect_authenticator(
    options: GatewayOptions, scope: Callable[[Ask], Ask], trust: PeerTrust | None
) -> Callable[[Ask], EapAuthenticator]:
    """The gateway's side of the EAP method."""
    from ikeway.dialects.anyconnect.dialect import new_authenticator

    new = new_authenticator(options, os.urandom, trust)
    return lambda ask: new(scope(ask))


def complain_of_unused(problems: Problems, at: Location, section: Section, dialect: str | None) -> None:
    """A table of a dialect that is not chosen is a mistake: its author expects something of it."""
    for name in ("anyconnect", "fortigate"):
        if name in section.model_fields_set and dialect != name:
            problems.add(
                (*at, name),
                f"the table `{name}` is not used: the dialect is {dialect or 'the standard'}",
                remedy=f'remove it, or write dialect = "{name}"',
            )
