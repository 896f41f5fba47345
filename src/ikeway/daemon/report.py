"""What an engine tells, as log lines: connections, child SAs, and every refusal with its reason and remedy."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from ikeway.daemon.log import error_fields, event
from ikeway.errors import Closed, IkewayError
from ikeway.ike import events as ike
from ikeway.ike.selectors import format_selector
from ikeway.wire.render import summary

if TYPE_CHECKING:
    from ikeway.ike.sa import IkeSa

log = logging.getLogger("ikeway.ike")
messages_log = logging.getLogger("ikeway.messages")  # at level debug: every message, in the clear


def report(happened: ike.Event) -> None:
    """Log an event. To be given to `Driver.listen`."""
    match happened:
        case ike.IkeEstablished(sa=sa, replaces=replaces):
            who = sa.eap_identity.decode("utf-8", "replace") if sa.eap_identity else sa.remote_identity
            again = " again, in place of an older login" if replaces else ""
            _say(logging.INFO, "ike-up", sa, f"{who} at {sa.remote} is connected{again} ({sa.suite})", user=who)
        case ike.IkeRekeyed(sa=sa):
            _say(logging.INFO, "ike-rekeyed", sa, f"the IKE SA with {sa.remote_identity} has new keys ({sa.suite})")
        case ike.IkeClosed(sa=sa, error=error, established=established):
            _closed(sa, error, established=established)
        case ike.ChildUp(sa=sa, child=child, replaces=replaced):
            local = ", ".join(map(format_selector, child.local_selectors))
            remote = ", ".join(map(format_selector, child.remote_selectors))
            verb = "has new keys" if replaced else f"carries {local} to {remote}"
            fields = {"spi_in": f"{child.spi_in:08x}", "spi_out": f"{child.spi_out:08x}"}
            name = "child-rekeyed" if replaced else "child-up"
            text = f"child SA {child.name} with {sa.remote_identity} {verb} ({child.suite})"
            _say(logging.INFO, name, sa, text, child=child.name, **fields)
        case ike.ChildDown(sa=sa, child=child, error=error):
            why = f": {error}" if error else ""
            level = logging.INFO if error is None or isinstance(error, Closed) else logging.WARNING
            text = f"child SA {child.name} with {sa.remote_identity} is gone{why}"
            _say(level, "child-down", sa, text, error=error, child=child.name)
        case ike.ChildFailed(sa=sa, settings=settings, error=error):
            text = f"child SA {settings.name} with {sa.remote_identity} was not made: {error}"
            _say(logging.WARNING, "child-failed", sa, text, error=error, child=settings.name)
        case ike.PathChanged(sa=sa, local=local, remote=remote, udp_encapsulation=udp):
            text = f"{sa.remote_identity} is reached from {local.host} at {remote} now"
            _say(logging.INFO, "moved", sa, text, udp=udp)
        case ike.Refused(local=local, remote=remote, error=error, rate_limited=limited):
            fields = {"local": local, "remote": remote, **error_fields(error)}
            level = logging.INFO if limited else logging.WARNING
            who = remote.host if limited else ""
            event(log, level, "refused", f"{remote} was refused: {error}", limited=who, **fields)
        case ike.PeerSeen(sa=sa, what=what):
            _say(logging.DEBUG, "step", sa, what)
        case ike.MessageSent(message=message, remote=remote, retransmission=count):
            if messages_log.isEnabledFor(logging.DEBUG):
                again = f" (again, {count})" if count else ""
                event(messages_log, logging.DEBUG, "sent", f"to {remote}{again}: {summary(message)}", remote=remote)
        case ike.MessageReceived(message=message, remote=remote):
            if messages_log.isEnabledFor(logging.DEBUG):
                event(messages_log, logging.DEBUG, "received", f"from {remote}: {summary(message)}", remote=remote)


def _closed(sa: IkeSa, error: IkewayError | None, *, established: bool) -> None:
    if not established:
        # The responder has reported the refusal itself; the initiator's caller gets the error.
        why = f": {error}" if error else ""
        _say(logging.DEBUG, "login-failed", sa, f"the login with {sa.remote} came to nothing{why}", error=error)
        return
    who = sa.eap_identity.decode("utf-8", "replace") if sa.eap_identity else sa.remote_identity
    quiet = error is None or isinstance(error, Closed)
    why = f": {error}" if error else ""
    level = logging.INFO if quiet else logging.WARNING
    _say(level, "ike-down", sa, f"{who} at {sa.remote} is disconnected{why}", error=error, user=who)


def _say(level: int, name: str, sa: IkeSa, text: str, *, error: IkewayError | None = None, **fields: object) -> None:
    about: dict[str, object] = {
        "connection": sa.name,
        "id": sa.connection_id,
        "local": sa.local,
        "remote": sa.remote,
        "local_identity": sa.local_identity,
        "remote_identity": sa.remote_identity,
    }
    event(log, level, name, text, **about, **fields, **(error_fields(error) if error else {}))
