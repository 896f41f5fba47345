"""`ikeway pki` as a user types it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner, Result

from ikeway.auth.parse import parse_certificates, parse_crls, parse_pkcs12, parse_private_key
from ikeway.cli import pki as command

FAST = ("--key", "ecdsa-p256")


def run(*arguments: str, code: int = 0) -> Result:
    result = CliRunner().invoke(command.app, list(arguments))
    assert result.exit_code == code, result.output
    return result


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    run("ca", "Test CA", *FAST)
    return tmp_path / "pki"


@pytest.fixture
def password(tmp_path: Path) -> Path:
    file = tmp_path / "password"
    file.write_text("secret\n")
    file.chmod(0o600)
    return file


def test_the_readmes_way(home: Path, password: Path) -> None:
    assert "gateways/vpn.example.org.key" in run("gateway", "vpn.example.org", "192.0.2.1", *FAST).output
    run("client", "alice@example.org", *FAST, "--pkcs12-password-file", str(password))
    bundle = parse_pkcs12((home / "clients" / "alice@example.org.p12").read_bytes(), b"secret")
    assert bundle.authorities == parse_certificates((home / "ca.pem").read_bytes())
    listed = run("show").output
    assert "vpn.example.org, 192.0.2.1" in listed
    assert "alice@example.org" in listed
    run("revoke", "alice@example.org", "--reason", "keyCompromise")
    states = {line["names"][0]: line["state"] for line in json.loads(run("show", "--json").output)}
    assert states == {"vpn.example.org": "valid", "alice@example.org": "revoked"}
    assert "revoked (keyCompromise)" in run("show").output
    assert "1 revoked" in run("crl", "--days", "7").output
    (crl,) = parse_crls((home / "crl.pem").read_bytes())
    assert len(crl) == 1
    assert "CRL of" in run("show", str(home / "crl.pem")).output


def test_show_a_file(home: Path) -> None:
    run("gateway", "vpn.example.org", *FAST)
    file = str(home / "gateways" / "vpn.example.org.pem")
    shown = run("show", file).output
    for word in ("CN=vpn.example.org", "serverAuth", "ECDSA secp256r1", "824 days"):
        assert word in shown
    (facts,) = json.loads(run("show", file, "--json").output)
    assert facts["names"] == ["vpn.example.org"]
    assert "CA, path length 0" in run("show", str(home / "ca.pem")).output
    assert "no certificate found" in run("show", str(home / "index.json"), code=2).output
    assert "cannot be read" in run("show", "nowhere.pem", code=2).output


def test_an_empty_ca_says_what_to_do(home: Path) -> None:
    assert "ikeway pki gateway" in run("show").output


def test_no_ca_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for arguments in (["gateway", "x", *FAST], ["client", "x", *FAST], ["revoke", "x"], ["crl"], ["show"]):
        assert "ikeway pki ca" in run(*arguments, code=2).output


def test_revoking_what_is_not_there_or_not_one(home: Path) -> None:
    assert "ikeway pki show" in run("revoke", "alice", code=2).output
    for _ in range(2):
        run("client", "alice", *FAST)
    assert "several" in run("revoke", "alice", code=2).output
    run("revoke", str(home / "clients" / "alice-2.pem"))
    run("revoke", "alice")


def test_an_encrypted_ca(tmp_path: Path, password: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    run("ca", "Test CA", *FAST, "--ca-password-file", str(password))
    assert b"ENCRYPTED" in (tmp_path / "pki" / "ca.key").read_bytes()
    assert "--ca-password-file" in run("client", "alice", *FAST, code=2).output
    run("client", "alice", *FAST, "--ca-password-file", str(password))
    parse_private_key((tmp_path / "pki" / "clients" / "alice.key").read_bytes())
    wrong = tmp_path / "wrong"
    wrong.write_text("other")
    wrong.chmod(0o600)
    assert "password" in run("client", "bob", *FAST, "--ca-password-file", str(wrong), code=2).output


def test_passwords_are_asked_for_at_a_terminal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, password: Path) -> None:
    monkeypatch.chdir(tmp_path)
    answers = ["one", "one", "one", "two", "three", "", "one"]
    asked: list[str] = []

    def getpass(words: str) -> str:
        asked.append(words)
        return answers.pop(0)

    monkeypatch.setattr("getpass.getpass", getpass)
    monkeypatch.setattr(command.sys, "stdin", type("Terminal", (), {"isatty": lambda self: True})())
    command.ca("Test CA", encrypt=True, key=command.KeyKind.ECDSA_P256)
    assert asked == ["New password for the CA's key: ", "The same once more: "]
    with pytest.raises(typer.Exit):  # "two" and "three" differ
        command.client("alice", key=command.KeyKind.ECDSA_P256, pkcs12=True)
    assert asked[2:] == ["Password of the CA's key: ", "New password for the PKCS#12 file: ", "The same once more: "]
    with pytest.raises(typer.Exit):  # empty
        command.client("alice", key=command.KeyKind.ECDSA_P256, ca_password_file=password)
    assert not (tmp_path / "pki" / "clients").exists()


def test_a_password_file_that_others_may_read(home: Path, password: Path) -> None:
    password.chmod(0o644)
    output = run("client", "alice", *FAST, "--pkcs12-password-file", str(password), code=2).output
    assert "chmod 600" in output
    password.chmod(0o600)
    password.write_text("\n")
    assert "empty" in run("client", "alice", *FAST, "--pkcs12-password-file", str(password), code=2).output


@pytest.mark.parametrize("name", ["ca", "gateway", "client", "revoke", "crl", "show"])
def test_help_has_examples(name: str) -> None:
    assert f"ikeway pki {name}" in run(name, "--help").output


def test_bad_names(home: Path) -> None:
    assert "not only host names" in run("gateway", "alice@example.org", *FAST, code=2).output
    assert "not an identity" in run("client", "two words", *FAST, code=2).output
    assert "outlive" in run("client", "alice", *FAST, "--days", "4000", code=2).output
