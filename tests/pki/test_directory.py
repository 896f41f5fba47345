"""The directory: permissions, nothing overwritten, nothing half written, everything revocable."""

from __future__ import annotations

import os
import stat
import threading
from datetime import UTC, datetime
from pathlib import Path

import pytest

from ikeway.auth.parse import PasswordNeeded, parse_certificates, parse_crls, parse_private_key
from ikeway.errors import ConfigError, HostError
from ikeway.pki import Authority, KeyKind, Made, PkiDirectory, generate_key
from ikeway.pki import files as files_module

NOW = datetime(2026, 6, 1, 12, tzinfo=UTC)


def make(path: Path, password: bytes | None = None) -> PkiDirectory:
    home = PkiDirectory(path)
    home.create(Authority.create("CA", generate_key(KeyKind.ECDSA_P256), NOW), password)
    return home


def add(home: PkiDirectory, name: str, pkcs12: bytes | None = None) -> Made:
    authority, key = home.authority(None), generate_key(KeyKind.ECDSA_P256)
    with home.locked():
        return home.add("client", authority, authority.issue_client(name, key.public_key(), NOW), key, pkcs12)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077])
def test_permissions_whatever_the_umask(tmp_path: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        home = make(tmp_path / "pki")
        made = add(home, "alice", b"pkcs12")
    finally:
        os.umask(before)
    assert made.pkcs12 is not None
    secret = [home.key_file, made.private_key, made.pkcs12, home.path / "index.json"]
    assert [mode(path) for path in secret] == [0o600] * 4
    assert mode(made.certificate) == mode(home.certificate_file) == 0o644
    assert mode(home.path) == mode(made.private_key.parent) == 0o700
    assert not [path for path in home.path.rglob(".*") if path.name != ".lock"]


def test_an_encrypted_key(tmp_path: Path) -> None:
    home = make(tmp_path, b"secret")
    assert b"ENCRYPTED" in home.key_file.read_bytes()
    for wrong in (None, b"wrong"):
        with pytest.raises(PasswordNeeded):
            home.authority(wrong)
    home.authority(b"secret")


def test_a_ca_is_not_overwritten(tmp_path: Path) -> None:
    home = make(tmp_path)
    before = home.key_file.read_bytes()
    with pytest.raises(ConfigError, match="already"):
        make(tmp_path)
    home.certificate_file.unlink()
    with pytest.raises(ConfigError, match="not overwritten"):
        make(tmp_path)
    assert home.key_file.read_bytes() == before


def test_certificates_of_the_same_name_stand_beside_each_other(tmp_path: Path) -> None:
    home = make(tmp_path)
    names = [add(home, "alice@example.org").certificate.name for _ in range(3)]
    assert names == ["alice@example.org.pem", "alice@example.org-2.pem", "alice@example.org-3.pem"]
    for name in names:
        (certificate,) = parse_certificates((home.path / "clients" / name).read_bytes())
        key = parse_private_key((home.path / "clients" / name).with_suffix(".key").read_bytes())
        assert certificate.public_key() == key.public_key()


@pytest.mark.parametrize("name", ["CN=../../evil", "CN=a/b, O=c", "2001:db8::1", "CN=..", "CN=\u00fcml\u00e4ut"])
def test_names_do_not_lead_out_of_the_directory(tmp_path: Path, name: str) -> None:
    home = make(tmp_path)
    assert add(home, name).certificate.parent == home.path / "clients"
    (line,) = home.issued()
    assert (home.path / line.file).exists()


def test_finding_and_revoking(tmp_path: Path) -> None:
    home = make(tmp_path)
    made = [add(home, name) for name in ("alice", "alice", "bob")]
    serials = [line.serial for line in home.issued()]
    assert len(home.find("alice")) == 2
    assert [line.serial for line in home.find(str(made[1].certificate))] == [serials[1]]
    assert [line.serial for line in home.find(serials[2].upper())] == [serials[2]]
    assert home.find("carol") == []
    authority = home.authority(None)
    with home.locked():
        home.revoke(serials[0], "superseded", NOW)
        home.write_crl(authority, NOW)
        home.write_crl(authority, NOW)
    assert [line.state(NOW) for line in home.issued()] == ["revoked", "valid", "valid"]
    assert home.issued()[2].state(NOW.replace(year=2036)) == "expired"
    assert len(home.find("alice")) == 1
    (crl,) = parse_crls(home.crl_file.read_bytes())
    assert [entry.serial_number for entry in crl] == [int(serials[0], 16)]
    from cryptography import x509

    assert crl.extensions.get_extension_for_class(x509.CRLNumber).value.crl_number == 2
    with pytest.raises(ConfigError), home.locked():
        home.revoke(serials[1], "boredom", NOW)


def test_no_ca_yet(tmp_path: Path) -> None:
    home = PkiDirectory(tmp_path / "nothing")
    for action in (home.issued, home.certificate, lambda: home.authority(None), home.locked().__enter__):
        with pytest.raises(ConfigError, match="there is no CA") as caught:
            action()
        assert "ikeway pki ca" in caught.value.remedy


@pytest.mark.parametrize("content", ["", "{}", "[]", '{"format": 1, "issued": [{}], "crl_number": 0}', "null"])
def test_a_damaged_index(tmp_path: Path, content: str) -> None:
    home = make(tmp_path)
    (tmp_path / "index.json").write_text(content)
    with pytest.raises(ConfigError, match="damaged"):
        home.issued()


def test_an_index_of_the_future(tmp_path: Path) -> None:
    home = make(tmp_path)
    (tmp_path / "index.json").write_text('{"format": 2}')
    with pytest.raises(ConfigError, match="another version"):
        home.issued()


def test_many_at_once(tmp_path: Path) -> None:
    home = make(tmp_path)
    threads = [threading.Thread(target=add, args=(PkiDirectory(tmp_path), f"client{n % 2}")) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(home.issued()) == len(list((tmp_path / "clients").glob("*.pem"))) == 8


def test_a_full_disk_leaves_nothing_half_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = make(tmp_path)
    before = (tmp_path / "index.json").read_bytes()

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files_module.os, "fsync", full)
    with pytest.raises(HostError, match="No space left"):
        add(home, "alice")
    assert (tmp_path / "index.json").read_bytes() == before
    assert not list((tmp_path / "clients").iterdir())
    assert not list(tmp_path.glob(".index*"))


def test_a_directory_that_cannot_be(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(HostError):
        make(tmp_path / "file" / "pki")
