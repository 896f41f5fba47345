"""AES-GCM by the core's own code and by OpenSSL, at every length; `cryptography` has the last word."""

from __future__ import annotations

from ctypes import addressof, byref, c_char, c_uint8, c_uint16

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ikeway import native
from ikeway.esp.inbound import InboundSa, Opened
from ikeway.esp.outbound import OutboundSa
from ikeway.esp.parameters import EspSa
from ikeway.native.layout import Frame, Packet, SealJob
from tests.esp.material import esp_sa

SUITES = ("aes128gcm16", "aes192gcm8", "aes256gcm16")


def sealed_natively(sa: EspSa, payloads: list[bytes], iv_base: int = 0) -> list[bytes]:
    """ESP packets of IPv4 payloads, by the core."""
    core = native.core()
    assert core is not None
    sender = OutboundSa(sa, iv_base)
    arena = (c_char * (sum(map(len, payloads)) + 1)).from_buffer_copy(b"".join(payloads) + b"\0")
    packets, order = (Packet * len(payloads))(), (c_uint16 * len(payloads))(*range(len(payloads)))
    at = 0
    for packet, payload in zip(packets, payloads, strict=True):
        packet.at, packet.length = at, len(payload)
        at += len(payload)
    out, frames = (c_uint8 * (at + 300 * len(payloads)))(), (Frame * len(payloads))()
    job = SealJob(
        arena=addressof(arena), packets=addressof(packets), order=addressof(order), out=addressof(out),
        frames=addressof(frames), out_octets=len(out), most_frames=len(frames), count=len(payloads),
    )  # fmt: skip
    sender.prepare(job)
    core.ikw_seal(byref(job))
    assert job.made == len(payloads)
    return [bytes(out[frame.at : frame.at + frame.length]) for frame in frames]


@pytest.mark.parametrize("suite", SUITES)
@pytest.mark.parametrize("esn", [False, True])
def test_every_length(suite: str, esn: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    sa = esp_sa(suite, esn=esn, replay_window=0)
    payloads = [b"\x45" + bytes((length & 0xFF,)) * length for length in range(1100)]
    ours = sealed_natively(sa, payloads, 2**64 - 50)
    sender, receiver = OutboundSa(sa, 2**64 - 50), InboundSa(sa)
    assert ours == [sender.seal(payload, 4) for payload in payloads]
    assert [receiver.open(packet) for packet in ours[::97]] == [Opened(payload, 4) for payload in payloads[::97]]
    monkeypatch.setenv(native.SWITCH, "openssl")
    assert sealed_natively(sa, payloads, 2**64 - 50) == ours


@given(st.lists(st.binary(max_size=3000), min_size=1, max_size=5), st.sampled_from(SUITES), st.integers(0, 2**64 - 1))
@settings(max_examples=60)
def test_any_payload(payloads: list[bytes], suite: str, iv_base: int) -> None:
    sa = esp_sa(suite)
    payloads = [b"\x45" + payload for payload in payloads]
    sender = OutboundSa(sa, iv_base)
    assert sealed_natively(sa, payloads, iv_base) == [sender.seal(payload, 4) for payload in payloads]
