"""Keys, certificates and CRLs made for a VPN: enough to run one without another tool."""

from ikeway.pki.authority import (
    AUTHORITY_DAYS,
    CLIENT_DAYS,
    CRL_DAYS,
    GATEWAY_DAYS,
    REVOCATION_REASONS,
    Authority,
    Revocation,
    encode_certificates,
)
from ikeway.pki.directory import Issued, Made, PkiDirectory
from ikeway.pki.keys import DEFAULT_KEY, KeyKind, describe_key, encode_private_key, generate_key
from ikeway.pki.pkcs12 import export_pkcs12

__all__ = [
    "AUTHORITY_DAYS",
    "CLIENT_DAYS",
    "CRL_DAYS",
    "DEFAULT_KEY",
    "GATEWAY_DAYS",
    "REVOCATION_REASONS",
    "Authority",
    "Issued",
    "KeyKind",
    "Made",
    "PkiDirectory",
    "Revocation",
    "describe_key",
    "encode_certificates",
    "encode_private_key",
    "export_pkcs12",
    "generate_key",
]
