"""Files that are there whole or not at all, and whose secrets nobody else can read at any moment."""

from __future__ import annotations

import os
import secrets
from pathlib import Path

from ikeway.errors import ConfigError, HostError


def make_directory(path: Path, mode: int) -> None:
    """Make a directory, and what is above it, unless it is there."""
    try:
        path.mkdir(mode=mode, parents=True, exist_ok=True)
    except OSError as error:
        raise HostError(
            f"the directory {path} cannot be made: {error.strerror}", remedy="choose another one with --dir"
        ) from error


def write_new(path: Path, octets: bytes, mode: int) -> None:
    """Write a file that must not be there yet."""
    temporary = _write_temporary(path, octets, mode)
    try:
        os.link(temporary, path)  # unlike a rename it fails when there is one
    except FileExistsError as error:
        raise ConfigError(
            f"{path} exists and is not overwritten", file=str(path), remedy="move it away, or choose another name"
        ) from error
    except OSError as error:
        raise _cannot_write(path, error) from error
    finally:
        temporary.unlink(missing_ok=True)
    _sync_directory(path.parent)


def replace_file(path: Path, octets: bytes, mode: int) -> None:
    """Write a file in place of the one that may be there."""
    temporary = _write_temporary(path, octets, mode)
    try:
        temporary.replace(path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise _cannot_write(path, error) from error
    _sync_directory(path.parent)


def _write_temporary(path: Path, octets: bytes, mode: int) -> Path:
    """Write beside the target, under a name of its own, with its permissions from the first moment."""
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        descriptor = os.open(temporary, flags, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            os.fchmod(file.fileno(), mode)
            file.write(octets)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise _cannot_write(path, error) from error
    return temporary


def _sync_directory(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _cannot_write(path: Path, error: OSError) -> HostError:
    return HostError(
        f"{path} cannot be written: {error.strerror}",
        remedy="check the directory's owner and permissions, and the space on the disk",
    )
