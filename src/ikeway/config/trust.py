"""How strictly the peer's certificates are judged: the `checks` tables."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from ikeway.auth.certificate import CertificatePolicy
from ikeway.config.fields import Kind, Section, between

KeyBits = Annotated[int, between(1024, 16384), Kind("bits from 1024 to 16384")]


class ChecksSection(Section):
    """How strictly certificates are judged."""

    ignore_eku: bool = Field(default=False, description="Take a certificate whatever its extended key usage says.")
    require_crl: bool = Field(default=False, description="Every certificate needs a fresh CRL that does not list it.")
    allow_wildcards: bool = Field(
        default=False, description="A certificate for `*.example.com` proves `vpn.example.com`."
    )
    allow_common_name: bool = Field(
        default=False, description="A host name in the subject's CN counts as proof, as in certificates of old."
    )
    allow_sha1: bool = Field(
        default=False,
        description=(
            "Take certificates signed with SHA-1, which can be forged. (The signature of a log-in, which is of use for "
            "seconds only, may have SHA-1 where the peer does no RFC 7427; then there is a warning.)"
        ),
    )
    allow_md5: bool = Field(default=False, description="Take certificates signed with MD5, which are forged easily.")
    minimum_rsa_bits: KeyBits = Field(default=2048, description="Shorter RSA keys are refused.")

    def policy(self) -> CertificatePolicy:
        """The value that a trust store takes."""
        return CertificatePolicy(**self.model_dump())

    def warnings(self) -> list[str]:
        """What these settings give up."""
        found = []
        if self.allow_md5:
            found.append("allow_md5: certificates signed with MD5 can be forged by anyone")
        if self.allow_sha1:
            found.append("allow_sha1: certificates signed with SHA-1 can be forged with some effort")
        if self.minimum_rsa_bits < 2048:
            found.append("minimum_rsa_bits: RSA keys under 2048 bits can be broken by those who have the means")
        return found


class GatewayChecksSection(ChecksSection):
    """How strictly the gateway's certificate is judged."""

    require_server_eku: bool = Field(
        default=False,
        description=(
            "The gateway's certificate must be meant for servers: extended key usage serverAuth or IKE intermediate."
        ),
    )
