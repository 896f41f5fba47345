"""The programs of hostap (w1.fi) for EAP-SIM, EAP-AKA and EAP-AKA': `eapol_test` as the peer of a RADIUS server, its card
asked of the test; `hostapd` as a RADIUS server, its authentication centre asked of the test. Both are Debian's builds, which
have neither a card nor `hlr_auc_gw` of their own: so only Milenage and the sequence numbers are ours."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from ikeway.crypto.milenage import Milenage
from ikeway.eap.authentication_centre import gsm_triplets
from ikeway.eap.sim_questions import GsmChallenge, OutOfSync, UmtsAnswer, UmtsChallenge
from tests.conftest import OTHER_PROGRAMS
from tests.eap.radius_stage import SECRET
from tests.eap.sim_sides import KI, OPC
from tests.ports import unused_port

NAMES = {"sim": "SIM", "aka": "AKA", "aka-prime": "AKA'"}
_DIGITS = {"sim": "135", "aka": "024", "aka-prime": "678"}


class EapolTest:
    """One run of `eapol_test`: several log-ins of one process, which remembers identities between them."""

    def __init__(self, folder: Path, port: int, method: str, identity: str, card, *, times: int = 1) -> None:
        self._folder, self._card = folder, card
        (folder / "conf").write_text(
            f"ctrl_interface={folder}/control\nexternal_sim=1\n"
            f'network={{\nkey_mgmt=IEEE8021X\neap={NAMES[method]}\nidentity="{identity}"\nphase1="result_ind=1"\n}}\n'
        )
        self.asked: list[str] = []
        words = ["-W", "-c", str(folder / "conf"), "-a", "127.0.0.1", "-p", str(port), "-s", SECRET.decode()]
        with (folder / "log").open("wb") as log:
            self._process = subprocess.Popen(
                [OTHER_PROGRAMS["eapoltest"], *words, "-t", "15", "-r", str(times - 1)], stdout=log, stderr=log
            )
        try:
            self._serve()
            self.status = self._process.wait(20)
        finally:
            if self._process.poll() is None:
                self._process.kill()
                self._process.wait()

    @property
    def log(self) -> str:
        return (self._folder / "log").read_text(errors="replace")

    def _serve(self) -> None:
        """Be the monitor that it waits for, and the card in its reader."""
        control = self._folder / "control"
        deadline = time.monotonic() + 15
        while not (control.is_dir() and any(control.iterdir())):
            assert self._process.poll() is None and time.monotonic() < deadline, self.log
            time.sleep(0.02)
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as channel:
            channel.bind(str(self._folder / "monitor"))
            channel.connect(str(next(control.iterdir())))
            channel.settimeout(0.2)
            channel.send(b"ATTACH")
            while self._process.poll() is None:
                with contextlib.suppress(TimeoutError, ConnectionError):
                    said = channel.recv(4096).decode(errors="replace")
                    if "CTRL-REQ-SIM-" in said:
                        network, *words = said.partition("CTRL-REQ-SIM-")[2].partition(" ")[0].split(":")
                        channel.send(f"CTRL-RSP-SIM-{network}:{self._answer(*words)}".encode())

    def _answer(self, kind: str, *values: str) -> str:
        self.asked.append(kind)
        octets = tuple(map(bytes.fromhex, values))
        if kind == "GSM-AUTH":
            triplets = self._card(GsmChallenge(b"", octets))
            return ":".join([kind, *(f"{one.kc.hex()}:{one.sres.hex()}" for one in triplets)])
        said = self._card(UmtsChallenge(b"", *octets))
        if isinstance(said, UmtsAnswer):
            return f"UMTS-AUTH:{said.ik.hex()}:{said.ck.hex()}:{said.res.hex()}"
        return f"UMTS-AUTS:{said.auts.hex()}" if isinstance(said, OutOfSync) else "UMTS-FAIL"


class Hostapd:
    """hostapd as a RADIUS server, and the authentication centre behind it. `asked` has what it asked that for."""

    def __init__(
        self,
        folder: Path,
        *,
        result_indication: bool = True,
        ki: bytes = KI,
        sqn: int = 1 << 5,
        popen: Callable[..., subprocess.Popen[Any]] = subprocess.Popen,
    ) -> None:
        self._milenage, self._sqn = Milenage(ki, OPC), sqn
        self.asked: list[str] = []
        self.port = unused_port()
        users = [f'"{digit}"* {NAMES[method]}' for method, digits in _DIGITS.items() for digit in digits]
        (folder / "users").write_text("\n".join(users) + "\n")
        (folder / "clients").write_text(f"127.0.0.1 {SECRET.decode()}\n")
        (folder / "conf").write_text(
            f"interface=none0\ndriver=none\nlogger_stdout=-1\nlogger_stdout_level=0\neap_server=1\n"
            f"eap_user_file={folder}/users\nradius_server_clients={folder}/clients\n"
            f"radius_server_auth_port={self.port}\neap_sim_db=unix:{folder}/hlr\n"
            f"eap_sim_aka_result_ind={int(result_indication)}\neap_sim_id=3\n"
        )
        self._hlr = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._hlr.bind(str(folder / "hlr"))
        self._log = folder / "log"
        with self._log.open("wb") as log:
            self._process = popen([OTHER_PROGRAMS["hostapd"], "-dd", str(folder / "conf")], stdout=log, stderr=log)
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()
        deadline = time.monotonic() + 15
        while "AP-ENABLED" not in self.log:
            assert self._process.poll() is None and time.monotonic() < deadline, self.log
            time.sleep(0.02)

    @property
    def log(self) -> str:
        return self._log.read_text(errors="replace")

    def close(self) -> None:
        self._process.terminate()
        self._process.wait(10)
        self._hlr.shutdown(socket.SHUT_RDWR)
        self._thread.join(10)
        self._hlr.close()

    def _serve(self) -> None:
        while request := self._hlr.recvfrom(4096):
            octets, sender = request
            if not octets:
                return
            kind, imsi, *values = octets.decode().split()
            self.asked.append(kind)
            if kind == "AKA-AUTS":
                auts, rand = map(bytes.fromhex, values)
                sqn = self._milenage.open_auts(rand, auts)
                assert sqn is not None
                self._sqn = int.from_bytes(sqn)
                continue
            self._hlr.sendto(f"{kind.replace('REQ', 'RESP')} {imsi} {self._vectors(kind)}".encode(), sender)

    def _vectors(self, kind: str) -> str:
        if kind == "SIM-REQ-AUTH":
            triplets = gsm_triplets(self._milenage, 3, os.urandom)
            return " ".join(f"{one.kc.hex()}:{one.sres.hex()}:{one.rand.hex()}" for one in triplets)
        self._sqn += 1 << 5
        vector = self._milenage.vector(os.urandom(16), self._sqn.to_bytes(6), b"\x80\0")
        return " ".join(value.hex() for value in (vector.rand, vector.autn, vector.ik, vector.ck, vector.xres))


@contextlib.contextmanager
def hostapd(folder: Path, **options: Any) -> Iterator[Hostapd]:
    """A server, as long as the test needs it."""
    server = Hostapd(folder, **options)
    try:
        yield server
    finally:
        server.close()
