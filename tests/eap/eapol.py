"""wpa_supplicant's `eapol_test` as the client of our authenticator; it compares keys with its own."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

from tests.conftest import OTHER_PROGRAMS
from tests.eap.radius_stage import SECRET


def eapol_test(
    port: int, folder: Path, *options: str, keys: bool = True, more: tuple[str, ...] = ()
) -> subprocess.CompletedProcess[str]:
    """Log in by a network block of these lines. `keys`: the server has to send the right MS-MPPE keys too.
    `more`: further words of its command line."""
    block = "\n".join(("network={", "key_mgmt=IEEE8021X", "eapol_flags=0", *options, "}"))
    (folder / "eapol.conf").write_text(block + "\n")
    command = [OTHER_PROGRAMS["eapoltest"], "-c", "eapol.conf", "-a127.0.0.1", f"-p{port}", f"-s{SECRET.decode()}"]
    command += ["-t", "10", *([] if keys else ["-n"]), *more]
    return subprocess.run(
        command, cwd=folder, capture_output=True, text=True, timeout=30, check=False, errors="replace"
    )


@contextlib.contextmanager
def asked_eapol_test(
    port: int, folder: Path, answers: Mapping[str, str], *options: str
) -> Iterator[tuple[list[str], str]]:
    """Log in four times, with a person at the control interface who has `answers` by what is asked for (NEW_PASSWORD...).
    What is answered serves the log-ins that follow. Yields what was asked and what was logged, once all have ended."""
    block = "\n".join(("network={", "key_mgmt=IEEE8021X", "eapol_flags=0", *options, "}"))
    (folder / "eapol.conf").write_text(f"ctrl_interface={folder}/control\n{block}\n")
    command = [OTHER_PROGRAMS["eapoltest"], "-c", "eapol.conf", "-a127.0.0.1", f"-p{port}", f"-s{SECRET.decode()}"]
    command += ["-t", "20", "-n", "-W", "-ilab", "-r3"]
    with (folder / "eapol.log").open("wb") as log:
        process = subprocess.Popen(command, cwd=folder, stdout=log, stderr=log)
    try:
        asked = _person(process, folder, answers)
        process.wait(25)
        yield asked, (folder / "eapol.log").read_text(errors="replace")
    finally:
        process.kill()
        process.wait()


def _person(process: subprocess.Popen[bytes], folder: Path, answers: Mapping[str, str]) -> list[str]:
    asked: list[str] = []
    control, deadline = folder / "control" / "lab", time.monotonic() + 20
    while not control.exists():
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.02)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as channel:
        channel.bind(str(folder / "person"))
        channel.connect(str(control))
        channel.settimeout(0.2)
        channel.send(b"ATTACH")  # for this it waits
        while process.poll() is None and time.monotonic() < deadline:
            try:
                said = channel.recv(4096).decode(errors="replace")
            except TimeoutError:
                continue
            except ConnectionRefusedError:
                break
            if "CTRL-REQ-" in said:
                what = said.partition("CTRL-REQ-")[2].partition("-")[0]
                asked.append(what)
                channel.send(f"CTRL-RSP-{what}-0:{answers[what]}".encode())
    return asked
