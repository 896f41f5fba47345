"""The XML conversation inside AnyConnect-EAP: what each document says, both ways.

    gateway: hello, auth-request, complete          client: init, auth-reply, ack

    <config-auth client="vpn" type="TYPE" aggregate-auth-version="2"> ... </config-auth>

Names and order are those of docs/anyconnect.md. What is not known is passed over; what has to be there and is not is an
error.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, field

from ikeway.dialects.anyconnect import document
from ikeway.dialects.anyconnect.document import Element, element
from ikeway.eap.errors import MalformedEap
from ikeway.eap.words import printable

MAX_INPUTS = 32
MAX_OPTIONS = 256


class Kind(enum.StrEnum):
    """The `type` of a document."""

    HELLO = "hello"
    AUTH_REQUEST = "auth-request"
    COMPLETE = "complete"
    INIT = "init"
    AUTH_REPLY = "auth-reply"
    ACK = "ack"


_CLIENTS = frozenset({Kind.INIT, Kind.AUTH_REPLY, Kind.ACK})


@dataclass(frozen=True, slots=True)
class Device:
    """What the client says of itself at the head of each of its documents."""

    version: str = ""
    platform: str = ""  # win, mac, linux
    attributes: tuple[tuple[str, str], ...] = ()  # computer-name, device-type, platform-version, unique-id, ...
    mac_addresses: tuple[str, ...] = ()

    def elements(self) -> tuple[Element, ...]:
        """The first children of init, auth-reply and ack."""
        addresses = [element("mac-address", address) for address in self.mac_addresses]
        if addresses:
            addresses[0] = element("mac-address", self.mac_addresses[0], public_interface="true")
        return (
            element("version", self.version, who="vpn"),
            Element("device-id", self.attributes, (), self.platform),
            *((element("mac-address-list", *addresses),) if addresses else ()),
        )


@dataclass(frozen=True, slots=True)
class Choice:
    """An option of a selection: what is sent, and what people read."""

    value: str
    label: str
    selected: bool = False


@dataclass(frozen=True, slots=True)
class Input:
    """A field of a form: `type` is text, password, hidden or select."""

    type: str
    name: str
    label: str = ""
    value: str = ""
    choices: tuple[Choice, ...] = ()


@dataclass(frozen=True, slots=True)
class HostScan:
    """The gateway wants the client's host examined."""

    ticket: str = ""
    token: str = ""
    base_uri: str = ""
    wait_uri: str = ""


@dataclass(frozen=True, slots=True)
class FromGateway:
    """A document of the gateway. `form` None: nothing to fill in; `wants_certificate`: <client-cert-request/>."""

    kind: Kind
    opaque: Element | None = None
    message: str = ""
    form: tuple[Input, ...] | None = None
    wants_certificate: bool = False
    is_authenticated: bool = False  # <authentication-complete/>, or auth id "success"
    host_scan: HostScan | None = None
    csport: str = ""
    error: str = ""
    session_id: str = ""
    session_token: str = field(default="", repr=False)
    server_cert_hash: str = ""  # in `complete`, of what we have proven ourselves with


@dataclass(frozen=True, slots=True)
class FromClient:
    """A document of the client. `answers`: names of inputs and what was filled in."""

    kind: Kind
    device: Device = Device()
    opaque: Element | None = None
    group_access: str = ""
    group_select: str = ""
    capabilities: tuple[str, ...] = ()
    has_no_certificate: bool = False  # <client-cert-fail/>
    answers: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    host_scan_token: str = field(default="", repr=False)

    def answer(self, name: str) -> str | None:
        """What was filled in there; None when the input was left out."""
        return next((value for key, value in self.answers if key == name), None)


def _root(kind: Kind, *content: Element) -> bytes:
    attributes = (("client", "vpn"), ("type", str(kind)), ("aggregate-auth-version", "2"))
    return document.encode(Element("config-auth", attributes, content))


