"""A kernel that has IPsec, on the files of this host, for tests: the host's own need not have any.

`UserModeLinux` is Debian's kernel as a program (package user-mode-linux): it boots in seconds and runs Python at full
speed, but has one processor and no xfrm interfaces. `Qemu` runs Debian's full kernel, which has these, twenty times
slower.

A guest sees the host's files read-only, with a layer of memory above, and runs one job in a folder, which it shares
with the host. What the job writes there is all that is left of it.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

INIT = Path(__file__).with_name("init.sh")
UML_PROGRAM = "linux.uml"
UML_MODULES = "/usr/lib/uml/modules"
LIBRESWAN = Path("/var/cache/ikeway-tests/libreswan")
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
KERNEL = Path("/var/cache/ikeway-tests/linux")


@dataclass(frozen=True)
class Result:
    """What a job came to: its exit code (-1: the guest never came to an end), its output, and its files by name."""

    code: int
    output: str
    files: dict[str, str]


class UserModeLinux:
    """`extra` are words for the kernel's command line."""

    def __init__(self, memory: int = 1024, extra: tuple[str, ...] = ()) -> None:
        self.memory, self.extra = memory, extra

    def run(self, job: str, *, timeout: float) -> Result:
        """Boot, run a shell script as root, and switch off; or be switched off, when there is no end to it."""
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
    environment = {"PATH": PATH, "TMPDIR": "/dev/shm", "HOME": "/root"}
    process = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env=environment,
        start_new_session=True,  # UML is several processes
    )
    try:
        console, _ = process.communicate(timeout=timeout)
    except subprocess.TimeoutExpired as late:
        console = (late.stdout or b"") + f"\n(not done after {timeout:.0f} s)".encode()
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
    said = console.decode(errors="replace")
    files = {each.name: each.read_text(errors="replace") for each in folder.iterdir() if each.is_file()}
    output = files.get("output", "")
    if "code" not in files:
        output += f"\n=== the guest did not finish its job; its console:\n{said[-4000:]}"
    return Result(int(files.get("code", -1)), output, files)


class Qemu:
    """Debian's full kernel, emulated. `.ci/run` unpacks its package into `KERNEL`, as it does with libreswan's."""

    def __init__(self, memory: int = 2048) -> None:
        self.memory = memory

    def run(self, job: str, *, timeout: float) -> Result:
        """As that of UserModeLinux."""
        with tempfile.TemporaryDirectory(prefix="ikeway-guest-") as folder:
            initial = Path(folder) / "initial"
            make_initial(initial)
            return _run(self._command(folder, initial), Path(folder), job, timeout)

    def _command(self, folder: str, initial: Path) -> list[str]:
        (kernel,) = (KERNEL / "boot").glob("vmlinuz-*")
        words = (
            "console=ttyS0 quiet loglevel=3 panic=-1 mitigations=off random.trust_cpu=on "
            f"job={folder} modules={KERNEL}/lib/modules"
        )
        shared = "security_model=none,multidevs=remap"
        return [
            "qemu-system-x86_64", "-M", "q35", "-accel", "tcg,thread=multi", "-cpu", "max", "-smp", "2",
            "-m", str(self.memory), "-nodefaults", "-no-user-config", "-display", "none", "-no-reboot",
            "-serial", "stdio", "-kernel", str(kernel), "-initrd", str(initial), "-append", words,
            "-fsdev", f"local,id=root,path=/,readonly=on,{shared}",
            "-device", "virtio-9p-pci,fsdev=root,mount_tag=root",
            "-fsdev", f"local,id=job,path={folder},{shared}",
            "-device", "virtio-9p-pci,fsdev=job,mount_tag=job",
            "-device", "virtio-rng-pci",
        ]  # fmt: skip


def make_initial(path: Path) -> None:
    """The small file system that the kernel begins with: what mounts the host's files, and goes on there."""
    version = next((KERNEL / "lib/modules").iterdir()).name
    subprocess.run(["depmod", "-b", KERNEL, version], check=True)
    with tempfile.TemporaryDirectory(prefix="ikeway-initial-") as name:
        folder = Path(name)
        for each in ("bin", "proc", "sys", "dev", "lower", "layer", "modules"):
            (folder / each).mkdir()
        shutil.copy("/bin/busybox", folder / "bin")
        for number, module in enumerate(_modules(version)):
            shutil.copy(module, folder / "modules" / f"{number:02}-{module.name}")
        first = folder / "init"
        first.write_text(FIRST)
        first.chmod(0o755)
        files = subprocess.run(["find", "."], cwd=folder, capture_output=True, check=True).stdout
        with path.open("wb") as archive:
            subprocess.run(["cpio", "-o", "-H", "newc", "--quiet"], cwd=folder, input=files, stdout=archive, check=True)


def _modules(version: str) -> list[Path]:
    """What it takes to see the host's files, in the order in which to load it."""
    found: dict[Path, None] = {}
    for name in ("virtio_pci", "9pnet_virtio", "9p", "overlay"):
        words = ["modprobe", "-d", str(KERNEL), "-S", version, "--show-depends", name]
        for line in subprocess.run(words, capture_output=True, text=True, check=True).stdout.splitlines():
            if line.startswith("insmod"):
                found[Path(line.split()[1])] = None
    return list(found)


FIRST = """#!/bin/busybox sh
/bin/busybox --install -s /bin
export PATH=/bin
mount -t proc proc /proc; mount -t sysfs sys /sys; mount -t devtmpfs dev /dev
for module in /modules/*; do insmod $module; done
for word in $(cat /proc/cmdline); do
  case $word in job=*) JOB=${word#job=} ;; modules=*) MODULES=${word#modules=} ;; esac
done
OPTIONS=trans=virtio,version=9p2000.L,msize=1048576
mount -t 9p -o ro,cache=loose,$OPTIONS root /lower
mount -t tmpfs -o size=70% tmpfs /layer; mkdir /layer/upper /layer/work /layer/root
R=/layer/root
mount -t overlay overlay -o lowerdir=/lower,upperdir=/layer/upper,workdir=/layer/work $R
mount -t proc proc $R/proc; mount -t sysfs sys $R/sys; mount -t devtmpfs dev $R/dev
mkdir -p $R/dev/pts $R/dev/shm $R/dev/net $R/$JOB $R/lib/modules
mount -t devpts devpts $R/dev/pts; mount -t tmpfs shm $R/dev/shm
[ -e $R/dev/net/tun ] || mknod $R/dev/net/tun c 10 200
mount -t tmpfs run $R/run; mkdir -p $R/run/netns $R/run/lock
mount -t 9p -o cache=none,$OPTIONS job $R/$JOB
mount --bind $R/$MODULES $R/lib/modules
cat > $R/run/begin <<END
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root TERM=dumb LANG=C.UTF-8
ip link set lo up
sh $JOB/job > $JOB/output 2>&1 < /dev/null; echo \\$? > $JOB/code
sync; busybox poweroff -f
END
exec switch_root $R /bin/sh /run/begin
"""


def missing() -> str:
    """What is not installed here; empty when nothing is."""
    programs = {
        UML_PROGRAM: "user-mode-linux",
        "qemu-system-x86_64": "qemu-system-x86",
        "iked": "openiked",
        "cpio": "cpio",
    }
    lacking = [package for program, package in programs.items() if shutil.which(program, path=PATH) is None]
    lacking += [str(path) for path in (KERNEL, LIBRESWAN) if not path.is_dir()]
    return " ".join(lacking)
