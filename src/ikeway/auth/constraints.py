"""Name constraints (RFC 5280 section 4.2.1.10): which names the CAs above may certify."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from urllib.parse import urlsplit

from cryptography import x509

from ikeway.auth.binding import alternative_names, common_names, describe, subject_of
from ikeway.auth.errors import NameConstraintViolated
from ikeway.auth.names import decode_name
from ikeway.errors import Side

_EMAIL = "1.2.840.113549.1.9.1"
_UNDERSTOOD = (
    x509.DNSName,
    x509.RFC822Name,
    x509.IPAddress,
    x509.DirectoryName,
    x509.UniformResourceIdentifier,
)


def constrained_names(certificate: x509.Certificate, *, common_name: bool = False) -> list[x509.GeneralName]:
    """All names that constraints apply to: subject, subjectAltName, and mail addresses in the subject.

    With `common_name` also the CN as a host name, because then it can prove one.
    """
    names: list[x509.GeneralName] = []
    if len(certificate.subject.rdns):
        names.append(x509.DirectoryName(certificate.subject))
    alternatives = list(alternative_names(certificate) or ())
    names += alternatives
    if not any(isinstance(name, x509.RFC822Name) for name in alternatives):
        for parts in subject_of(certificate).relative_names:
            addresses = [part.value for part in parts if part.oid == _EMAIL and isinstance(part.value, str)]
            names += [x509.RFC822Name(address) for address in addresses if address.isascii()]
    if common_name:
        names += [x509.DNSName(name) for name in common_names(certificate) if name.isascii()]
    return names


def check_names(
    certificate: x509.Certificate, constraints: x509.NameConstraints, authority: str, *, common_name: bool = False
) -> None:
    """Raise NameConstraintViolated when a name of the certificate lies outside what `authority` may certify."""
    for name in constrained_names(certificate, common_name=common_name):
        if _matches_any(name, constraints.excluded_subtrees or ()):
            raise _violated(certificate, name, authority, "an excluded one")
        permitted = [tree for tree in constraints.permitted_subtrees or () if isinstance(tree, type(name))]
        if permitted and not _matches_any(name, permitted):
            raise _violated(certificate, name, authority, "none of the permitted")


def _violated(
    certificate: x509.Certificate, name: x509.GeneralName, authority: str, where: str
) -> NameConstraintViolated:
    text = str(decode_name(name.value.public_bytes())) if isinstance(name, x509.DirectoryName) else str(name.value)
    error = NameConstraintViolated(
        f"{authority} may not certify the name {text!r} of {describe(certificate)}",
        expected="a name within the name constraints of the CA",
        got=f"{text!r}, which is {where}",
        side=Side.PEER,
        remedy="have the certificate issued by a CA that may certify this name",
    )
    error.subject = describe(certificate)
    return error


def _matches_any(name: x509.GeneralName, trees: Iterable[x509.GeneralName]) -> bool:
    return any(isinstance(tree, type(name)) and _within(name, tree) for tree in trees)


def _within(name: x509.GeneralName, tree: x509.GeneralName) -> bool:
    if isinstance(name, x509.DNSName) and isinstance(tree, x509.DNSName):
        return _host_within(name.value, tree.value)
    if isinstance(name, x509.RFC822Name) and isinstance(tree, x509.RFC822Name):
        return _mail_within(name.value, tree.value)
    if isinstance(name, x509.IPAddress) and isinstance(tree, x509.IPAddress):
        return _address_within(name.value, tree.value)
    if isinstance(name, x509.DirectoryName) and isinstance(tree, x509.DirectoryName):
        return decode_name(name.value.public_bytes()).is_within(decode_name(tree.value.public_bytes()))
    if isinstance(name, x509.UniformResourceIdentifier) and isinstance(tree, x509.UniformResourceIdentifier):
        return _uri_within(name.value, tree.value)
    # A kind of name that we cannot compare: treated as within, so that an excluded tree of its kind excludes it. A
    # permitted tree of such a kind makes the extension one that is not understood, see `unsupported_subtree`.
    return True


def _host_within(host: str, tree: str) -> bool:
    host, tree = host.lower().rstrip("."), tree.lower().strip(".")
    return not tree or host == tree or host.endswith("." + tree)


def _uri_within(uri: str, tree: str) -> bool:
    try:
        host = urlsplit(uri).hostname or ""
    except ValueError:
        return False
    if tree.startswith("."):
        return host.lower().endswith(tree.lower())
    return host.lower() == tree.lower()


def _mail_within(address: str, tree: str) -> bool:
    local, _, host = address.rpartition("@")
    if "@" in tree:
        tree_local, _, tree_host = tree.rpartition("@")
        return local == tree_local and host.lower() == tree_host.lower()
    if tree.startswith("."):
        return host.lower().endswith(tree.lower())
    return host.lower() == tree.lower()


def _address_within(address: object, tree: object) -> bool:
    if isinstance(tree, ipaddress.IPv4Network | ipaddress.IPv6Network) and isinstance(
        address, ipaddress.IPv4Address | ipaddress.IPv6Address
    ):
        return address in tree
    return False


def unsupported_subtree(constraints: x509.NameConstraints) -> str:
    """Name a kind of subtree that cannot be checked here; empty when all can."""
    for tree in (*(constraints.permitted_subtrees or ()), *(constraints.excluded_subtrees or ())):
        if not isinstance(tree, _UNDERSTOOD):
            return type(tree).__name__
    return ""
