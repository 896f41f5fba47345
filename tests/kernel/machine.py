"""A kernel that has IPsec, on the files of this host, for tests: the host's own need not have any.

`UserModeLinux` is Debian's kernel as a program (package user-mode-linux): it boots in seconds and runs Python at full
speed, but has one processor and no xfrm interfaces. `Qemu` runs Debian's full kernel, which has these, twenty times
slower.

A guest sees the host's files read-only, with a layer of memory above, and runs one job in a folder, which it shares
with the host. What the job writes there is all that is left of it.
"""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

INIT = Path(__file__).with_name("init.sh")
UML_PROGRAM = "linux.uml"
UML_MODULES = "/usr/lib/uml/modules"


class GuestFailed(AssertionError):
    """A guest did not come to the end of its job; the text is what it said."""


@dataclass(frozen=True)
class Result:
    """What a job came to: its exit code, its output, and its folder's files by name."""

    code: int
    output: str
    files: dict[str, str]


class UserModeLinux:
    """`extra` are words for the kernel's command line."""

    def __init__(self, memory: int = 1024, extra: tuple[str, ...] = ()) -> None:
        self.memory, self.extra = memory, extra

    def run(self, job: str, *, timeout: float) -> Result:
        """Boot, run a shell script as root, and switch off. Raises GuestFailed when there is no end to it."""
        with tempfile.TemporaryDirectory(prefix="ikeway-guest-") as folder:
            return _run(self._command(folder), Path(folder), job, timeout)

    def _command(self, folder: str) -> list[str]:
        return [
            UML_PROGRAM, f"mem={self.memory}M", "root=/dev/root", "rootfstype=hostfs", "rootflags=/", "ro",
            f"init={INIT}", f"job={folder}", f"modules={UML_MODULES}",
            "con=null", "con0=null,fd:1", "con1=null", "quiet", "loglevel=3", *self.extra,
        ]  # fmt: skip


def _run(command: list[str], folder: Path, job: str, timeout: float) -> Result:
    (folder / "job").write_text(job + "\n")
    # UML keeps the guest's memory in a file of $TMPDIR.
    environment = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "TMPDIR": "/dev/shm", "HOME": "/root"}
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=timeout,
            check=False,
            env=environment,
        )
        console = done.stdout
    except subprocess.TimeoutExpired as late:
        console = (late.stdout or b"") + f"\n(not done after {timeout:.0f} s)".encode()
    said = console.decode(errors="replace")
    files = {each.name: each.read_text(errors="replace") for each in folder.iterdir() if each.is_file()}
    output = files.get("output", "")
    if "code" not in files:
        raise GuestFailed(
            f"the guest did not finish its job; its console:\n{said[-4000:]}\nits output:\n{output[-8000:]}"
        )
    return Result(int(files["code"]), output, files)


def missing() -> str:
    """What is not installed here; empty when nothing is."""
    return "" if shutil.which(UML_PROGRAM) else "user-mode-linux"
