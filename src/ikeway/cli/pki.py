"""`ikeway pki`: a CA of one's own, and certificates for gateways and clients."""

from __future__ import annotations

import enum
import json
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ikeway.cli.errors import guarded, printable
from ikeway.pki.keys import DEFAULT_KEY, KeyKind

if TYPE_CHECKING:
    from collections.abc import Callable

    from cryptography import x509

    from ikeway.auth.parse import PrivateKey
    from ikeway.pki import Authority, Issued, Made, PkiDirectory

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode="rich",
    help="Make a CA, and certificates for gateways and clients.\n\n"
    "[bold]Example[/bold]: a CA, a gateway, and a client's file to import on a phone\n\n"
    '  ikeway pki ca "Example VPN"\n\n'
    "  ikeway pki gateway vpn.example.org\n\n"
    "  ikeway pki client alice@example.org --pkcs12",
)


class Reason(enum.StrEnum):
    """Reasons of RFC 5280 section 5.3.1 that make sense for a VPN."""

    KEY_COMPROMISE = "keyCompromise"
    CA_COMPROMISE = "cACompromise"
    AFFILIATION_CHANGED = "affiliationChanged"
    SUPERSEDED = "superseded"
    CESSATION_OF_OPERATION = "cessationOfOperation"
    CERTIFICATE_HOLD = "certificateHold"
    PRIVILEGE_WITHDRAWN = "privilegeWithdrawn"


Directory = Annotated[Path, typer.Option("--dir", "-d", metavar="DIR", help="Where the CA lives.")]
Key = Annotated[
    KeyKind,
    typer.Option("--key", help="Kind of the key. RSA is what every client can check; ECDSA signs much faster."),
]
Days = Annotated[int, typer.Option("--days", min=1, help="For how long it is valid.")]
CaPasswordFile = Annotated[
    Path | None,
    typer.Option(
        "--ca-password-file", metavar="FILE", help="The password of the CA's key. It is asked for when this is absent."
    ),
]
Pkcs12PasswordFile = Annotated[
    Path | None,
    typer.Option(
        "--pkcs12-password-file", metavar="FILE", help="The password for the PKCS#12 file; else it is asked for."
    ),
]
Subject = Annotated[
    str, typer.Option("--subject", metavar="DN", help="The whole subject, such as 'O=Example, CN=gateway 1'.")
]
HERE = Path("pki")


@app.command()
@guarded
def ca(
    name: Annotated[str, typer.Argument(help="Its name, or a whole DN ('C=CH, O=Example, CN=VPN CA').")],
    directory: Directory = HERE,
    key: Key = DEFAULT_KEY,
    days: Days = 3650,
    encrypt: Annotated[bool, typer.Option("--encrypt", help="Protect its key with a password.")] = False,
    ca_password_file: CaPasswordFile = None,
) -> None:
    """Make a CA: the one that gateways and clients trust.

    Its certificate (ca.pem) goes to every client and gateway; its key (ca.key) goes nowhere.

    [bold]Examples[/bold]

      ikeway pki ca "Example VPN"                        in the directory ./pki

      ikeway pki ca "Example VPN" --dir /srv/ca --encrypt

      ikeway pki ca "C=CH, O=Example, CN=VPN CA" --key ecdsa-p384 --days 7300
    """
    from ikeway.pki import Authority, PkiDirectory, generate_key

    home = PkiDirectory(directory)
    password = _new_password("for the CA's key", ca_password_file) if encrypt or ca_password_file else None
    home.create(Authority.create(name, generate_key(key), _now(), days=days), password)
    _tell(
        f"made the CA {printable(name)}",
        ("certificate", home.certificate_file, "give it to gateways and clients"),
        ("key", home.key_file, "keep it secret, and a copy of it safe"),
    )


@app.command()
@guarded
def gateway(
    names: Annotated[list[str], typer.Argument(help="Host names and addresses that clients connect to.")],
    directory: Directory = HERE,
    key: Key = DEFAULT_KEY,
    days: Days = 825,
    subject: Subject = "",
    pkcs12: Annotated[bool, typer.Option("--pkcs12", help="Write a PKCS#12 file too.")] = False,
    legacy: Annotated[bool, typer.Option("--legacy", help="Encrypt it as software before 2018 needs it.")] = False,
    ca_password_file: CaPasswordFile = None,
    pkcs12_password_file: Pkcs12PasswordFile = None,
) -> None:
    """Make the certificate of a gateway.

    It carries all names that are given. Clients check that the one they connect to is among them.

    [bold]Examples[/bold]

      ikeway pki gateway vpn.example.org

      ikeway pki gateway vpn.example.org vpn2.example.org 192.0.2.1 --key ecdsa-p256

      ikeway pki gateway vpn.example.org --days 90
    """
    from ikeway.pki import generate_key

    private_key = generate_key(key)

    def issue(authority: Authority) -> x509.Certificate:
        return authority.issue_gateway(names, private_key.public_key(), _now(), days=days, subject=subject)

    made = _issue("gateway", directory, issue, private_key, ca_password_file, pkcs12, pkcs12_password_file, legacy)
    _tell_made(f"made the gateway certificate of {printable(names[0])}", made)
    print(
        f'\nin the gateway\'s configuration:\n\n  [gateway]\n  certificate = "{made.certificate.absolute()}"\n'
        f'  key = "{made.private_key.absolute()}"'
    )


