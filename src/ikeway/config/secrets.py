"""Where secrets come from: the (private) file itself, another file, a command, the keyring, or a person.

Never from arguments: other users see them. A file with a secret must not be readable by others.
"""

from __future__ import annotations

import base64
import binascii
import os
import shlex
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from pydantic import BeforeValidator, Field, SecretStr, ValidationInfo

from ikeway.config.fields import FilePath, Kind, Listed, Section, refuse
from ikeway.errors import ConfigError

if TYPE_CHECKING:
    from ikeway.config.reading import Context

COMMAND_SECONDS = 120.0  # a password manager may want to be unlocked first
MAX_SECRET_OCTETS = 1 << 20
KEYRING_SERVICE = "ikeway"
_SOURCES = "{ file = ... }, { command = ... }, { keyring = ... }"
SOURCE_TEXT = f"a text (the file must be readable by its owner only), or {_SOURCES}"

Prompt = Callable[[str], str]


class SecretSource(Section):
    """One secret, or where to get it."""

    value: SecretStr | None = Field(default=None, description="The secret itself.")
    file: FilePath | None = Field(
        default=None, description="A file with the secret and nothing else; only its owner may read it."
    )
    command: Listed[str] | None = Field(
        default=None, description="A program and its arguments; the first line that it prints is the secret."
    )
    keyring: str | None = Field(
        default=None,
        description=(
            "The name of an entry of service `ikeway` in the desktop's keyring (`pip install 'ikeway[keyring]'`)."
        ),
    )

    def read(self, what: str) -> str:
        """Fetch the secret; `what` names it in errors. May take long: not for an event loop. Raises `ConfigError`."""
        if self.value is not None:
            return self.value.get_secret_value()
        if self.file is not None:
            return self._decode(read_private(self.file), what).removesuffix("\n").removesuffix("\r")
        if self.command is not None:
            return self._run(self.command, what)
        return self._look_up(self.keyring or "", what)

    @staticmethod
    def _decode(octets: bytes, what: str) -> str:
        try:
            return octets.decode()
        except UnicodeDecodeError:
            raise ConfigError(f"the {what} is not UTF-8 text", remedy="save it as UTF-8") from None

    def _run(self, command: tuple[str, ...], what: str) -> str:
        words = shlex.split(command[0]) if len(command) == 1 else list(command)
        shown = shlex.join(words)
        try:
            # Standard error and input stay the user's, so that a password manager can ask for its own password.
            done = subprocess.run(words, stdout=subprocess.PIPE, timeout=COMMAND_SECONDS, check=False)
        except FileNotFoundError:
            raise ConfigError(
                f"the command for the {what} was not found: {words[0]}", remedy="install it or correct its name"
            ) from None
        except subprocess.TimeoutExpired:
            raise ConfigError(
                f"the command for the {what} took longer than {COMMAND_SECONDS:.0f} s: {shown}",
                remedy="run it by hand to see why",
            ) from None
        except OSError as error:
            raise ConfigError(
                f"the command for the {what} could not be run: {error.strerror}: {shown}", remedy="run it by hand"
            ) from None
        if done.returncode != 0:
            raise ConfigError(
                f"the command for the {what} failed with exit code {done.returncode}: {shown}",
                remedy="run it by hand to see why",
            )
        lines = self._decode(done.stdout, what).splitlines()
        if not lines or not lines[0]:
            raise ConfigError(f"the command for the {what} printed nothing: {shown}", remedy="let it print the secret")
        return lines[0]

    @staticmethod
    def _look_up(entry: str, what: str) -> str:
        try:
            import keyring
            import keyring.errors
        except ImportError:
            raise ConfigError(
                f"the {what} is in the keyring, and the keyring library is not installed",
                remedy="pip install 'ikeway[keyring]'",
            ) from None
        try:
            secret = keyring.get_password(KEYRING_SERVICE, entry)
        except keyring.errors.KeyringError as error:
            raise ConfigError(
                f"the keyring did not give the {what}: {error}", remedy="unlock the keyring, or use a file or a command"
            ) from None
        if secret is None:
            raise ConfigError(
                f"the keyring has no entry {entry!r} of service {KEYRING_SERVICE!r}",
                remedy=f"store it: keyring set {KEYRING_SERVICE} {shlex.quote(entry)}",
            )
        return str(secret)


def _as_source(value: object, info: ValidationInfo) -> object:
    context: Context | None = info.context
    if isinstance(value, str):
        if not value:
            refuse("the secret is empty", expected=SOURCE_TEXT)
        if context is not None and context.exposure is not None:
            why, remedy = context.exposure
            refuse(
                f"a secret stands in {context.file.name}, and {why}",
                expected="a file of this user or root that nobody else may read",
                remedy=remedy,
            )
        return {"value": SecretStr(value)}
    if not isinstance(value, dict):
        refuse("this is no secret", expected=SOURCE_TEXT)
    if set(value) - {"file", "command", "keyring"} or len(value) != 1:
        refuse("one source is needed", expected=SOURCE_TEXT)
    return value


Secret = Annotated[SecretSource, BeforeValidator(_as_source), Kind(SOURCE_TEXT, secret=True)]


def read_private(path: Path) -> bytes:
    """The content of a file that only its owner may read. Raises `ConfigError` with the remedy."""
    from ikeway.config.reading import exposure, is_private

    try:
        with path.open("rb") as file:
            status = os.fstat(file.fileno())
            octets = file.read(MAX_SECRET_OCTETS + 1)
    except OSError as error:
        raise ConfigError(
            f"the file with the secret cannot be read: {error.strerror}",
            file=str(path),
            remedy="check its name, owner and permissions",
        ) from None
    if not is_private(status):
        why, remedy = exposure(path, status)
        raise ConfigError(
            f"this file holds a secret, and {why}",
            file=str(path),
            expected="mode 0600, owned by this user or root",
            got=f"mode {status.st_mode & 0o7777:04o}, owner {status.st_uid}",
            remedy=remedy,
        )
    if len(octets) > MAX_SECRET_OCTETS:
        raise ConfigError(
            f"the file is larger than {MAX_SECRET_OCTETS} octets", file=str(path), remedy="check its name"
        )
    return octets


def shared_secret(text: str) -> bytes:
    """Octets of a pre-shared key: "0x..." is hexadecimal, "0s..." base64, anything else the text itself (UTF-8)."""
    try:
        if text.startswith("0x"):
            return bytes.fromhex(text[2:])
        if text.startswith("0s"):
            return base64.b64decode(text[2:], validate=True)
    except (ValueError, binascii.Error):
        raise ConfigError(
            'a shared secret that begins with "0x" or "0s" is not hexadecimal or base64',
            expected='"0x" and hexadecimal, "0s" and base64, or a text',
            remedy="correct it, or write the text itself as 0x",
        ) from None
    return text.encode()