def _opened(octets: bytes, expected: frozenset[Kind]) -> tuple[Kind, Element]:
    root = document.decode(octets)
    kind = root.get("type")
    if root.name != "config-auth" or kind not in expected:
        raise MalformedEap(
            "an XML document that has no place here",
            expected=f"config-auth of type {', '.join(sorted(expected))}",
            got=f"{printable(root.name.encode())[:40]} of type {printable(kind.encode())[:40]!r}",
        )
    return Kind(kind), root


# --- what the client says ---------------------------------------------------------------------------------------------


def encode_client(said: FromClient) -> bytes:
    """The document. Raises EapFailed for text that XML cannot carry."""
    content: list[Element] = [*said.device.elements()]
    opaque = [said.opaque] if said.opaque is not None else []
    group = [element("group-select", said.group_select)] if said.group_select else []
    if said.kind is Kind.INIT:
        content += opaque + group
        content += [element("group-access", said.group_access)] if said.group_access else []
        methods = [element("auth-method", each) for each in said.capabilities]
        content += [element("capabilities", *methods)]
        content += [element("client-cert-fail")] if said.has_no_certificate else []
    elif said.kind is Kind.AUTH_REPLY:
        # Empty, as it is the first log-in of a session.
        content += [element("session-id"), element("session-token"), *opaque]
        content.append(element("auth", *(element(name, value) for name, value in said.answers)))
        content += group
        content += [element("host-scan-token", said.host_scan_token)] if said.host_scan_token else []
    return _root(said.kind, *content)


def decode_client(octets: bytes) -> FromClient:
    """Read a document of the client. Raises MalformedEap."""
    kind, root = _opened(octets, _CLIENTS)
    device, auth = root.find("device-id"), root.find("auth")
    capabilities, addresses = root.find("capabilities"), root.find("mac-address-list")
    answers = auth.children[:MAX_INPUTS] if auth is not None else ()
    return FromClient(
        kind=kind,
        device=Device(
            version=_shown(root.text_of("version")),
            platform=_shown(device.text) if device is not None else "",
            attributes=device.attributes if device is not None else (),
            mac_addresses=tuple(_shown(each.text) for each in addresses.find_all("mac-address")) if addresses else (),
        ),
        opaque=root.find("opaque"),
        group_access=root.text_of("group-access"),
        group_select=root.text_of("group-select"),
        capabilities=tuple(each.text.strip() for each in capabilities.find_all("auth-method")) if capabilities else (),
        has_no_certificate=root.find("client-cert-fail") is not None,
        answers=tuple((each.name, each.text) for each in answers),
        host_scan_token=root.text_of("host-scan-token"),
    )


# --- what the gateway says --------------------------------------------------------------------------------------------


def encode_gateway(said: FromGateway) -> bytes:
    """The document."""
    content: list[Element] = [element("version", "ikeway", who="sg")] if said.kind is Kind.HELLO else []
    if said.kind is Kind.COMPLETE:
        content += [element("session-id", said.session_id), element("session-token", said.session_token)]
        message = element("message", said.message, id="0", param1="", param2="")
        content.append(element("auth", message, id="success"))
        content.append(element("capabilities", element("crypto-supported", "ssl-dhe")))
        content.append(_config(said))
    elif said.kind is Kind.AUTH_REQUEST:
        content += [said.opaque] if said.opaque is not None else []
        content += [element("csport", said.csport)] if said.csport else []
        content += [element("client-cert-request")] if said.wants_certificate else []
        content += _auth(said)
        content += [_host_scan(said.host_scan)] if said.host_scan is not None else []
    if said.error:
        content.append(element("error", said.error, id="13", param1="", param2=""))
    return _root(said.kind, *content)


def _config(said: FromGateway) -> Element:
    """What a client is to have on its host: no packages and no profiles of ours."""
    base = [element("server-cert-hash", said.server_cert_hash)] if said.server_cert_hash else []
    return element(
        "config",
        element("vpn-base-config", *base),
        *((element("csport", said.csport),) if said.csport else ()),
        element("opaque", is_for="vpn-client"),
        element("vpn-profile-manifest"),
        client="vpn",
        type="private",
    )


