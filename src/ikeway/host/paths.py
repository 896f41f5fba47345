"""Where files live that must be gone after a restart of the machine."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from ikeway.errors import HostError


def runtime_directory() -> Path:
    """Return our private runtime directory, made with mode 0700 if need be.

    $IKEWAY_RUNTIME_DIR when it is set; /run/ikeway for root, else $XDG_RUNTIME_DIR/ikeway, else a directory of the
    user in the temporary directory. Root inside a user namespace is not the host's root, cannot write to /run and so
    goes on to the next one.
    """
    if named := os.environ.get("IKEWAY_RUNTIME_DIR"):
        candidates = [Path(named)]
    else:
        candidates = _usual_directories()
    for candidate in candidates:
        if _make_private(candidate):
            return candidate
    raise HostError(
        "there is no directory for run-time files",
        expected="one that this user owns and may write to",
        got=f"none of {', '.join(map(str, candidates))}",
        remedy="set IKEWAY_RUNTIME_DIR to such a directory",
    )


def _usual_directories() -> list[Path]:
    candidates = [Path("/run/ikeway")] if os.geteuid() == 0 else []
    if session := os.environ.get("XDG_RUNTIME_DIR"):
        candidates.append(Path(session) / "ikeway")
    return [*candidates, Path(tempfile.gettempdir()) / f"ikeway-{os.getuid()}"]


def _make_private(directory: Path) -> bool:
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        status = directory.lstat()
    except OSError:
        return False
    # In a shared temporary directory somebody else may have made it first, or a link to elsewhere.
    is_ours = status.st_uid == os.geteuid() and not directory.is_symlink() and directory.is_dir()
    return is_ours and not status.st_mode & 0o022 and os.access(directory, os.W_OK | os.X_OK)
