"""Recordings: written, read, damaged, opened, exported to Wireshark, turned into tests."""

from __future__ import annotations

import errno
import json
import os
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from ikeway.cli import build
from ikeway.errors import HostError
from ikeway.ike import events
from ikeway.wire import ExchangeType, summary
from ikeway.workbench.recording import Keys, Recorder, RecordingError, load, reading
from ikeway.workbench.recording.opening import open_all
from ikeway.workbench.recording.reading import MAX_ERRORS, loads
from tests.workbench.sessions import SECRET, record

SUITES = ["aes256gcm16-prfsha256-x25519", "aes128-sha256-modp2048", "chacha20poly1305-prfsha512-x25519"]


@pytest.fixture(params=SUITES)
def recorded(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Path, list[events.Event]]:
    path = tmp_path / "session.ikr"
    return path, record(path, request.param, fragment_size=300)


def test_a_recording_has_what_the_engine_told(recorded: tuple[Path, list[events.Event]]) -> None:
    path, told = recorded
    recording = load(path)
    assert recording.errors == () and recording.role == "responder"
    sent_or_received = [event for event in told if isinstance(event, events.MessageSent | events.MessageReceived)]
    assert [each.message for each in recording.messages] == [event.message for event in sent_or_received]
    assert {each.message.exchange_type for each in recording.messages} >= {ExchangeType.CREATE_CHILD_SA}
    derived = [event for event in told if isinstance(event, events.IkeKeysDerived)]
    assert [(each.suite, each.keys) for each in recording.keys] == [(event.suite, event.keys) for event in derived]
    assert len(derived) == 2  # the IKE SA was rekeyed


def test_what_was_on_the_wire_opens_with_the_recorded_keys(recorded: tuple[Path, list[events.Event]]) -> None:
    recording = load(recorded[0])
    opened = list(open_all(recording))
    assert all(each.error is None for each in opened)
    assert [each.message for each in opened if not each.datagram.sent] == [
        each.message for each in recording.messages if not each.sent
    ]
    assert len(recording.datagrams) > len(opened)  # there were fragments


