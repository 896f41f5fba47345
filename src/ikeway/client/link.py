"""One connection of a client, from log-in to end: what the engine's events say of it."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from ikeway.client.assigned import Assigned, read_assigned
from ikeway.daemon import clock
from ikeway.daemon.loop import Driver
from ikeway.errors import Closed, IkewayError, NegotiationFailed
from ikeway.ike import events as ike

if TYPE_CHECKING:
    from ikeway.ike.child import ChildSa
    from ikeway.ike.sa import IkeSa

log = logging.getLogger("ikeway.client")

_CHILDREN_SECONDS = 60.0  # for the child SAs after the log-in
_CLOSE_SECONDS = 3.0  # for the gateway's answer to our delete

Report = Callable[[str, str], None]


class Link:
    """`sa` is the IKE SA of now: rekeying and reauthentication put another one in its place. The engine is ahead of its
    events, as these wait for the data plane: what they tell of may have been rekeyed since.

    `on_change` is called when the host has to look again at what was agreed.
    """

    def __init__(self, driver: Driver, sa: IkeSa, report: Report, on_change: Callable[[], None]) -> None:
        """`sa` has just been established."""
        self._sa = sa
        self.since = clock.now()
        self.assigned: Assigned = read_assigned(sa.configuration)
        self.ended = asyncio.Event()
        self.error: IkewayError | None = None  # why it ended
        self._driver = driver
        self._report = report
        self._on_change = on_change
        self._news = asyncio.Event()
        self._settled: dict[str, IkewayError | None] = {child.name: None for child in sa.live_children}
        self._tried_again: set[str] = set()
        self._told_of_assigned()

    @property
    def sa(self) -> IkeSa:
        """The IKE SA of now."""
        return self._sa.latest

    @property
    def is_up(self) -> bool:
        """True while it can carry traffic."""
        return not self.ended.is_set() and bool(self.sa.live_children)

    def owns(self, sa: IkeSa) -> bool:
        """True for the SA of now and those that rekeying made or replaced."""
        return self.sa is sa or self.sa.connection_id == sa.connection_id

    def on_event(self, event: ike.Event) -> None:
        """Take in what the engine tells."""
        match event:
            case ike.IkeEstablished(sa=sa, replaces=replaces) if replaces is not None and self.owns(replaces):
                # Reauthentication: the new SA has a log-in, addresses and child SAs of its own.
                self._sa, self.assigned = sa, read_assigned(sa.configuration)
                self._report("reauthenticated", f"the gateway is {sa.remote_identity}")
                self._changed()
            case ike.IkeRekeyed(sa=sa, old=old) if self._sa is old:
                self._sa = sa
            case ike.IkeClosed(sa=sa, error=error) if self.sa is sa:
                self._end(error)
            case ike.ConfigurationReceived(sa=sa, attributes=attributes) if self.owns(sa):
                assigned = read_assigned(attributes)
                if assigned != self.assigned:
                    self.assigned = assigned
                    self._told_of_assigned()
                    self._changed()
            case ike.ChildUp(sa=sa, child=child) if self.owns(sa):
                self._settled[child.name] = None
                self._tried_again.discard(child.name)
                self._changed()
            case ike.ChildFailed(sa=sa, settings=settings, error=error) if self.owns(sa):
                self._report("child", f"child SA {settings.name} was not made: {error}")
                self._settled[settings.name] = error
                self._changed()
                if settings.name in self._tried_again and not self.sa.live_children:
                    self.drop(error)
            case ike.ChildDown(sa=sa, child=child, error=error) if self.owns(sa):
                self._on_child_down(child, error)
            case ike.PathChanged(sa=sa, local=local, remote=remote) if self.owns(sa):
                self._report("move", f"the tunnel goes from {local} to {remote} now")
                self._changed()

    async def wait_for_children(self, names: Sequence[str]) -> None:
        """Wait until all child SAs are up or refused. Raises why, when none is up; the connection is closed then."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_CHILDREN_SECONDS):
                while not self.ended.is_set() and any(name not in self._settled for name in names):
                    self._news.clear()
                    await self._news.wait()
        if self.ended.is_set():
            raise self.error or Closed("the connection was closed")
        if names and not self.sa.live_children:
            error = next((each for each in self._settled.values() if each), None)
            error = error or NegotiationFailed("no child SA came up", remedy="see the gateway's log")
            self.drop(error)
            raise error

    def drop(self, error: IkewayError) -> None:
        """Close it from our side, because of `error`. It counts as ended soon, whether the gateway answers or not."""
        if self.ended.is_set() or self.error is not None:
            return
        self.error = error
        asyncio.get_running_loop().call_later(_CLOSE_SECONDS, self._end, error)
        self._driver.command(self.sa.close)

    async def close(self) -> None:
        """Delete it, and wait for the gateway's answer, but not long."""
        if not self.ended.is_set():
            self.error = self.error or Closed("closed by us")
            self._driver.command(self.sa.close)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_CLOSE_SECONDS):
                    await self.ended.wait()

    def _end(self, error: IkewayError | None) -> None:
        self.error = self.error or error or Closed("the connection was closed")
        self.ended.set()
        self._changed()

    def _changed(self) -> None:
        self._news.set()
        self._on_change()

    def _told_of_assigned(self) -> None:
        for each in self.assigned.ignored:
            log.warning("The gateway assigned something that makes no sense: %s", each)
        if told := ", ".join(str(each.ip) for each in self.assigned.addresses):
            self._report("address", f"the gateway assigned {told}")

    def _on_child_down(self, child: ChildSa, error: IkewayError | None) -> None:
        """The gateway deleted a child SA: it is asked for once more. Without any, the connection is worth nothing."""
        self._changed()
        if self.ended.is_set() or self.error is not None or not self.sa.is_alive:
            return
        self._report("child", f"child SA {child.name} is gone" + (f": {error}" if error else ""))
        if error is None:
            return
        if child.name not in self._tried_again:
            self._tried_again.add(child.name)
            self._driver.command(lambda now: self.sa.create_child(child.settings, now))
        elif not self.sa.live_children:
            self.drop(error)
