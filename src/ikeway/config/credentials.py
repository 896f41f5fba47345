"""Certificates, keys and CRLs from the files that a configuration names."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TypeVar

from cryptography import x509
from cryptography.utils import CryptographyDeprecationWarning

from ikeway.auth.certificate import CertificateCredential, CertificatePolicy, TrustStore
from ikeway.auth.parse import (
    PasswordNeeded,
    parse_certificates,
    parse_crls,
    parse_pkcs12,
    parse_private_key,
)
from ikeway.config.pkcs11.uri import Pkcs11Uri
from ikeway.config.reading import Location, Problems
from ikeway.config.secrets import Prompt, SecretSource, read_private
from ikeway.errors import ConfigError, HostError

Parsed = TypeVar("Parsed")

SYSTEM_AUTHORITIES = (
    Path("/etc/ssl/certs/ca-certificates.crt"),  # Debian, Alpine, Arch
    Path("/etc/pki/tls/certs/ca-bundle.crt"),  # Fedora, RHEL
    Path("/etc/ssl/ca-bundle.pem"),  # SUSE
    Path("/etc/ssl/cert.pem"),  # BSD, macOS
)
MAX_OCTETS = 64 << 20
_PASSWORD_TRIES = 3
_PIN_TRIES = 2


def system_authorities(problems: Problems, at: Location) -> tuple[Path, ...]:
    """The file with the authorities that this system trusts."""
    for path in SYSTEM_AUTHORITIES:
        if path.exists():
            return (path,)
    problems.add(
        at,
        "no authorities are named, and this system has no list of public ones",
        expected=" or ".join(str(path) for path in SYSTEM_AUTHORITIES),
        remedy="name the gateway's authority in `ca`, or install the package ca-certificates",
    )
    return ()


def load_trust(
    problems: Problems,
    at: Location,
    *,
    authorities: Sequence[Path],
    crls: Sequence[Path] = (),
    policy: CertificatePolicy,
    keys: tuple[str, str] = ("ca", "crls"),
) -> TrustStore | None:
    """The trust in those authorities; None after a problem was noted. `keys`: where they stand below `at`."""
    before = len(problems.errors)
    anchors = [found for path in authorities for found in _parse(problems, (*at, keys[0]), path, parse_certificates)]
    lists = [found for path in crls for found in _parse(problems, (*at, keys[1]), path, parse_crls)]
    # An intermediate in the file of authorities is an anchor too: whoever names it trusts it.
    if len(problems.errors) > before or not anchors:
        return None
    return TrustStore(tuple(anchors), tuple(lists), policy=policy)


def load_credential(
    problems: Problems,
    at: Location,
    *,
    certificate: Path | None,
    key: Path | None,
    pkcs12: Path | None,
    password: SecretSource | None,
    prompt: Prompt | None,
    pkcs11: Pkcs11Uri | None = None,
    pin: SecretSource | None = None,
) -> CertificateCredential | None:
    """Our certificate and its key; None after a problem was noted. A token (`pkcs11`) has the key, and as a rule the
    certificate."""
    unlock = _Unlock(password, prompt)
    try:
        if pkcs11 is not None:
            at_key: Location = (*at, "pkcs11")
            own = _parse(problems, (*at, "certificate"), certificate, parse_certificates) if certificate else ()
            return None if certificate and not own else _from_token(pkcs11, own, pin, prompt)
        if pkcs12 is not None:
            at_key = (*at, "pkcs12")
            octets = read_private(pkcs12)
            bundle = unlock(pkcs12, functools.partial(parse_pkcs12, octets))
            return CertificateCredential(bundle.chain, bundle.private_key)
        if certificate is None:
            return None
        at_key = (*at, "key" if key is not None else "certificate")
        chain = _parse(problems, (*at, "certificate"), certificate, parse_certificates)
        file = key or certificate
        private_key = unlock(file, functools.partial(parse_private_key, read_private(file)))
        return CertificateCredential(tuple(chain), private_key) if chain else None
    except (ConfigError, HostError) as error:
        problems.add(at_key, error.reason, expected=error.expected, got=error.got, remedy=error.remedy)
        return None


def _from_token(
    uri: Pkcs11Uri, own: Sequence[x509.Certificate], pin: SecretSource | None, prompt: Prompt | None
) -> CertificateCredential:
    from ikeway.config.pkcs11.token import open_token

    def ask(attempt: int) -> str | None:
        if pin is not None:
            return pin.read("PIN") if attempt == 1 else None  # tokens lock themselves after a few wrong ones
        if prompt is None:
            raise ConfigError(
                f"the PIN of {uri} is needed, and there is nobody to ask",
                expected="`pin`, from a file, a command or the keyring",
                remedy="name it in `pin`, or run it at a terminal",
            )
        return prompt(f"PIN of {uri.token or uri}: ") if attempt <= _PIN_TRIES else None

    signer = open_token(uri, ask, tuple(own))
    return CertificateCredential(signer.chain, signer)


class _Unlock:
    """Parses what may be encrypted, with the password from where the configuration says or from a person."""

    def __init__(self, source: SecretSource | None, prompt: Prompt | None) -> None:
        self._source = source
        self._prompt = prompt

    def __call__(self, path: Path, parse: Callable[[bytes | None], Parsed]) -> Parsed:
        if self._source is not None:
            return self._named(path, parse, self._source.read("password of the key").encode())
        try:
            return self._named(path, parse, None)
        except PasswordNeeded:
            if self._prompt is None:
                raise ConfigError(
                    f"the key in {path} is encrypted",
                    expected="its password",
                    remedy="name it in `key_password`, or run `ikeway up` at a terminal",
                ) from None
        for attempt in range(1, _PASSWORD_TRIES + 1):
            try:
                return self._named(path, parse, self._prompt(f"Password of the key {path}: ").encode())
            except PasswordNeeded:
                if attempt == _PASSWORD_TRIES:
                    raise
        raise AssertionError("the last attempt returns or raises")

    @staticmethod
    def _named(path: Path, parse: Callable[[bytes | None], Parsed], password: bytes | None) -> Parsed:
        try:
            return parse(password)
        except ConfigError as error:
            error.reason = f"{path}: {error.reason}"
            raise


def _parse(
    problems: Problems, at: Location, path: Path, parse: Callable[[bytes], Iterable[Parsed]]
) -> tuple[Parsed, ...]:
    try:
        with path.open("rb") as file:
            octets = file.read(MAX_OCTETS)
    except OSError as error:
        problems.add(at, f"{path} cannot be read: {error.strerror}", remedy="check the name, owner and permissions")
        return ()
    try:
        with warnings.catch_warnings():
            # Old roots that every system trusts have serial numbers which cryptography grumbles about.
            warnings.simplefilter("ignore", CryptographyDeprecationWarning)
            return tuple(parse(octets))
    except ConfigError as error:
        problems.add(at, f"{path}: {error.reason}", expected=error.expected, got=error.got, remedy=error.remedy)
        return ()


def expiry_warnings(chain: Sequence[x509.Certificate], days: int = 14) -> list[str]:
    """What is to be said of certificates that end soon, or have ended."""
    from datetime import UTC, datetime, timedelta

    now = datetime.now(UTC)
    found = []
    for certificate in chain:
        name = certificate.subject.rfc4514_string() or "a certificate"
        end = certificate.not_valid_after_utc
        if end < now:
            found.append(f"the certificate of {name} ended on {end:%Y-%m-%d}: peers will refuse it")
        elif end < now + timedelta(days=days):
            found.append(f"the certificate of {name} ends on {end:%Y-%m-%d}: renew it")
    return found
