"""Certificates, keys and CRLs from files; mistakes are told at the key that names the file."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from ikeway.auth.certificate import CertificateCredential, CertificatePolicy
from ikeway.config.credentials import expiry_warnings, load_credential, load_trust
from ikeway.config.reading import Problems, read_document
from ikeway.config.secrets import SecretSource
from tests.config.material import authority, make_pki, write_private

TEXT = """\
[x]
certificate = "a"
key = "b"
pkcs12 = "c"
ca = "d"
crls = "e"
"""


@pytest.fixture(scope="module")
def pki(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_pki(tmp_path_factory.mktemp("pki"))


@pytest.fixture
def problems(tmp_path: Path) -> Problems:
    return Problems(read_document(write_private(tmp_path / "x.toml", TEXT)))


def load(
    problems: Problems,
    *,
    certificate: Path | None = None,
    key: Path | None = None,
    pkcs12: Path | None = None,
    password: SecretSource | None = None,
    prompt: Callable[[str], str] | None = None,
) -> CertificateCredential | None:
    return load_credential(
        problems, ("x",), certificate=certificate, key=key, pkcs12=pkcs12, password=password, prompt=prompt
    )


def test_certificate_and_key(pki: Path, problems: Problems) -> None:
    credential = load(problems, certificate=pki / "vpn.pem", key=pki / "vpn.key")
    assert credential is not None
    assert "vpn.example.com" in credential.certificate.subject.rfc4514_string()
    assert problems.errors == []


def test_both_in_one_file(pki: Path, problems: Problems, tmp_path: Path) -> None:
    both = write_private(tmp_path / "both.pem", (pki / "vpn.pem").read_bytes() + (pki / "vpn.key").read_bytes())
    assert load(problems, certificate=both) is not None


def test_pkcs12_with_its_password_from_a_file(pki: Path, problems: Problems, tmp_path: Path) -> None:
    password = SecretSource.model_validate({"file": "p"}, context=None).model_copy(
        update={"file": write_private(tmp_path / "p", "open\n")}
    )
    assert load(problems, pkcs12=pki / "alice.p12", password=password) is not None


def test_a_person_is_asked_for_the_password_until_it_is_right(pki: Path, problems: Problems) -> None:
    answers = iter(["wrong", "open"])
    asked: list[str] = []

    def prompt(words: str) -> str:
        asked.append(words)
        return next(answers)

    assert load(problems, certificate=pki / "vpn.pem", key=pki / "vpn-locked.key", prompt=prompt) is not None
    assert asked == [f"Password of the key {pki / 'vpn-locked.key'}: "] * 2


def test_three_wrong_passwords(pki: Path, problems: Problems) -> None:
    assert load(problems, pkcs12=pki / "vpn.p12", prompt=lambda words: "wrong") is None
    assert [error.line for error in problems.errors] == [4]


def test_an_encrypted_key_and_nobody_to_ask(pki: Path, problems: Problems) -> None:
    assert load(problems, certificate=pki / "vpn.pem", key=pki / "vpn-locked.key") is None
    (error,) = problems.errors
    assert error.line == 3
    assert "`key_password`" in error.remedy


def test_a_key_that_others_may_read(pki: Path, problems: Problems, tmp_path: Path) -> None:
    key = write_private(tmp_path / "open.key", (pki / "vpn.key").read_bytes())
    key.chmod(0o644)
    assert load(problems, certificate=pki / "vpn.pem", key=key) is None
    (error,) = problems.errors
    assert error.remedy == f"chmod 600 {key}"


def test_files_that_do_not_belong_together(pki: Path, problems: Problems) -> None:
    assert load(problems, certificate=pki / "vpn.pem", key=pki / "alice.key") is None
    (error,) = problems.errors
    assert "does not belong" in error.reason


@pytest.mark.parametrize(
    "content", [b"", b"rubbish", b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"]
)
def test_what_is_no_certificate(pki: Path, problems: Problems, tmp_path: Path, content: bytes) -> None:
    broken = write_private(tmp_path / "broken.pem", content)
    assert load(problems, certificate=broken, key=pki / "vpn.key") is None
    assert [error.line for error in problems.errors] == [2]
    assert str(broken) in problems.errors[0].reason


def test_trust(pki: Path, problems: Problems) -> None:
    trust = load_trust(
        problems,
        ("x",),
        authorities=[pki / "ca.pem"],
        crls=[pki / "crl.pem"],
        policy=CertificatePolicy(require_server_eku=True),
    )
    assert trust is not None
    assert trust.anchors == (authority().certificate,)
    assert len(trust.crls) == 1
    assert trust.policy.require_server_eku


def test_authorities_and_crls_that_are_not_there(problems: Problems, tmp_path: Path) -> None:
    nothing = tmp_path / "none.pem"
    assert load_trust(problems, ("x",), authorities=[nothing], crls=[nothing], policy=CertificatePolicy()) is None
    assert [error.line for error in problems.errors] == [5, 6]


def test_certificates_that_end() -> None:
    certificate = authority().certificate
    assert expiry_warnings([certificate]) == []
    assert "renew it" in expiry_warnings([certificate], days=100_000)[0]