def test_it_is_its_owner_s_only_and_never_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "session.ikr"
    record(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    before = path.read_bytes()
    with pytest.raises(HostError, match="is there already"):
        Recorder(path, "initiator")
    link = tmp_path / "link.ikr"
    link.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(HostError):
        Recorder(link, "initiator")
    assert path.read_bytes() == before and not (tmp_path / "elsewhere").exists()
    assert SECRET not in before and SECRET.hex().encode() not in before


def test_a_full_disk_ends_the_recording_and_not_the_session(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    path, room = tmp_path / "session.ikr", [5000]
    write = os.write

    def scarce(fd: int, octets: bytes) -> int:
        if not room[0]:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        written = write(fd, octets[: min(room[0], 1000)])  # never a whole line of more than that
        room[0] -= written
        return written

    monkeypatch.setattr(os, "write", scarce)
    told = record(path)
    assert any(isinstance(event, events.IkeClosed) for event in told)
    assert caplog.text.count("ends here") == 1 and "No space left" in caplog.text
    recording = load(path)
    (error,) = recording.errors
    assert recording.messages and error.reason == "the line is cut short"
    with pytest.raises(HostError, match="No space left"):
        Recorder(tmp_path / "other.ikr", "responder")


def test_every_cut_gives_an_error_with_its_place_and_the_rest(tmp_path: Path) -> None:
    path = tmp_path / "session.ikr"
    record(path)
    octets = path.read_bytes()
    whole = load(path)
    for cut in range(150, len(octets), 797):
        path.write_bytes(octets[:cut])
        recording = load(path)
        lines = octets[:cut].count(b"\n")
        assert recording.entries == whole.entries[: lines - 1]
        if octets[cut - 1 : cut] != b"\n":
            (error,) = recording.errors
            assert isinstance(error, RecordingError)
            assert (error.file, error.line) == (str(path), lines + 1)
            assert "cut short" in error.reason


def test_another_version_is_named_and_used_as_far_as_it_goes(tmp_path: Path) -> None:
    path = tmp_path / "session.ikr"
    record(path)
    whole = load(path)
    head, *lines = path.read_text().splitlines()
    newer = json.loads(head) | {"ikeway_recording": 7, "by": "ikeway 9.9"}
    lines.insert(2, '{"what": "video", "t": 1.0}')
    path.write_text("\n".join([json.dumps(newer), *lines]) + "\n")
    recording = load(path)
    assert recording.entries == whole.entries
    first, second = recording.errors
    assert first.line == 1 and (first.expected, first.got) == ("1", "7") and "ikeway 9.9" in first.remedy
    assert second.line == 4 and "video" in second.reason


def test_a_file_that_is_wrong_throughout_is_not_read_to_its_end(tmp_path: Path) -> None:
    path = tmp_path / "session.ikr"
    record(path)
    with path.open("ab") as file:
        file.write(b"not at all\n" * 500)
    recording = load(path)
    assert recording.entries
    assert len(recording.errors) == MAX_ERRORS + 1 and "not read" in recording.errors[-1].reason


@pytest.mark.parametrize("octets", [b"", b"\n", b"{}\n", b"[]\n", b"not at all\n", b"\x00\xff\n", b'{"what": "x"}\n'])
def test_what_is_no_recording_is_refused(tmp_path: Path, octets: bytes) -> None:
    path = tmp_path / "x"
    path.write_bytes(octets)
    with pytest.raises(RecordingError):
        load(path)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(RecordingError, match="cannot be read"):
        load(tmp_path / "none")


HEAD = '{"ikeway_recording": 1, "role": "responder"}\n'
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=10),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)
lines = st.fixed_dictionaries(
    {"what": st.sampled_from(["datagram", "message", "keys", "esp", "note"])},
    optional={
        name: values | st.sampled_from(["00" * 28, "aes256-sha256-modp2048", ["192.0.2.1", 500], 1.0])
        for name in (
            "t",
            "sent",
            "local",
            "remote",
            "octets",
            "again",
            "spi",
            "spi_i",
            "spi_r",
            "proposal",
            "sk_d",
            "kind",
        )
    },
)


@given(line=lines | st.text(max_size=40))
@settings(max_examples=100)
def test_any_line_is_an_entry_or_an_error(line: object) -> None:
    text = json.dumps(line) if isinstance(line, dict) else str(line).replace("\n", " ").replace("\r", " ")
    recording = loads(HEAD + text + "\n")
    assert len(recording.entries) + len(recording.errors) == 1
    list(open_all(recording))


def test_keys_that_do_not_fit_their_algorithms_do_not_stop_the_reader(tmp_path: Path) -> None:
    path = tmp_path / "session.ikr"
    record(path)
    text = path.read_text()
    sk = next(each for each in load(path).entries if isinstance(each, Keys)).keys.sk_ei.hex()
    recording = loads(text.replace(sk, sk[:10]))
    assert any("keys" in error.reason or "octets" in error.reason for error in recording.errors)
    list(open_all(recording))


