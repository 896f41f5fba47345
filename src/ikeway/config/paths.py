"""Where configuration files are looked for."""

from __future__ import annotations

import os
import pwd
import re
from pathlib import Path

from ikeway.errors import ConfigError

SYSTEM = Path("/etc/ikeway")
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,63}")


def user_directory() -> Path:
    """$XDG_CONFIG_HOME/ikeway, as a rule ~/.config/ikeway."""
    base = os.environ.get("XDG_CONFIG_HOME", "")
    return (Path(base) if base.startswith("/") else Path.home() / ".config") / "ikeway"


def profile_directories() -> tuple[Path, ...]:
    """Where profiles are looked for by name, in this order."""
    return (user_directory() / "profiles", SYSTEM / "profiles")


def find_profile(name_or_path: str) -> Path:
    """The file of a profile: by path when it has a slash or ends in .toml, else by name. Raises `ConfigError`."""
    if "/" in name_or_path or name_or_path.endswith(".toml"):
        return Path(name_or_path).expanduser()
    directories = profile_directories()
    if not NAME.fullmatch(name_or_path):
        raise ConfigError(
            f"{name_or_path!r} is no name of a profile",
            expected="letters, digits, and . _ @ - within",
            remedy="name a profile by such a name, or by the path of its file",
        )
    for directory in directories:
        path = directory / f"{name_or_path}.toml"
        if path.exists():
            return path
    _hint_at_sudo(name_or_path)
    known = ", ".join(profile_names()) or "none yet"
    raise ConfigError(
        f"there is no profile {name_or_path!r} (known: {known})",
        expected=" or ".join(str(directory / f"{name_or_path}.toml") for directory in directories),
        remedy=f"write {directories[0] / f'{name_or_path}.toml'} (`ikeway reference profile` tells what goes into it)",
    )


def _hint_at_sudo(name: str) -> None:
    """`sudo` gives root's home folder to what it starts: say so when the profile is in the folder of who called it.

    It is not taken from there by itself, as it may name a command that would then run as root.
    """
    try:
        home = Path(pwd.getpwnam(os.environ.get("SUDO_USER", "")).pw_dir)
        path = home / ".config" / "ikeway" / "profiles" / f"{name}.toml"
        is_there = path.exists()
    except (KeyError, OSError):
        return
    if is_there:
        raise ConfigError(
            f"root has no profile {name!r}, and sudo does not look in {home}",
            expected=str(SYSTEM / "profiles" / f"{name}.toml"),
            remedy=f"move it there, or name its path: sudo ikeway up {path}",
        )


def profile_names() -> list[str]:
    """The names of the profiles that there are."""
    found: set[str] = set()
    for directory in profile_directories():
        try:
            found.update(path.stem for path in directory.glob("*.toml"))
        except OSError:  # not ours to read
            continue
    return sorted(found)


def gateway_path() -> Path:
    """The gateway's configuration when none is named."""
    return SYSTEM / "gateway.toml"


def log_file(name: str) -> Path:
    """Where a client in the background logs to: /var/log/ikeway for root, else $XDG_STATE_HOME/ikeway."""
    if os.geteuid() == 0:
        return Path("/var/log/ikeway") / f"{name}.log"
    base = os.environ.get("XDG_STATE_HOME", "")
    return (Path(base) if base.startswith("/") else Path.home() / ".local" / "state") / "ikeway" / f"{name}.log"
