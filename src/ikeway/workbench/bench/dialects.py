"""A vendor's dialect as a knob, and the settings of it: for stand-ins without a file, and over those of a profile's or a
gateway's file."""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from pydantic import ValidationError

from ikeway.config import dialects
from ikeway.config.explain import explain, fields_of, is_secret
from ikeway.config.fields import Section
from ikeway.dialects import Dialect
from ikeway.errors import ConfigError

CLIENTS = ("anyconnect", "fortigate", "windows", "azure")
GATEWAYS = ("anyconnect",)
PROFILE_SECTIONS: Mapping[str, type[Section]] = {
    "anyconnect": dialects.AnyConnectClientSection,
    "fortigate": dialects.FortiGateSection,
}
CONNECTION_SECTIONS: Mapping[str, type[Section]] = {
    "anyconnect": dialects.AnyConnectGatewaySection,
    "fortigate": dialects.FortiGateGatewaySection,
}


def client_dialect(name: str, settings: Iterable[str] = ()) -> Dialect:
    """What a client of this vendor says. Raises `ConfigError`."""
    match name:
        case "anyconnect":
            anyconnect = dialects.AnyConnectClientSection.model_validate(parse(settings, name, PROFILE_SECTIONS))
            return dialects.anyconnect_client(dialects.client_options(anyconnect, "workbench"))
        case "fortigate":
            fortigate = dialects.FortiGateSection.model_validate(parse(settings, name, PROFILE_SECTIONS))
            return dialects.fortigate_client(dialects.fortigate_options(fortigate, "workbench", ""))
        case "windows" | "azure":
            parse(settings, name, PROFILE_SECTIONS)
            return dialects.microsoft_client(name)
    raise _unknown(name, CLIENTS)


def gateway_dialect(name: str, settings: Iterable[str] = ()) -> Dialect:
    """What a gateway of this vendor says. Raises `ConfigError`."""
    if name == "anyconnect":
        section = dialects.AnyConnectGatewaySection.model_validate(parse(settings, name, CONNECTION_SECTIONS))
        return dialects.gateway_dialect(dialects.gateway_options(section, (), (), None))
    raise _unknown(name, GATEWAYS)


def into_profile(settings: Iterable[str]) -> Callable[[dict[str, Any]], None]:
    """Puts settings into what a profile says of its dialect. Raises `ConfigError`."""

    def put(content: dict[str, Any]) -> None:
        _put(content.get("gateway"), settings, PROFILE_SECTIONS)

    return put


def into_connections(settings: Iterable[str]) -> Callable[[dict[str, Any]], None]:
    """The same with all connections of a gateway that speak a dialect."""

    def put(content: dict[str, Any]) -> None:
        found = content.get("connections")
        parts = [each for each in found.values() if isinstance(each, dict)] if isinstance(found, dict) else []
        speaking = [part for part in parts if "dialect" in part]
        for part in speaking:
            _put(part, settings, CONNECTION_SECTIONS)
        if not speaking:
            _put(None, settings, CONNECTION_SECTIONS)

    return put


def _put(part: object, settings: Iterable[str], sections: Mapping[str, type[Section]]) -> None:
    texts = tuple(settings)
    if not texts:
        return
    if not isinstance(part, dict) or "dialect" not in part:
        raise ConfigError(
            "there are settings of a dialect, and the file speaks none",
            expected="`dialect` in the file",
            remedy="write it there, or leave --set out",
        )
    name = str(part["dialect"])
    table = part.setdefault(name, {})
    if isinstance(table, dict):
        table.update(parse(texts, name, sections))


def parse(texts: Iterable[str], dialect: str, sections: Mapping[str, type[Section]]) -> dict[str, object]:
    """Settings as `KEY=VALUE`: values as a file has them, or texts without their quotes. Raises `ConfigError`."""
    found: dict[str, object] = {}
    for text in texts:
        key, equals, value = text.partition("=")
        section = sections.get(dialect)
        known = fields_of(section) if section is not None else {}
        if section is None or not equals or key not in known:
            raise ConfigError(
                f"no setting of the dialect {dialect or 'that is spoken'}: {text[:60]!r}",
                expected="KEY=VALUE, where KEY is " + (", ".join(known) or "none: it has no settings"),
                remedy="see docs/dialects.md",
            )
        if is_secret(known[key]) and value != "echo" and not value.startswith("{"):
            raise ConfigError(
                f"`{key}` is a secret, and every process of this host can read command lines",
                expected='{ file = "..." }, { command = "..." } or { keyring = "..." }',
                remedy="write it so, or into the file",
            )
        found[key] = _value(section, key, value)
    return found


def _value(section: type[Section], key: str, text: str) -> object:
    """The value that the setting takes: as TOML, else as a text."""
    values: list[object] = []
    try:
        values.append(tomllib.loads(f"value = {text}")["value"])
    except tomllib.TOMLDecodeError:
        pass
    mistakes = []
    for value in (*values, text):
        try:
            section.model_validate({key: value})
        except ValidationError as error:
            mistakes.append(explain(section, error.errors()[0]))
        else:
            return value
    said = mistakes[0]
    raise ConfigError(said.reason, expected=said.expected, got=said.got, remedy=f"correct --set {key}=...")


def _unknown(name: str, known: tuple[str, ...]) -> ConfigError:
    what = (
        f"no dialect is called {name[:40]!r}" if name else "there are settings (--set), and no dialect that they are of"
    )
    return ConfigError(what, expected=" or ".join(known), remedy="name one with --dialect; see docs/dialects.md")
