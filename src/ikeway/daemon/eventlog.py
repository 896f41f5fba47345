"""What an engine tells, as log lines: connections, child SAs, and every refusal with its reason and remedy."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING

from ikeway.address import Address
from ikeway.daemon.log import error_fields, event
from ikeway.errors import Closed, IkewayError
from ikeway.ike import events as ike
from ikeway.ike.selectors import format_selector
from ikeway.wire.render import summary

if TYPE_CHECKING:
    from ikeway.ike.child import ChildSa
    from ikeway.ike.sa import IkeSa
    from ikeway.wire.message import Message

log = logging.getLogger("ikeway.ike")
messages_log = logging.getLogger("ikeway.messages")  # at level debug: every message, in the clear


def report(happened: ike.Event) -> None:
    """Log an event. To be given to `Driver.listen`."""
    match happened:
        case ike.IkeEstablished(sa=sa, replaces=replaces):
            again = " again, in place of an older login" if replaces else ""
            proven = f", proven as {' and '.join(map(str, sa.proofs))}" if len(sa.proofs) > 1 else ""
            text = f"{_who(sa)} at {sa.remote} is connected{again} ({sa.suite}){proven}"
            _say(logging.INFO, "ike-up", sa, text, {"user": _who(sa), "proofs": [str(proof) for proof in sa.proofs]})
        case ike.IkeRekeyed(sa=sa):
            _say(logging.INFO, "ike-rekeyed", sa, f"the IKE SA with {_who(sa)} has new keys ({sa.suite})")
        case ike.IkeClosed(sa=sa, error=error, established=established):
            _closed(sa, error, established=established)
        case ike.ChildUp(sa=sa, child=child, replaces=replaced):
            _child_up(sa, child, rekeyed=replaced is not None)
        case ike.ChildDown(sa=sa, child=child, error=error):
            level = logging.INFO if error is None or isinstance(error, Closed) else logging.WARNING
            text = f"child SA {child.name} with {_who(sa)} is gone{_because(error)}"
            _say(level, "child-down", sa, text, {"child": child.name}, error)
        case ike.ChildFailed(sa=sa, settings=settings, error=error):
            text = f"child SA {settings.name} with {_who(sa)} was not made: {error}"
            _say(logging.WARNING, "child-failed", sa, text, {"child": settings.name}, error)
        case ike.PathChanged(sa=sa, local=local, remote=remote, udp_encapsulation=udp):
            text = f"{_who(sa)} is reached from {local.host} at {remote} now"
            _say(logging.INFO, "moved", sa, text, {"udp": udp})
        case ike.Refused(local=local, remote=remote, error=error, rate_limited=limited):
            _refused(local, remote, error, limited=limited)
        case ike.PeerSeen(sa=sa, what=what):
            _say(logging.DEBUG, "step", sa, what)
        case ike.Weak(sa=sa, reason=reason, remedy=remedy):
            _say(logging.WARNING, "weak", sa, f"{sa.remote}: {reason}; {remedy}", {"reason": reason, "remedy": remedy})
        case ike.MessageSent(message=message, remote=remote, retransmission=count):
            _message("sent", f"to {remote}{f' (again, {count})' if count else ''}", message, remote)
        case ike.MessageReceived(message=message, remote=remote):
            _message("received", f"from {remote}", message, remote)


def _child_up(sa: IkeSa, child: ChildSa, *, rekeyed: bool) -> None:
    local = ", ".join(map(format_selector, child.local_selectors))
    remote = ", ".join(map(format_selector, child.remote_selectors))
    does = "has new keys" if rekeyed else f"carries {local} to {remote}"
    _say(
        logging.INFO,
        "child-rekeyed" if rekeyed else "child-up",
        sa,
        f"child SA {child.name} with {_who(sa)} {does} ({child.suite})",
        {
            "child": child.name,
            "spi_in": f"{child.spi_in:08x}",
            "spi_out": f"{child.spi_out:08x}",
            "local_selectors": local,
            "remote_selectors": remote,
        },
    )


def _refused(local: Address, remote: Address, error: IkewayError, *, limited: bool) -> None:
    about: dict[str, object] = {"local": local, "remote": remote, **error_fields(error)}
    level = logging.INFO if limited else logging.WARNING
    event(log, level, "refused", f"{remote} was refused: {error}", about, limited=remote.host if limited else "")


def _message(name: str, whereto: str, message: Message, remote: Address) -> None:
    if messages_log.isEnabledFor(logging.DEBUG):
        event(messages_log, logging.DEBUG, name, f"{whereto}: {summary(message)}", {"remote": remote})


def _closed(sa: IkeSa, error: IkewayError | None, *, established: bool) -> None:
    if not established:
        # The responder has reported the refusal itself; the initiator's caller gets the error.
        _say(logging.DEBUG, "login-failed", sa, f"the login with {sa.remote} failed{_because(error)}", None, error)
        return
    level = logging.INFO if error is None or isinstance(error, Closed) else logging.WARNING
    text = f"{_who(sa)} at {sa.remote} is disconnected{_because(error)}"
    _say(level, "ike-down", sa, text, {"user": _who(sa)}, error)


def _who(sa: IkeSa) -> str:
    """The EAP user where EAP told one, else the peer's identity."""
    return sa.eap_identity.decode("utf-8", "replace") if sa.eap_identity else str(sa.remote_identity)


def _because(error: IkewayError | None) -> str:
    return f": {error}" if error else ""


def _say(
    level: int,
    name: str,
    sa: IkeSa,
    text: str,
    fields: Mapping[str, object] | None = None,
    error: IkewayError | None = None,
) -> None:
    about: dict[str, object] = {
        "connection": sa.name,
        "id": sa.connection_id,
        "local": sa.local,
        "remote": sa.remote,
        "local_identity": sa.local_identity,
        "remote_identity": sa.remote_identity,
        **(fields or {}),
        **(error_fields(error) if error else {}),
    }
    event(log, level, name, text, about)
