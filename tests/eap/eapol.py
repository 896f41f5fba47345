"""wpa_supplicant's `eapol_test` as the client of our authenticator; it compares keys with its own."""

from __future__ import annotations

import subprocess
from pathlib import Path

from tests.conftest import OTHER_PROGRAMS
from tests.eap.radius_stage import SECRET


def eapol_test(port: int, folder: Path, *options: str, keys: bool = True) -> subprocess.CompletedProcess[str]:
    """Log in by a network block of these lines. `keys`: the server has to send the right MS-MPPE keys too."""
    block = "\n".join(("network={", "key_mgmt=IEEE8021X", "eapol_flags=0", *options, "}"))
    (folder / "eapol.conf").write_text(block + "\n")
    command = [OTHER_PROGRAMS["eapoltest"], "-c", "eapol.conf", "-a127.0.0.1", f"-p{port}", f"-s{SECRET.decode()}"]
    command += ["-t", "10", *([] if keys else ["-n"])]
    return subprocess.run(
        command, cwd=folder, capture_output=True, text=True, timeout=30, check=False, errors="replace"
    )