def test_wireshark_reads_the_export(recorded: tuple[Path, list[events.Event]], tmp_path: Path) -> None:
    if shutil.which("tshark") is None:
        pytest.skip("needs tshark")
    path, _ = recorded
    capture, keys = tmp_path / "out.pcapng", tmp_path / "out.pcapng.keys"
    result = CliRunner().invoke(build("workbench"), ["workbench", "export", str(path), str(capture)])
    assert result.exit_code == 0, result.output
    assert stat.S_IMODE(keys.stat().st_mode) == 0o600 and stat.S_IMODE(capture.stat().st_mode) == 0o600
    recording = load(path)
    # The decrypted copies need no keys.
    copies = tshark(capture, "-Y", 'frame.interface_name == "plaintext"', "-T", "fields", "-e", "isakmp.exchangetype",
                    "-e", "isakmp.messageid", "-e", "isakmp.typepayload", "-e", "_ws.malformed")  # fmt: skip
    shown = [line.split("\t") for line in copies.splitlines()]
    assert len(shown) == len(recording.messages)
    for (exchange, message_id, payloads, malformed), each in zip(shown, recording.messages, strict=True):
        message = each.message
        assert (int(exchange), int(message_id, 16)) == (message.exchange_type, message.message_id)
        top = [int(payload.payload_type) for payload in message.payloads]
        assert [int(kind) for kind in payloads.split(",") if kind and int(kind) not in (2, 3)] == top, summary(message)
        assert not malformed
    tables = [f"-o{line}" for line in keys.read_text().splitlines() if not line.startswith("#")]
    if "chacha20" in str(recording.keys[0].suite):
        assert "Wireshark has no word" in keys.read_text()  # tshark 4.0 has none for it in IKE
        return
    # And the originals open with the key tables.
    decrypted = tshark(capture, *tables, "-Y", 'frame.interface_name == "ike" && isakmp.notify.msgtype == 16384')
    assert decrypted.strip(), "INITIAL_CONTACT is in IKE_AUTH only, which is encrypted"