def _auth(said: FromGateway) -> list[Element]:
    inner: list[Element] = []
    if said.is_authenticated:
        inner.append(element("authentication-complete"))
    if said.form is not None:
        if said.message:
            inner.append(element("message", said.message, id="0", param1="", param2=""))
        inner.append(element("form", *map(_input, said.form)))
    return [element("auth", *inner, id="main")] if inner else []


def _input(field: Input) -> Element:
    if field.type != "select":
        extra = {"value": field.value} if field.value else {}
        return element("input", type=field.type, name=field.name, label=field.label, **extra)
    options = [
        element("option", choice.label, value=choice.value, **({"selected": "true"} if choice.selected else {}))
        for choice in field.choices
    ]
    return element("select", *options, name=field.name, label=field.label)


def _host_scan(scan: HostScan) -> Element:
    return element(
        "host-scan",
        element("host-scan-ticket", scan.ticket),
        element("host-scan-token", scan.token),
        element("host-scan-base-uri", scan.base_uri),
        element("host-scan-wait-uri", scan.wait_uri),
    )


def decode_gateway(octets: bytes) -> FromGateway:
    """Read a document of the gateway. Raises MalformedEap."""
    kind, root = _opened(octets, frozenset(Kind) - _CLIENTS)
    auth, scan, error = root.find("auth"), root.find("host-scan"), root.find("error")
    form = auth.find("form") if auth is not None else None
    is_authenticated = auth is not None and (
        auth.get("id") == "success" or auth.find("authentication-complete") is not None
    )
    return FromGateway(
        kind=kind,
        opaque=root.find("opaque"),
        message=_message(auth),
        form=_form(form) if form is not None else None,
        wants_certificate=root.find("client-cert-request") is not None,
        is_authenticated=is_authenticated,
        host_scan=_read_host_scan(scan) if scan is not None else None,
        csport=root.text_of("csport"),
        error=(_shown(error.text) or "without a word") if error is not None else "",
        session_id=root.text_of("session-id"),
        session_token=root.text_of("session-token"),
        server_cert_hash=_server_cert_hash(root.find("config")),
    )


def _server_cert_hash(config: Element | None) -> str:
    base = config.find("vpn-base-config") if config is not None else None
    return _shown(base.text_of("server-cert-hash")) if base is not None else ""


def _message(auth: Element | None) -> str:
    if auth is None:
        return ""
    found = auth.find("error") or auth.find("message")
    return _shown(found.text) if found is not None else ""


def _form(form: Element) -> tuple[Input, ...]:
    fields = [child for child in form.children if child.name in ("input", "select")]
    if len(fields) > MAX_INPUTS:
        raise MalformedEap("a form of too many inputs", expected=f"at most {MAX_INPUTS}", got=f"{len(fields)}")
    return tuple(map(_read_input, fields))


def _read_input(child: Element) -> Input:
    name, choices = child.get("name"), list(child.find_all("option"))
    if not document.is_name(name) and child.get("type") not in ("submit", "reset"):
        raise MalformedEap("an input whose name no answer can have", expected="letters, digits, - and _")
    if len(choices) > MAX_OPTIONS:
        raise MalformedEap("a selection of too many options", expected=f"at most {MAX_OPTIONS}", got=f"{len(choices)}")
    return Input(
        type="select" if child.name == "select" else child.get("type", "text"),
        name=name,
        label=_shown(child.get("label")),
        value=child.get("value"),
        choices=tuple(
            Choice(
                each.get("value") or each.text.strip(), _shown(each.text), each.get("selected") in ("true", "selected")
            )
            for each in choices
        ),
    )


def _read_host_scan(scan: Element) -> HostScan:
    return HostScan(
        ticket=scan.text_of("host-scan-ticket"),
        token=scan.text_of("host-scan-token"),
        base_uri=scan.text_of("host-scan-base-uri"),
        wait_uri=scan.text_of("host-scan-wait-uri"),
    )


def _shown(text: str) -> str:
    """The other side's words, fit to be printed."""
    return printable(text.encode("utf-8", "replace"))
