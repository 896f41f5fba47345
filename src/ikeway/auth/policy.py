"""How strictly certificates are judged, and in which role their owners stand."""

from __future__ import annotations

import enum
from dataclasses import dataclass


class Role(enum.Enum):
    """What the owner of a certificate is in the exchange."""

    INITIATOR = "initiator"
    RESPONDER = "responder"


@dataclass(frozen=True, slots=True, kw_only=True)
class CertificatePolicy:
    """How strict to be. The defaults suit the certificates that VPN gateways and clients have today."""

    require_server_eku: bool = False  # a responder must have serverAuth, ipsecIKE or iKEIntermediate in an EKU
    ignore_eku: bool = False  # whatever the extended key usage says is fine
    require_crl: bool = False  # every certificate below the anchor needs a fresh CRL that does not list it
    allow_wildcards: bool = False  # a dNSName *.example.org proves vpn.example.org
    allow_common_name: bool = False  # a host name in the CN counts as proof
    allow_sha1: bool = False
    allow_md5: bool = False
    minimum_rsa_bits: int = 2048
    max_certificates: int = 10  # in a path, anchor and end entity included
