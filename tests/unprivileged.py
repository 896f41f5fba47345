"""Runs a program as a user without rights: `python tests/unprivileged.py UID PROGRAM ARGUMENTS...`.

The interpreter or the sources may lie in a folder that is closed to others (root's home). In a mount namespace of its
own, the program sees such a folder with nothing in it but what it needs.
"""

import os
import sys
import tempfile
from pathlib import Path

NOBODY = 65534


def as_user(*words: str, uid: int = NOBODY) -> list[str]:
    """The words that run a program so."""
    return [sys.executable, __file__, str(uid), *words]


def main() -> None:
    sys.path.insert(0, str(Path(__file__).parents[1] / "src"))
    from ikeway.host.namespaces import CLONE_NEWNS, mount, unshare

    uid, words = int(sys.argv[1]), sys.argv[2:]
    unshare(CLONE_NEWNS)
    mount("none", "/", flags=0x4000 | 1 << 18)  # MS_REC | MS_PRIVATE
    needed = {Path(sys.prefix), Path(sys.base_prefix), Path(__file__).parents[1]}
    here = Path.cwd()
    for closed in {each for path in needed for each in path.parents if not each.stat().st_mode & 0o001}:
        stage = Path(tempfile.mkdtemp())
        mount("stage", str(stage), "tmpfs", options="mode=0755")
        for path in needed:
            if path.is_relative_to(closed):
                (stage / path.relative_to(closed)).mkdir(parents=True, exist_ok=True)
                mount(str(path), str(stage / path.relative_to(closed)), flags=0x5000)  # MS_BIND | MS_REC
        mount(str(stage), str(closed), flags=0x5000)
    os.chdir(here)
    os.setgroups([])
    os.setresgid(uid, uid, uid)
    os.setresuid(uid, uid, uid)
    os.execvp(words[0], words)


if __name__ == "__main__":
    main()
