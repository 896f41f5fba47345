"""PKCS#11 URIs (RFC 7512): which token, and which object in it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import unquote_to_bytes

from ikeway.errors import ConfigError

MOST_CHARACTERS = 2000
EXAMPLE = "pkcs11:token=work;object=vpn"
_TOKEN = frozenset({"token", "serial", "manufacturer", "model", "slot-id", "slot-manufacturer", "slot-description"})
_LIBRARY = frozenset({"library-manufacturer", "library-description", "library-version"})
_PATH = _TOKEN | _LIBRARY | {"object", "id", "type"}
_TYPES = ("private", "cert")
_BROKEN_ESCAPE = re.compile(r"%(?![0-9A-Fa-f]{2})")


@dataclass(frozen=True, slots=True)
class Pkcs11Uri:
    """The attributes that choose. Empty: any; `slot_id` None: any."""

    text: str
    token: str = ""
    serial: str = ""
    manufacturer: str = ""
    model: str = ""
    slot_id: int | None = None
    object: str = ""
    id: bytes = b""
    module_path: str = ""

    def __str__(self) -> str:
        return self.text


def parse_uri(text: str) -> Pkcs11Uri:
    """Read a URI. Raises `ConfigError`."""
    scheme, _, rest = text.partition(":")
    if scheme.lower() != "pkcs11" or len(text) > MOST_CHARACTERS or not text.isprintable():
        raise _wrong("this is no PKCS#11 URI", text)
    path, _, query = rest.partition("?")
    attributes = _attributes(text, path, ";")
    for name in attributes:
        if name not in _PATH and not name.startswith("x-"):
            raise _wrong(f"it has an attribute that RFC 7512 does not know, {name!r}", text)
    if (unused := sorted(attributes.keys() & (_LIBRARY | {"slot-manufacturer", "slot-description"}))) != []:
        raise _wrong(f"`{unused[0]}` is not looked at here", text, "name the token by `token` or `serial`")
    if "type" in attributes and attributes["type"].decode("latin-1") not in _TYPES:
        raise _wrong("it names neither a private key nor a certificate", text, "leave `type` out")
    questions = _attributes(text, query, "&")
    for name in sorted(questions.keys() & {"pin-value", "pin-source"}):
        raise _wrong(f"a PIN does not belong into the URI (`{name}`)", "", "write it into `pin`")
    if questions.keys() - {"module-path"}:
        raise _wrong(
            f"`{sorted(questions.keys() - {'module-path'})[0]}` is not looked at here", text, "use `module-path`"
        )
    words = {
        name: _word(text, attributes.get(name, b"")) for name in ("token", "serial", "manufacturer", "model", "object")
    }
    return Pkcs11Uri(
        text,
        **words,
        slot_id=_slot(text, attributes.get("slot-id")),
        id=attributes.get("id", b""),
        module_path=_word(text, questions.get("module-path", b"")),
    )


def _attributes(text: str, part: str, separator: str) -> dict[str, bytes]:
    found: dict[str, bytes] = {}
    for piece in filter(None, part.split(separator)):
        name, equals, value = piece.partition("=")
        if not equals or not name or name in found:
            raise _wrong("an attribute is not `name=value`, or is there twice", "" if "pin" in name else text)
        if _BROKEN_ESCAPE.search(value):
            raise _wrong("a `%` is not followed by two hexadecimal digits", "" if "pin" in name else text)
        found[name] = unquote_to_bytes(value)
    return found


def _word(text: str, value: bytes) -> str:
    try:
        return value.decode()
    except UnicodeDecodeError:
        raise _wrong("a name in it is not UTF-8", text) from None


def _slot(text: str, value: bytes | None) -> int | None:
    if value is None:
        return None
    if not value.isdigit() or len(value) > 18:
        raise _wrong("`slot-id` is no number", text)
    return int(value)


def _wrong(reason: str, got: str, remedy: str = "") -> ConfigError:
    return ConfigError(
        reason,
        expected=f"a PKCS#11 URI such as {EXAMPLE!r}",
        got=got[:100] if got.isprintable() else "",
        remedy=remedy or "correct the URI (`p11tool --list-tokens` shows those of the tokens that are there)",
    )
