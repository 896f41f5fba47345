"""Writes a recording while it happens. Each line is written through at once: the last ones are wanted most."""

from __future__ import annotations

import json
import logging
import os
import stat
import time
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType

from ikeway import __version__
from ikeway.address import Address
from ikeway.daemon.keylog import esp_record
from ikeway.errors import Closed, HostError
from ikeway.esp.parameters import EspSa
from ikeway.ike import events
from ikeway.wire.message import Message
from ikeway.workbench.recording.format import MARK, VERSION

log = logging.getLogger("ikeway.workbench")

_KEY_NAMES = ("sk_d", "sk_ai", "sk_ar", "sk_ei", "sk_er", "sk_pi", "sk_pr")


class Recorder:
    """The file, its owner's only: it holds all keys. Give `observe` the engine's events, `tap` the datagrams."""

    def __init__(self, path: Path, role: str) -> None:
        """Begin a new file. Raises `HostError`; a file that is there already is not touched."""
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW
        try:
            self._fd = os.open(path, flags, stat.S_IRUSR | stat.S_IWUSR)
        except FileExistsError:
            raise HostError(f"the recording {path} is there already", remedy="name another file, or move it") from None
        except OSError as error:
            raise HostError(
                f"the recording {path} cannot be written: {error.strerror}", remedy="name another"
            ) from None
        self.path = path
        self.error: OSError | None = None  # why it ended before the session did
        self._begun = time.monotonic()
        began = datetime.now(UTC).isoformat()
        self._write({MARK: VERSION, "role": role, "began": began, "by": f"ikeway {__version__}"})
        if self.error is not None:
            raise HostError(
                f"the recording {path} cannot be written: {self.error.strerror}", remedy="name a place with room for it"
            )
        log.warning("ALL SESSION KEYS ARE WRITTEN TO %s: whoever has that file can read the traffic", path)

    def observe(self, event: events.Event, label: str = "") -> None:
        """Note what an event tells, if it belongs into a recording. `label`: which of a relay's sides it is of."""
        match event:
            case events.MessageSent(message=message, local=local, remote=remote, retransmission=again):
                self._message(message, local, remote, label, sent=True, again=again)
            case events.MessageReceived(message=message, local=local, remote=remote):
                self._message(message, local, remote, label, sent=False, again=0)
            case events.IkeKeysDerived():
                self._keys(event)
            case events.ChildKeysDerived(inbound=inbound, outbound=outbound):
                self._esp(inbound, inbound=True)
                self._esp(outbound, inbound=False)
            case events.Refused(remote=remote, error=error):
                self.note("error", f"{remote} was refused: {error}", label)
            case events.IkeClosed(error=error):
                kind = "closed" if error is None or isinstance(error, Closed) else "error"
                self.note(kind, str(error) if error is not None else "by us", label)

    def tap(self, octets: bytes, local: Address, remote: Address, sent: bool) -> None:
        """Note a datagram as it is on the wire."""
        self._event("datagram", sent=sent, local=list(local), remote=list(remote), octets=octets.hex())

    def note(self, kind: str, text: str, label: str = "") -> None:
        """Note what was done."""
        self._event("note", kind=kind, text=text, **_labelled(label))

    def close(self) -> None:
        """Close the file. Idempotent."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def __enter__(self) -> Recorder:
        """Return itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the file."""
        self.close()

    def _message(
        self, message: Message, local: Address, remote: Address, label: str, *, sent: bool, again: int
    ) -> None:
        octets, more = message.encode().hex(), _labelled(label)
        self._event("message", sent=sent, local=list(local), remote=list(remote), again=again, octets=octets, **more)

    def _keys(self, event: events.IkeKeysDerived) -> None:
        keys = {name: getattr(event.keys, name).hex() for name in _KEY_NAMES}
        self._event(
            "keys",
            spi_i=event.initiator_spi.hex(),
            spi_r=event.responder_spi.hex(),
            proposal=str(event.suite),
            **keys,
        )

    def _esp(self, esp: EspSa, *, inbound: bool) -> None:
        record = esp_record(esp, inbound=inbound) or ""
        self._event("esp", spi=f"{esp.spi:08x}", algorithms=esp.transforms.encryption.name, wireshark=record)

    def _event(self, what: str, **fields: object) -> None:
        self._write({"what": what, "t": round(time.monotonic() - self._begun, 6), **fields})

    def _write(self, line: dict[str, object]) -> None:
        if self._fd < 0:
            return
        octets = json.dumps(line).encode() + b"\n"
        try:
            while octets:
                octets = octets[os.write(self._fd, octets) :]
        except OSError as error:  # the session goes on: a full disk is no reason to leave the peer
            self.close()
            self.error = error
            log.error("The recording %s ends here, what follows is not in it: %s", self.path, error.strerror)


def _labelled(label: str) -> dict[str, str]:
    return {"label": label} if label else {}
