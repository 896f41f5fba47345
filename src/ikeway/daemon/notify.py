"""Tells systemd that a service is ready (sd_notify(3)), where it asks for that."""

from __future__ import annotations

import contextlib
import os
import socket


def notify_ready() -> None:
    """Send READY=1 to $NOTIFY_SOCKET. Nothing happens without one; a systemd that does not listen is no reason to end."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address.startswith(("/", "@")):
        return
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as notify:
        notify.connect("\0" + address[1:] if address.startswith("@") else address)
        notify.send(b"READY=1")