@app.command()
@guarded
def client(
    identity: Annotated[str, typer.Argument(help="Who it is: alice@example.org, laptop7, or a DN.")],
    directory: Directory = HERE,
    key: Key = DEFAULT_KEY,
    days: Days = 825,
    subject: Subject = "",
    pkcs12: Annotated[bool, typer.Option("--pkcs12", help="Write a PKCS#12 file too, for phones and Windows.")] = False,
    legacy: Annotated[
        bool, typer.Option("--legacy", help="Encrypt it with 3DES and SHA-1, which older phones need.")
    ] = False,
    ca_password_file: CaPasswordFile = None,
    pkcs12_password_file: Pkcs12PasswordFile = None,
) -> None:
    """Make the certificate of a client.

    The gateway lets it in when it trusts the CA and the identity fits the connection's `identities`.

    [bold]Examples[/bold]

      ikeway pki client alice@example.org

      ikeway pki client alice@example.org --pkcs12 --key ecdsa-p256

      ikeway pki client "O=Example, CN=laptop 7" --pkcs12-password-file password.txt --pkcs12
    """
    from ikeway.pki import generate_key

    private_key = generate_key(key)

    def issue(authority: Authority) -> x509.Certificate:
        return authority.issue_client(identity, private_key.public_key(), _now(), days=days, subject=subject)

    made = _issue("client", directory, issue, private_key, ca_password_file, pkcs12, pkcs12_password_file, legacy)
    _tell_made(f"made the client certificate of {printable(identity)}", made)


@app.command()
@guarded
def revoke(
    which: Annotated[str, typer.Argument(help="A serial number, a file, or a name in the certificate.")],
    directory: Directory = HERE,
    reason: Annotated[Reason | None, typer.Option("--reason", help="Why.", show_default=False)] = None,
    ca_password_file: CaPasswordFile = None,
) -> None:
    """Take a certificate back, and write a new CRL.

    Gateways refuse it as soon as they have the new crl.pem (a running gateway: after SIGHUP).

    [bold]Examples[/bold]

      ikeway pki revoke alice@example.org --reason keyCompromise

      ikeway pki revoke pki/clients/alice@example.org-2.pem

      ikeway pki revoke 6f3a91b2c4d5
    """
    from ikeway.pki import PkiDirectory

    home = PkiDirectory(directory)
    line = _only_one(home.find(which), which)
    authority = _open(home, ca_password_file)
    with home.locked():
        home.revoke(line.serial, reason.value if reason else "", _now())
        home.write_crl(authority, _now())
    _tell(f"revoked {printable(line.subject)}, serial {line.serial}", ("CRL", home.crl_file, "give it to the gateways"))


@app.command()
@guarded
def crl(
    directory: Directory = HERE,
    days: Annotated[int, typer.Option("--days", min=1, help="For how long it holds.")] = 30,
    ca_password_file: CaPasswordFile = None,
) -> None:
    """Write a new CRL, as before the old one ends.

    [bold]Examples[/bold]

      ikeway pki crl

      ikeway pki crl --days 7 --dir /srv/ca --ca-password-file /root/ca-password
    """
    from ikeway.pki import PkiDirectory

    home = PkiDirectory(directory)
    authority = _open(home, ca_password_file)
    with home.locked():
        made = home.write_crl(authority, _now(), days)
    ends = made.next_update_utc
    until = f", valid until {ends:%Y-%m-%d %H:%M} UTC" if ends else ""
    _tell(f"{len(made)} revoked{until}", ("CRL", home.crl_file, "give it to the gateways"))


@app.command()
@guarded
def show(
    file: Annotated[Path | None, typer.Argument(help="A certificate or CRL, PEM or DER.", show_default=False)] = None,
    directory: Directory = HERE,
    as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
) -> None:
    """Show what the CA has issued, or what is in a file.

    [bold]Examples[/bold]

      ikeway pki show

      ikeway pki show --dir /srv/ca --json

      ikeway pki show pki/gateways/vpn.example.org.pem
    """
    from ikeway.pki import PkiDirectory
    from ikeway.pki.describe import describe_file

    if file is None:
        home = PkiDirectory(directory)
        _show_issued(home.issued(), as_json)
        return
    found = describe_file(_read(file), _now())
    if as_json:
        print(json.dumps(found, indent=2, ensure_ascii=False))
        return
    for index, facts in enumerate(found):
        print(*(["\n"] if index else []), sep="", end="")
        for label, value in facts.items():
            values = value if isinstance(value, list) else [value]
            for number, each in enumerate(values):
                print(f"{label.replace('_', ' ') if number == 0 else '':18} {printable(str(each))}")


