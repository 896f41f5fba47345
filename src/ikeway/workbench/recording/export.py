"""A recording for Wireshark: what was on the wire, each message once more in the clear, and the keys beside it.

Wireshark's Decryption Secrets Block has no kind for IKE or ESP (it has TLS, SSH, WireGuard and others), so the keys go
into a second file, as records of Wireshark's own tables, as `--keylog` writes them.
"""

from __future__ import annotations

from pathlib import Path

from ikeway.address import Address
from ikeway.daemon.keylog import KeyLog
from ikeway.daemon.pcap import PcapWriter
from ikeway.wire.render import summary
from ikeway.workbench.recording.format import Datagram, EspKeys, Keys, Plaintext, Recording

IKE_PORT = 500


def export(recording: Recording, capture: Path, keys: Path) -> int:
    """Write both files; returns how many packets. Raises `HostError`."""
    began = int(recording.began.timestamp() * 1e9)
    packets = 0
    with PcapWriter(capture, ("ike", "plaintext")) as pcap:
        for entry in recording.entries:
            at = began + int(getattr(entry, "t", 0.0) * 1e9)
            match entry:
                case Datagram(octets=octets, local=local, remote=remote, sent=sent):
                    pcap.udp(octets, local, remote, sent, at=at)
                    packets += 1
                case Plaintext(message=message, local=local, remote=remote, sent=sent, again=0):
                    # Always as on port 500, where Wireshark looks for IKE without a marker.
                    pcap.udp(
                        message.encode(),
                        Address(local.host, IKE_PORT),
                        Address(remote.host, IKE_PORT),
                        sent,
                        at=at,
                        interface=1,
                        comment=f"decrypted: {summary(message)}",
                    )
                    packets += 1
    with KeyLog(keys) as log:
        for entry in recording.entries:
            match entry:
                case Keys(initiator_spi=initiator, responder_spi=responder, suite=suite, keys=found):
                    log.ike(initiator, responder, suite, found)
                case EspKeys(spi=spi, algorithms=algorithms, wireshark=record):
                    log.note("esp_sa", record or None, f"ESP SA {spi:08x} ({algorithms})")
    return packets
