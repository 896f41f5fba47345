"""`[radius.NAME]` of a gateway's configuration, and what it means. Nothing here needs pyrad."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping, Sequence
from typing import Annotated

from pydantic import Field, PlainValidator

from ikeway.config import fields
from ikeway.config.eap import AUTHENTICATORS
from ikeway.config.fields import IpAddress, Kind, Listed, Section
from ikeway.config.reading import Location, Problems
from ikeway.config.secrets import Secret, SecretSource
from ikeway.config.tunnels import inner_logins
from ikeway.errors import ConfigError
from ikeway.gateway.radius.settings import (
    AUTHENTICATION_PORT,
    DYNAMIC_PORT,
    DynamicSettings,
    RadiusSettings,
    ServerAddress,
)

SERVER_TEXT = (
    'a name or address, with a port where it is not 1812: "10.0.0.1", "radius.example.com:1645", "[fd00::1]:1812"'
)
_GOOD_SECRET = 16  # octets (RFC 2865 section 3)
_LEAST_INTERIM = 60.0
_IN_CLEAR = frozenset({"pap", "eap-gtc"})  # log-ins within a tunnel that show us the password


def parse_server(value: object) -> ServerAddress:
    """A server, from the forms that people write."""
    text = str(value).strip()
    found = re.fullmatch(r"\[([0-9A-Fa-f:.]+)\](?::(\d{1,5}))?", text) or re.fullmatch(
        r"([A-Za-z0-9._-]+)(?::(\d{1,5}))?", text
    )
    if found is None:
        try:
            return ServerAddress(str(ipaddress.IPv6Address(text)))
        except ValueError:
            fields.refuse("this is no RADIUS server", expected=SERVER_TEXT, got=text[:60])
    port = int(found[2]) if found[2] else AUTHENTICATION_PORT
    if not 1 <= port < 65535:
        fields.refuse("this is no port of a RADIUS server", expected="1 to 65534", got=text[:60])
    return ServerAddress(found[1], port)


ServerText = Annotated[ServerAddress, PlainValidator(parse_server), Kind(SERVER_TEXT)]
Port = Annotated[int, fields.between(1, 65535), Kind("a port from 1 to 65535")]
Tries = Annotated[int, fields.between(1, 10), Kind("a whole number from 1 to 10")]


class CoaPart(Section):
    """Let servers end and change sessions (RFC 5176). Without this section nothing is listened to."""

    listen: fields.Address = Field(description="The address to listen on, best one that only the RADIUS servers reach.")
    port: Port = Field(default=DYNAMIC_PORT, description="The UDP port.")
    clients: Listed[fields.Address] = Field(
        default=(),
        description="The addresses that requests may come from. By default those of `servers`, where they are addresses.",
        json_schema_extra={"shown": "see text"},
    )
    secret: Secret | None = Field(
        default=None, description="The secret shared with them.", json_schema_extra={"shown": "that of the servers"}
    )
    require_timestamp: bool = Field(
        default=True,
        description=(
            "Drop requests without Event-Timestamp: somebody may have recorded them. Those with one are taken for 300 s."
        ),
    )


class RadiusPart(Section):
    """RADIUS servers that know the same users."""

    servers: Listed[ServerText] = Field(
        min_length=1,
        description="The servers, in the order in which they are asked. Accounting goes to the port after that.",
    )
    secret: Secret = Field(description="The secret shared with them: 16 characters and more, at random.")
    source: fields.Address | None = Field(
        default=None, description="Ask from this address. By default the host chooses by its routes."
    )
    nas_identifier: Annotated[str, Field(max_length=253)] = Field(
        default="",
        description="What the gateway calls itself towards the servers (NAS-Identifier). By default its `identity`.",
        json_schema_extra={"shown": "see text"},
    )
    timeout: fields.Duration = Field(
        default=2.0,
        description="How long to wait for an answer before asking again; each wait is 1.5 times as long as the one before.",
    )
    tries: Tries = Field(default=3, description="How often one server is asked before the next one is.")
    dead_time: fields.Duration = Field(
        default=60.0, description="How long others are asked before a server that did not answer."
    )
    accounting: bool = Field(default=False, description="Send accounting records: start, interim and stop.")
    interim: fields.Duration = Field(
        default=0.0,
        description=(
            "How often to report what a session has carried so far; a minute at the least. The server may say otherwise."
        ),
    )
    require_message_authenticator: bool = Field(
        default=True,
        description=(
            "Drop answers without Message-Authenticator, which somebody between may have forged (CVE-2024-3596). Off only "
            "for servers that cannot be updated; with EAP it is always required."
        ),
    )
    coa: CoaPart | None = Field(default=None, description="Let servers end and change sessions.")


class RadiusBuilder:
    """Turns the sections into settings, and notes what does not go together."""

    def __init__(self, problems: Problems, own_name: str) -> None:
        """`own_name`: what the gateway is called where a section does not say."""
        self._problems, self._own_name = problems, own_name
        self._listening: dict[tuple[IpAddress, int], str] = {}
        self.warnings: list[str] = []

    def settings(self, name: str, part: RadiusPart) -> RadiusSettings | None:
        """The settings; None when problems were noted."""
        at: Location = ("radius", name)
        self._check(at, name, part)
        secret = self._secret((*at, "secret"), part.secret)
        dynamic = self._dynamic((*at, "coa"), name, part, secret) if part.coa is not None else None
        if secret is None:
            return None
        if len(secret) < _GOOD_SECRET:
            self.warnings.append(
                f"the secret of [radius.{name}] has {len(secret)} octets: whoever sees the traffic may guess it; use 16 or "
                "more, at random"
            )
        return RadiusSettings(
            name=name,
            servers=part.servers,
            secret=secret,
            source=part.source,
            nas_identifier=part.nas_identifier or self._own_name,
            timeout=part.timeout,
            tries=part.tries,
            dead_time=part.dead_time,
            accounting=part.accounting,
            interim=part.interim,
            require_message_authenticator=part.require_message_authenticator,
            dynamic=dynamic,
        )

    def _check(self, at: Location, name: str, part: RadiusPart) -> None:
        if not 0.1 <= part.timeout <= 60:
            self._problems.add(
                (*at, "timeout"), "the time is out of range", expected="100ms to 60s", remedy='write "2s"'
            )
        if part.interim and part.interim < _LEAST_INTERIM:
            self._problems.add(
                (*at, "interim"),
                "the servers would hear of every session too often",
                expected='"1m" or more (RFC 2869 section 5.16), or "never"',
                remedy='write "10m"',
            )
        if part.interim and not part.accounting:
            self._problems.add(
                (*at, "interim"), "`interim` needs `accounting`", remedy="write accounting = true, or remove it"
            )
        if len({str(server) for server in part.servers}) < len(part.servers):
            self._problems.add((*at, "servers"), "a server is named twice", remedy="name each one once")
        if not part.require_message_authenticator:
            self.warnings.append(
                f"[radius.{name}] takes answers without Message-Authenticator: somebody between gateway and server can let "
                "anybody in (CVE-2024-3596); update the server and remove `require_message_authenticator = false`"
            )

    def _secret(self, at: Location, source: SecretSource) -> bytes | None:
        try:
            secret = source.read("RADIUS secret").encode()
        except ConfigError as error:
            self._problems.add_error(at, error)
            return None
        if not secret:
            self._problems.add(
                at, "the RADIUS secret is empty", remedy="enter the one that the server has for this client"
            )
            return None
        return secret

    def _dynamic(self, at: Location, name: str, part: RadiusPart, secret: bytes | None) -> DynamicSettings | None:
        coa = part.coa
        assert coa is not None
        place = (coa.listen, coa.port)
        if place in self._listening:
            self._problems.add(
                at,
                f"[radius.{self._listening[place]}] listens there too",
                got=f"{coa.listen} port {coa.port}",
                remedy="give each one a `port` or address of its own",
            )
        self._listening[place] = name
        clients = coa.clients or tuple(found for each in part.servers if (found := _address(each.host)) is not None)
        if not clients:
            self._problems.add(
                at,
                "it is not known whose requests are to be taken",
                expected="`clients`, the addresses of the RADIUS servers, as `servers` has names",
                remedy="add them",
            )
        own = self._secret((*at, "secret"), coa.secret) if coa.secret is not None else secret
        if own is None:
            return None
        return DynamicSettings(
            listen=coa.listen,
            port=coa.port,
            clients=frozenset(clients),
            secret=own,
            require_timestamp=coa.require_timestamp,
        )


def check_use(
    problems: Problems,
    at: Location,
    login: Sequence[str],
    radius: str | None,
    groups: Sequence[str],
    inner: Sequence[str],
    known: Mapping[str, RadiusPart],
) -> None:
    """Whether what a connection says of RADIUS goes together: its keys `login`, `inner`, `radius` and `groups`."""
    if "eap" in login and radius is None and not problems.was_removed(*at, "radius"):
        problems.add(
            (*at, "login"),
            "clients log in by eap, and nobody judges them",
            expected="`radius`, the name of a section [radius.NAME]",
            remedy="add it, or name a method such as eap-mschapv2",
        )
    if radius is not None and radius not in known and not problems.was_removed("radius", radius):
        problems.add(
            (*at, "radius"),
            f"there are no RADIUS servers {radius!r}",
            expected=", ".join(known) or "none",
            remedy=f"add [radius.{radius}], or correct the name",
        )
    blind = [method for method in login if method in AUTHENTICATORS and "radius" not in AUTHENTICATORS[method].uses]
    if radius is not None and blind and len(blind) < len(login):
        problems.add(
            (*at, "radius"),
            f"RADIUS servers cannot judge a log-in by {blind[0]}, where the password does not arrive",
            remedy=f'remove {blind[0]}, or write login = "eap", where the servers run the method',
        )
    within = [one for method in login for one in inner_logins(method, inner, is_server=True) if one not in _IN_CLEAR]
    if radius is not None and within:
        problems.add(
            (*at, "inner"),
            f"RADIUS servers cannot judge {within[0]} within the tunnel, where the password does not arrive",
            expected=" or ".join(sorted(_IN_CLEAR)),
            remedy='write inner = "pap" (EAP-TTLS) or "eap-gtc" (PEAP), or login = "eap", where the servers run the method',
        )
    if groups and radius is None:
        problems.add((*at, "groups"), "`groups` are what RADIUS servers say", remedy="add `radius`, or remove it")


def _address(host: str) -> IpAddress | None:
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None
