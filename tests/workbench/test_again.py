"""Recorded log-ins once more, in memory."""

from __future__ import annotations

import contextlib
import tempfile
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from ikeway.errors import ConfigError, IkewayError
from ikeway.wire import ExchangeType, Message, PayloadType, UnknownPayload, VendorId, summary
from ikeway.workbench.bench.again import log_in_again
from ikeway.workbench.recording import Recording, load
from tests.workbench.sessions import record


@pytest.mark.parametrize("ours", ["responder", "initiator"])
def test_a_log_in_is_done_again_with_what_the_peer_said(tmp_path: Path, ours: str) -> None:
    """An unknown payload, an own order, and a vendor ID of then; both engines are of now, and every time it is the same."""

    class Peculiar:
        def sending(self, sa: object, message: Message) -> Message:
            if message.exchange_type not in (ExchangeType.IKE_SA_INIT, ExchangeType.IKE_AUTH):
                return message
            odd = UnknownPayload(PayloadType(200), False, b"odd")
            return replace(message, payloads=(VendorId(b"of then"), *message.payloads, odd))

        def received(self, sa: object, message: Message) -> Message:
            return message

    path = tmp_path / "session.ikr"
    record(path, "aes256-sha384-ecp384", **{"alices" if ours == "responder" else "bobs": Peculiar()})  # type: ignore[arg-type]
    recording = load(path)
    if ours == "initiator":  # as Alice would have recorded it
        turned = [replace(each, sent=not each.sent) for each in recording.messages]
        recording = replace(recording, role="initiator", entries=tuple(turned))
    lines = log_in_again(recording)
    assert lines == log_in_again(recording)
    assert lines[-1] == "logged in, aes256-sha384-ecp384; a child SA, aes128gcm16-esn"
    theirs = [line for line in lines if line.startswith("<")]
    assert len(theirs) == 2 and all("{ V, " in line and "UNKNOWN_200 }" in line for line in theirs)
    assert theirs == [f"< {summary(each.message)}" for each in recording.messages if not each.sent][:2]


@settings(max_examples=40)
@given(st.data())
def test_whatever_a_peer_has_said_a_log_in_comes_to_an_end(whole: st.DataObject) -> None:
    recording = whole.draw(st.sampled_from(SESSIONS))
    entries = list(recording.messages)
    at = whole.draw(st.integers(0, min(3, len(entries) - 1)))
    octets = bytearray(entries[at].message.encode())
    for _ in range(whole.draw(st.integers(1, 4))):
        octets[whole.draw(st.integers(16, len(octets) - 1))] = whole.draw(st.integers(0, 255))
    try:
        message = Message.decode(bytes(octets), refuse_critical=False)
    except IkewayError:
        assume(False)
    entries[at] = replace(entries[at], message=message)
    with contextlib.suppress(ConfigError):
        assert log_in_again(replace(recording, entries=tuple(entries)))[-1]


def _sessions() -> list[Recording]:
    with tempfile.TemporaryDirectory() as folder:
        record(Path(folder) / "session.ikr")
        recording = load(Path(folder) / "session.ikr")
    turned = tuple(replace(each, sent=not each.sent) for each in recording.messages)
    return [recording, replace(recording, role="initiator", entries=turned)]


SESSIONS = _sessions()
