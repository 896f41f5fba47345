"""Key logs: Wireshark itself reads IKE and ESP with them."""

from __future__ import annotations

import logging
import shutil
import subprocess
from pathlib import Path

import pytest

from ikeway.address import Address
from ikeway.daemon.keylog import KeyLog, esp_record, ike_record
from ikeway.daemon.pcap import PcapWriter, ip_packet
from ikeway.daemon.trace import note_keys
from ikeway.errors import HostError
from ikeway.esp.outbound import OutboundSa
from ikeway.ike import events
from ikeway.ike.proposals import parse_proposals
from tests.esp.material import SUITES, esp_sa
from tests.ike.pair import Pair, connection, connection_b

# What tshark 4.0 has words for.
IKE_SUITES = (
    "aes128gcm16-prfsha256-x25519",
    "aes256gcm8-prfsha384-x25519",
    "aes192gcm12-prfsha256-x25519",
    "aes256ccm16-prfsha256-x25519",
    "aes128-sha256-x25519",
    "aes256-sha384-x25519",
    "aes192ctr-sha512-x25519",
    "3des-sha1-x25519",
)
ESP_SUITES = [suite for suite in SUITES if suite not in {"chacha20poly1305", "aes128ccm12"}]
CHACHA = "chacha20poly1305-prfsha256-x25519"


def tshark(capture: Path, keylog: Path, *options: str) -> str:
    """Read a capture as the head of the key log says."""
    if shutil.which("tshark") is None:
        pytest.skip("needs tshark; Debian: apt-get install tshark")
    records = [line for line in keylog.read_text().splitlines() if not line.startswith("#")]
    assert records
    done = subprocess.run(
        ["tshark", "-r", str(capture), *(word for record in records for word in ("-o", record)), *options],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def log_in(suite: str, keylog: Path, capture: Path) -> Pair:
    proposals = parse_proposals(suite)
    pair = Pair(connection(ike_proposals=proposals), connection_b(ike_proposals=proposals))
    pair.connect()
    assert pair.a.sa.established
    with KeyLog(keylog) as keys, PcapWriter(capture) as packets:
        for event in pair.a.log:
            note_keys(keys, event)
        for datagram in pair.sent:
            marker = bytes(4) if datagram.remote.port == 4500 else b""
            packets.udp(marker + datagram.octets, datagram.local, datagram.remote, True)
    return pair


@pytest.mark.parametrize("suite", IKE_SUITES)
def test_tshark_decrypts_ike(suite: str, tmp_path: Path) -> None:
    log_in(suite, tmp_path / "keys", tmp_path / "x.pcapng")
    told = tshark(tmp_path / "x.pcapng", tmp_path / "keys", "-T", "fields", "-e", "isakmp.id.data.fqdn")
    assert {"a.example", "b.example"} <= set(told.replace(",", " ").split())


@pytest.mark.parametrize("suite", ESP_SUITES)
def test_tshark_decrypts_esp(suite: str, tmp_path: Path) -> None:
    local, remote = Address("192.0.2.1", 4500), Address("198.51.100.1", 4500)
    sa = esp_sa(suite, local=local, remote=remote)
    inner = ip_packet(b"a message inside", Address("10.1.0.1", 1234), Address("10.2.0.1", 5678))
    sealed = OutboundSa(sa).seal(inner, 4)
    assert isinstance(sealed, bytes)
    with KeyLog(tmp_path / "keys") as keys, PcapWriter(tmp_path / "x.pcapng") as packets:
        keys.esp(sa, inbound=False)
        packets.udp(sealed, local, remote, True)
    decrypt = ("-o", "esp.enable_encryption_decode:TRUE", "-o", "esp.enable_authentication_check:TRUE")
    told = tshark(tmp_path / "x.pcapng", tmp_path / "keys", *decrypt, "-T", "fields", "-e", "data.data", "-e", "ip.dst")
    assert b"a message inside".hex() in told
    assert "10.2.0.1" in told


def test_keys_of_a_log_in_and_its_child_sa(tmp_path: Path) -> None:
    pair = log_in(IKE_SUITES[0], tmp_path / "keys", tmp_path / "x.pcapng")
    lines = (tmp_path / "keys").read_text().splitlines()
    ike = [line for line in lines if line.startswith("uat:ikev2_decryption_table:")]
    esp = [line for line in lines if line.startswith("uat:esp_sa:")]
    (derived,) = pair.a.happened(events.IkeKeysDerived)
    assert ike == [
        f"uat:ikev2_decryption_table:{derived.initiator_spi.hex()},{derived.responder_spi.hex()},"
        f"{derived.keys.sk_ei.hex()},{derived.keys.sk_er.hex()},"
        f'"AES-GCM-128 with 16 octet ICV [RFC5282]",,,"NONE [RFC4306]"'
    ]
    (child,) = pair.a.happened(events.ChildKeysDerived)
    spis = {f'"0x{child.inbound.spi:08x}"', f'"0x{child.outbound.spi:08x}"'}
    assert {line.split(",")[3] for line in esp} == spis


def test_addresses_of_both_directions() -> None:
    sa = esp_sa()
    assert esp_record(sa, inbound=False).startswith('"IPv4","192.0.2.1","198.51.100.1","0x12345678"')  # type: ignore[union-attr]
    assert esp_record(sa, inbound=True).startswith('"IPv4","198.51.100.1","192.0.2.1","0x12345678"')  # type: ignore[union-attr]


def test_algorithms_without_a_word_are_said(tmp_path: Path) -> None:
    pair = log_in(CHACHA, tmp_path / "keys", tmp_path / "x.pcapng")
    (derived,) = pair.a.happened(events.IkeKeysDerived)
    assert ike_record(b"", b"", derived.suite, derived.keys) is None
    assert esp_record(esp_sa("chacha20poly1305"), inbound=True) is None
    assert (
        f"# IKE SA {derived.initiator_spi.hex()} ({CHACHA}): Wireshark has no word" in (tmp_path / "keys").read_text()
    )


def test_the_file_is_its_owners_only_and_a_warning_is_loud(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    logging.getLogger("ikeway").propagate = True
    with caplog.at_level(logging.WARNING), KeyLog(tmp_path / "keys"):
        pass
    assert (tmp_path / "keys").stat().st_mode & 0o777 == 0o600
    assert "ALL SESSION KEYS" in caplog.text


def test_an_existing_file_is_gone_on_with(tmp_path: Path) -> None:
    for _ in range(2):
        with KeyLog(tmp_path / "keys") as keys:
            keys.esp(esp_sa(), inbound=True)
    text = (tmp_path / "keys").read_text()
    assert text.count("uat:esp_sa") == 2
    assert text.count("delete it when you are done") == 1


def test_files_that_are_not_safe(tmp_path: Path) -> None:
    (tmp_path / "open").write_text("")
    (tmp_path / "open").chmod(0o644)
    with pytest.raises(HostError, match="others may read") as caught:
        KeyLog(tmp_path / "open")
    assert "chmod 600" in caught.value.remedy
    (tmp_path / "link").symlink_to(tmp_path / "target")
    with pytest.raises(HostError, match="cannot be written"):
        KeyLog(tmp_path / "link")
    with pytest.raises(HostError):
        KeyLog(tmp_path / "none" / "keys")
