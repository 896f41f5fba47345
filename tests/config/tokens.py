"""Tokens in software (softhsm2), with keys and certificates for tests."""

from __future__ import annotations

import subprocess
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

LIBRARY = "/usr/lib/softhsm/libsofthsm2.so"
PIN, SO_PIN = "1234 5", "87654321"


class SoftToken:
    """A token of its own folder. The environment variable SOFTHSM2_CONF has to name `configuration` while it is used."""

    def __init__(self, folder: Path, label: str = "work") -> None:
        self.folder, self.label = folder, label
        self.configuration = folder / "softhsm2.conf"
        tokens = folder / "tokens"
        tokens.mkdir(parents=True, exist_ok=True)
        self.configuration.write_text(
            f"directories.tokendir = {tokens}\nobjectstore.backend = file\nlog.level = ERROR\n"
        )
        self._util("--init-token", "--free", "--label", label, "--so-pin", SO_PIN, "--pin", PIN)

    def uri(self, object_: str = "", **attributes: str) -> str:
        """A URI of it."""
        words = [f"token={self.label}", *([f"object={object_}"] if object_ else [])]
        words += [f"{name}={value}" for name, value in attributes.items()]
        return f"pkcs11:{';'.join(words)}?module-path={LIBRARY}"

    def put_key(self, key, label: str, identifier: str) -> None:
        """A private key; `identifier` in hexadecimal."""
        path = self.folder / "key.pem"
        path.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
        options = ["--label", label, "--id", identifier, "--pin", PIN]
        self._util("--import", str(path), "--token", self.label, *options)
        path.unlink()

    def put_certificate(self, certificate: x509.Certificate, label: str, identifier: str) -> None:
        """A certificate."""
        program = (
            "import sys, pkcs11\n"
            "from pkcs11 import Attribute, CertificateType, ObjectClass\n"
            f"token = pkcs11.lib({LIBRARY!r}).get_token(token_label={self.label!r})\n"
            f"with token.open(rw=True, user_pin={PIN!r}) as session:\n"
            "    session.create_object({Attribute.CLASS: ObjectClass.CERTIFICATE, Attribute.TOKEN: True,\n"
            "        Attribute.CERTIFICATE_TYPE: CertificateType.X_509, Attribute.PRIVATE: False,\n"
            "        Attribute.VALUE: sys.stdin.buffer.read(), Attribute.SUBJECT: bytes.fromhex(sys.argv[1]),\n"
            f"        Attribute.LABEL: {label!r}, Attribute.ID: bytes.fromhex({identifier!r})}})\n"
        )
        import sys

        der, subject = certificate.public_bytes(Encoding.DER), certificate.subject.public_bytes().hex()
        subprocess.run([sys.executable, "-c", program, subject], input=der, check=True, env=self.environment)

    @property
    def environment(self) -> dict[str, str]:
        """Where the library finds it."""
        import os

        return {**os.environ, "SOFTHSM2_CONF": str(self.configuration)}

    def _util(self, *words: str) -> None:
        done = subprocess.run(
            ["softhsm2-util", *words], env=self.environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
