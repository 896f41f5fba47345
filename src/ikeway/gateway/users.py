"""Users: who they are, what proves it, which addresses are theirs.

`UserStore` is what the gateway needs; a file serves small sites, a database can serve large ones.
"""

from __future__ import annotations

import asyncio
import functools
import ipaddress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Protocol

from pydantic import Field, PlainValidator, SecretStr

from ikeway.auth.totp import SECRET_TEXT, Totp
from ikeway.config import fields
from ikeway.config.fields import Kind, Section
from ikeway.config.reading import Document, read_document, validate
from ikeway.config.secrets import shared_secret
from ikeway.crypto.milenage import derive_opc
from ikeway.daemon.threads import in_thread
from ikeway.errors import ConfigError, ConfigErrors
from ikeway.gateway.edit_users import edit_user

EVERYONE = "%any"  # an entry whose shared secret serves all who have no entry of their own


@dataclass(frozen=True, slots=True)
class CardKeys:
    """What is known of a user's SIM card: K (Ki), OPc, and the AMF of vectors for it (TS 35.206)."""

    ki: bytes = field(repr=False)
    opc: bytes = field(repr=False)
    amf: bytes = bytes(2)


@dataclass(frozen=True, slots=True, kw_only=True)
class User:
    """One user."""

    name: str
    password: str | None = field(default=None, repr=False)
    nt_hash: bytes | None = field(default=None, repr=False)
    psk: bytes | None = field(default=None, repr=False)
    ipv4: ipaddress.IPv4Address | None = None
    ipv6: ipaddress.IPv6Address | None = None
    totp: Totp | None = field(default=None, repr=False)
    must_change: bool = False
    card: CardKeys | None = field(default=None, repr=False)
    disabled: bool = False


class UserStore(Protocol):
    """Where users are looked up. May be slow; may raise `HostError` when it cannot be reached."""

    async def find(self, name: str) -> User | None:
        """The user of that name (an identity's text, an EAP user name), without regard to case; None when unknown."""
        ...

    async def set_password(self, name: str, password: str) -> None:
        """Keep another password for a user, who need not change it any more. Raises `IkewayError` when it cannot."""
        ...


def _hidden(parse_text: str, pattern: str) -> PlainValidator:
    import re

    def check(value: object) -> SecretStr:
        if not isinstance(value, str) or not re.fullmatch(pattern, value, re.DOTALL):
            fields.refuse("this is not what is expected here", expected=parse_text)
        return SecretStr(value)

    return PlainValidator(check)


def _check_psk(value: object) -> SecretStr:
    if not isinstance(value, str) or not value:
        fields.refuse("a text is needed", expected=PSK_TEXT)
    try:
        shared_secret(value)
    except ConfigError as error:
        fields.refuse_error(error)
    return SecretStr(value)


def _check_totp(value: object) -> SecretStr:
    if not isinstance(value, str):
        fields.refuse("a text is needed", expected=SECRET_TEXT)
    try:
        Totp.parse(value)
    except ConfigError as error:
        fields.refuse_error(error)
    return SecretStr(value)


PASSWORD_TEXT = "a text of 1 to 256 characters"  # noqa: S105 - not one
PSK_TEXT = 'a text, or octets as "0x..." or base64 as "0s..."'
HASH_TEXT = "32 hexadecimal digits"
Password = Annotated[SecretStr, _hidden(PASSWORD_TEXT, ".{1,256}"), Kind(PASSWORD_TEXT, secret=True)]
NtHash = Annotated[SecretStr, _hidden(HASH_TEXT, "[0-9A-Fa-f]{32}"), Kind(HASH_TEXT, secret=True)]
Psk = Annotated[SecretStr, PlainValidator(_check_psk), Kind(PSK_TEXT, secret=True)]
CardKey = Annotated[SecretStr, _hidden(HASH_TEXT, "[0-9A-Fa-f]{32}"), Kind(HASH_TEXT, secret=True)]
Amf = Annotated[str, Field(pattern="^[0-9A-Fa-f]{4}$"), Kind("4 hexadecimal digits")]
TotpSecret = Annotated[SecretStr, PlainValidator(_check_totp), Kind(SECRET_TEXT, secret=True)]


class UserPart(Section):
    """One user."""

    password: Password | None = Field(default=None, description="The password for EAP.")
    nt_hash: NtHash | None = Field(default=None, description="In place of `password`: its NT hash (MD4 of UTF-16LE).")
    psk: Psk | None = Field(
        default=None, description="The pre-shared key. The user `%any` has the one of all who have none of their own."
    )
    ipv4: fields.Address | None = Field(default=None, description="The IPv4 address that this user always gets.")
    ipv6: fields.Address | None = Field(default=None, description="The IPv6 address that this user always gets.")
    totp: TotpSecret | None = Field(
        default=None,
        description=(
            "A second factor: what this user's authenticator app knows. `ikeway user totp NAME` makes one. The user then "
            "needs a code with the password, and gets in by no method that cannot ask for one."
        ),
    )
    must_change: bool = Field(
        default=False,
        description=(
            "The password lets nobody in before it is changed, which the client can do while it logs in "
            "(EAP-MSCHAPv2). The new one is written into this file."
        ),
    )
    ki: CardKey | None = Field(
        default=None,
        description=(
            "The subscriber key K (Ki) of this user's SIM card, for `eap-aka-prime`, `eap-aka` and `eap-sim` with "
            "Milenage. The user's name is the IMSI, or the whole permanent identity."
        ),
    )
    opc: CardKey | None = Field(default=None, description="Beside `ki`: OPc.")
    op: CardKey | None = Field(default=None, description="In place of `opc`: the operator's OP.")
    amf: Amf = Field(
        default="0000",
        description="Beside `ki`: AMF of the vectors. Its first bit (8000) is set and cleared as the method wants it.",
    )
    disabled: bool = Field(default=False, description="Refuse this user, whatever proves who it is.")