def tshark(capture: Path, *words: str) -> str:
    done = subprocess.run(
        ["tshark", "-r", str(capture), *words], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_generated_test_runs_green_and_sees_changes(
    recorded: tuple[Path, list[events.Event]], tmp_path: Path
) -> None:
    path, _ = recorded
    target = tmp_path / "test_session.py"
    words = ["workbench", "test", str(path), str(target), "--title", 'Bob\'s """side""" \\N.']
    result = CliRunner().invoke(build("workbench"), words)
    assert result.exit_code == 0, result.output
    assert stat.S_IMODE(target.stat().st_mode) == 0o600
    assert pytest_of(target) == 0
    text = target.read_text()
    assert "> IKE_SA_INIT response 0 { SAr1, KEr, Nr" in text
    changes = [
        text.replace("> IKE_SA_INIT response 0 { SAr1, KEr", "> IKE_SA_INIT response 0 { KEr, SAr1"),
        text.replace('"sk_er": "', '"sk_er": "00', 1),
        text.replace("logged in, ", "not logged in, "),
        text.replace("> IKE_AUTH response 1 { IDr, AUTH, SAr2, TSi, TSr, N(MOBIKE_SUPPORTED) }", "> nothing"),
    ]
    files = [tmp_path / f"test_changed_{number}.py" for number in range(len(changes))]
    for file, changed in zip(files, changes, strict=True):
        assert changed != text
        file.write_text(changed)
    assert pytest_of(*files, failing=len(files)) == 1
    again = CliRunner().invoke(build("workbench"), words)
    assert again.exit_code == 6 and "not there" in again.output


def test_of_more_lines_than_are_read_the_first_are_used_and_the_rest_is_said_to_be_unread(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, target = tmp_path / "session.ikr", tmp_path / "test_session.py"
    record(path)
    lines = path.read_text().splitlines()
    monkeypatch.setattr(reading, "MAX_LINES", len(lines))
    assert load(path).errors == ()
    monkeypatch.setattr(reading, "MAX_LINES", 8)
    recording = load(path)
    assert len(recording.entries) == 7
    (error,) = recording.errors
    assert (error.line, error.reason) == (9, "what follows was not read: 8 lines are the most")
    result = CliRunner().invoke(build("workbench"), ["workbench", "test", str(path), str(target)])
    assert result.exit_code == 1 and lines[7] in target.read_text() and lines[8] not in target.read_text()


def test_of_a_cut_recording_a_test_is_made_of_what_is_left(tmp_path: Path) -> None:
    path, target = tmp_path / "session.ikr", tmp_path / "test_session.py"
    record(path)
    octets = path.read_bytes()
    lines = octets.splitlines(keepends=True)
    # Between a message and its datagram, and in the middle of a line in the middle.
    sent = next(at for at, line in enumerate(lines) if b'"message"' in line and b'"sent": true' in line)
    path.write_bytes(
        b"".join([*lines[:3], b'{"what": "no such thing"}\n', *lines[3 : sent + 1]]) + lines[sent + 1][:40]
    )
    result = CliRunner().invoke(build("workbench"), ["workbench", "test", str(path), str(target)])
    assert result.exit_code == 1 and "cut short" in result.output and "2 messages in" in result.output
    assert pytest_of(target) == 0
    assert "no such thing" not in target.read_text()


def test_no_test_is_made_of_another_version_and_no_log_in_of_half_a_session(tmp_path: Path) -> None:
    path, target = tmp_path / "session.ikr", tmp_path / "test_session.py"
    record(path)
    lines = path.read_text().splitlines(keepends=True)
    path.write_text(lines[0].replace('"ikeway_recording": 1', '"ikeway_recording": 2') + "".join(lines[1:]))
    result = CliRunner().invoke(build("workbench"), ["workbench", "test", str(path), str(target)])
    assert result.exit_code == 2 and "of this version only" in result.output and not target.exists()
    path.write_text("".join(line for line in lines if '"sent": false' not in line))
    result = CliRunner().invoke(build("workbench"), ["workbench", "test", str(path), str(target)])
    assert result.exit_code == 0 and "no log-in: nobody in this recording speaks as the client" in result.output
    assert pytest_of(target) == 0


def pytest_of(*targets: Path, failing: int = 0) -> int:
    """The exit code; in so many of the files something must have failed."""
    words = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-rf",
        "-p",
        "no:cacheprovider",
        "-c",
        os.devnull,
        *map(str, targets),
    ]
    done = subprocess.run(words, capture_output=True, text=True, timeout=60, check=False, cwd=targets[0].parent)
    failed = {line.split("::")[0] for line in done.stdout.splitlines() if line.startswith("FAILED ")}
    assert len(failed) == failing, done.stdout
    return done.returncode


def show(path: Path, *words: str) -> str:
    result = CliRunner().invoke(build("workbench"), ["workbench", "show", *words, str(path)])
    assert result.exit_code == 0, result.output
    return result.output


def test_show_says_every_message_and_hides_what_is_secret(tmp_path: Path) -> None:
    path = tmp_path / "session.ikr"
    record(path)
    recording = load(path)
    shown, all_of_it = show(path), show(path, "--secrets")
    assert shown.count("-->") == sum(each.sent for each in recording.messages)
    assert "ID_RFC822_ADDR 'alice@lab.test'" in shown
    assert "it says who it is and proves it" in shown
    auth = next(
        payload.value.hex()
        for each in recording.messages
        for payload in each.message.payloads
        if type(payload).__name__ == "Authentication"
    )
    assert auth not in shown and auth in all_of_it
    assert not any(keys.keys.sk_ei.hex() in all_of_it for keys in recording.keys)


def test_show_of_a_damaged_recording_says_the_place_and_the_rest(tmp_path: Path) -> None:
    path = tmp_path / "session.ikr"
    record(path)
    path.write_bytes(path.read_bytes()[:-10])
    result = CliRunner().invoke(build("workbench"), ["workbench", "show", str(path)])
    assert result.exit_code == 1
    assert f"{path}:{len(load(path).entries) + 2}: the line is cut short" in result.output
    assert "IKE_SA_INIT request 0" in result.output


def test_retransmissions_are_one_line_each(tmp_path: Path) -> None:
    path = tmp_path / "session.ikr"
    told = record(path)
    sent = next(event for event in told if isinstance(event, events.MessageSent))
    again = events.MessageSent(sent.sa, sent.message, sent.local, sent.remote, 2)
    path.unlink()
    with Recorder(path, "responder") as recorder:
        recorder.observe(sent)
        recorder.observe(again)
    assert len(load(path).messages) == 1 and len(load(path).entries) == 2
    assert "message 0 again (2)" in show(path)