def _issue(
    kind: str,
    directory: Path,
    issue: Callable[[Authority], x509.Certificate],
    private_key: PrivateKey,
    ca_password_file: Path | None,
    pkcs12: bool,
    pkcs12_password_file: Path | None,
    legacy: bool,
) -> Made:
    """Issue a certificate and write it down; all that is asked for is asked before the lock is taken."""
    from ikeway.pki import PkiDirectory, export_pkcs12
    from ikeway.pki.authority import common_name_of

    home = PkiDirectory(directory)
    authority = _open(home, ca_password_file)
    certificate = issue(authority)
    bundle = None
    if pkcs12 or pkcs12_password_file is not None:
        password = _new_password("for the PKCS#12 file", pkcs12_password_file)
        name = common_name_of(certificate)
        bundle = export_pkcs12(name, private_key, certificate, [authority.certificate], password, legacy=legacy)
    with home.locked():
        return home.add(kind, authority, certificate, private_key, bundle)


def _open(home: PkiDirectory, password_file: Path | None) -> Authority:
    """The CA, with the password of its key when it has one."""
    from ikeway.auth.parse import PasswordNeeded

    if password_file is not None:
        return home.authority(_password_from(password_file))
    try:
        return home.authority(None)
    except PasswordNeeded:
        return home.authority(_ask("Password of the CA's key: ", "--ca-password-file"))


def _new_password(purpose: str, file: Path | None) -> bytes:
    """A password to set: from a file, or asked for twice."""
    from ikeway.errors import ConfigError

    if file is not None:
        return _password_from(file)
    option = "--ca-password-file" if "CA" in purpose else "--pkcs12-password-file"
    password = _ask(f"New password {purpose}: ", option)
    if not password:
        raise ConfigError("the password is empty", expected="a password")
    if password != _ask("The same once more: ", option):
        raise ConfigError("the two passwords differ", remedy="type the same one twice")
    return password


def _ask(words: str, option: str) -> bytes:
    import getpass

    from ikeway.errors import ConfigError

    if not sys.stdin.isatty():
        raise ConfigError(
            "a password is needed, and there is no terminal to ask at",
            remedy=f"write it to a file of mode 0600 and name that with {option}",
        )
    try:
        return getpass.getpass(words).encode()
    except EOFError:
        raise ConfigError("a password was asked for and not given", remedy="type it") from None


def _password_from(path: Path) -> bytes:
    from ikeway.config.secrets import read_private
    from ikeway.errors import ConfigError

    password = read_private(path).rstrip(b"\r\n")
    if not password:
        raise ConfigError("the file with the password is empty", file=str(path), expected="a password")
    return password


def _only_one(found: list[Issued], wanted: str) -> Issued:
    from ikeway.errors import ConfigError

    if len(found) == 1:
        return found[0]
    if not found:
        raise ConfigError(
            f"nothing that is called {wanted!r} is there to be revoked",
            expected="a serial number, a file or a name of a certificate that is not revoked yet",
            remedy="`ikeway pki show` lists them",
        )
    listed = ", ".join(f"{line.serial} ({line.file})" for line in found)
    raise ConfigError(f"{wanted!r} stands for several certificates: {listed}", remedy="name the serial number")


def _show_issued(lines: list[Issued], as_json: bool) -> None:
    now = _now()
    if as_json:
        from dataclasses import asdict

        print(json.dumps([{**asdict(line), "state": line.state(now)} for line in lines], indent=2, ensure_ascii=False))
        return
    if not lines:
        print("nothing issued yet: `ikeway pki gateway NAME`, `ikeway pki client NAME`")
    for line in lines:
        state = line.state(now) + (f" ({line.reason})" if line.reason else "")
        names = ", ".join(line.names) or line.subject
        print(printable(f"{state:10} {line.kind:8} {names:32} until {line.not_after[:10]}  serial {line.serial}"))


def _tell_made(text: str, made: Made) -> None:
    files = [("certificate", made.certificate, ""), ("key", made.private_key, "secret")]
    if made.pkcs12 is not None:
        files.append(("PKCS#12", made.pkcs12, "key, certificate and CA, to be imported"))
    _tell(text, *files)


def _tell(text: str, *files: tuple[str, Path, str]) -> None:
    print(text)
    for label, path, remark in files:
        print(f"  {label:12} {path}{f'  ({remark})' if remark else ''}")


def _read(path: Path) -> bytes:
    from ikeway.errors import ConfigError

    try:
        return path.read_bytes()
    except OSError as error:
        raise ConfigError(f"it cannot be read: {error.strerror}", file=str(path)) from None


def _now() -> datetime:
    return datetime.now(UTC)