class UsersFile(Section):
    """A users file."""

    users: dict[str, UserPart] = Field(default={}, description='Users by name: `[users."alice@example.com"]`.')


class FileUserStore:
    """The users of a file. `path` None: they stand in no file, and passwords cannot be changed."""

    def __init__(self, users: dict[str, User], path: Path | None = None) -> None:
        """Take users by their name; names are compared without case."""
        self._users = {name.casefold(): user for name, user in users.items()}
        self._path = path
        self._writing = asyncio.Lock()

    async def find(self, name: str) -> User | None:
        """The user of that name."""
        return self._users.get(name.casefold())

    async def set_password(self, name: str, password: str) -> None:
        """Write another password into the file."""
        user = self._users.get(name.casefold())
        if user is None or self._path is None:
            raise ConfigError("there is no file to keep the password in", remedy="set the password by hand")
        changes = {"password": password, "nt_hash": None, "must_change": None}
        async with self._writing:
            await in_thread(functools.partial(edit_user, self._path, user.name, changes))
        self._users[name.casefold()] = replace(user, password=password, nt_hash=None, must_change=False)

    @property
    def all(self) -> tuple[User, ...]:
        """All users, for checks of the configuration."""
        return tuple(self._users.values())


def load_users(path: Path) -> FileUserStore:
    """Read a users file, which only its owner may read. Raises `ConfigError`."""
    document = read_document(path)
    file, problems = validate(document, UsersFile)
    if not document.private:
        why, remedy = document.exposure()
        exposed = ConfigError(
            f"the users file holds passwords, and {why}",
            file=str(path),
            expected="mode 0600, owned by this user or root",
            remedy=remedy,
        )
        problems.errors.insert(0, exposed)
    users: dict[str, User] = {}
    for name, part in (file.users if file is not None else {}).items():
        problems.errors.extend(_mistakes(document, name, part, users))
        users[name.casefold()] = _user(name, part)
    if problems.errors:
        raise ConfigErrors(problems.errors)
    return FileUserStore(users, path)


def _user(name: str, part: UserPart) -> User:
    return User(
        name=name,
        password=part.password.get_secret_value() if part.password else None,
        nt_hash=bytes.fromhex(part.nt_hash.get_secret_value()) if part.nt_hash else None,
        psk=shared_secret(part.psk.get_secret_value()) if part.psk else None,
        ipv4=part.ipv4 if isinstance(part.ipv4, ipaddress.IPv4Address) else None,
        ipv6=part.ipv6 if isinstance(part.ipv6, ipaddress.IPv6Address) else None,
        totp=Totp.parse(part.totp.get_secret_value()) if part.totp else None,
        must_change=part.must_change,
        card=_card(part),
        disabled=part.disabled,
    )


def _card(part: UserPart) -> CardKeys | None:
    if part.ki is None or (part.opc is None and part.op is None):
        return None
    ki, op = bytes.fromhex(part.ki.get_secret_value()), part.op
    opc = bytes.fromhex(part.opc.get_secret_value()) if part.opc is not None else b""
    return CardKeys(
        ki,
        derive_opc(ki, bytes.fromhex(op.get_secret_value())) if op is not None else opc,
        bytes.fromhex(part.amf),
    )


def _mistakes_of_card(document: Document, at: tuple[str, ...], part: UserPart) -> list[ConfigError]:
    wrong = "`{}` belongs to a SIM card, and there is no `ki`"
    found = [
        document.error((*at, key), wrong.format(key), remedy="add `ki`")
        for key in ("opc", "op", "amf")
        if key in part.model_fields_set and part.ki is None
    ]
    if part.opc is not None and part.op is not None:
        found.append(document.error((*at, "op"), "there are both `opc` and `op`", remedy="remove one"))
    if part.ki is not None and part.opc is None and part.op is None:
        found.append(document.error((*at, "ki"), "there is `ki` without `opc` or `op`", remedy="add `opc`"))
    return found


def _mistakes(document: Document, name: str, part: UserPart, earlier: dict[str, User]) -> list[ConfigError]:
    found = []
    at = ("users", name)
    if name.casefold() in earlier:
        found.append(document.error(at, f"there are two users {name!r} (case does not count)", remedy="remove one"))
    if part.password is not None and part.nt_hash is not None:
        found.append(document.error((*at, "nt_hash"), "there are both `password` and `nt_hash`", remedy="remove one"))
    for key, kind in (("ipv4", ipaddress.IPv4Address), ("ipv6", ipaddress.IPv6Address)):
        address = getattr(part, key)
        if address is not None and not isinstance(address, kind):
            found.append(
                document.error((*at, key), f"{address} is no {key} address", remedy="move it to the other key")
            )
    for key in ("totp", "must_change"):
        if key in part.model_fields_set and part.password is None and part.nt_hash is None:
            found.append(
                document.error((*at, key), f"`{key}` belongs to a password, and there is none", remedy="add `password`")
            )
    found += _mistakes_of_card(document, at, part)
    own = (part.ki, part.password, part.nt_hash, part.ipv4, part.ipv6)
    if name == EVERYONE and any(value is not None for value in own):
        found.append(document.error(at, f"{EVERYONE} can have a `psk` only", remedy="remove the other keys"))
    return found
