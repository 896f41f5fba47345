"""What the control commands of client and gateway have in common."""

from __future__ import annotations

import asyncio
import contextlib
import functools
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from typing import TYPE_CHECKING

from ikeway.daemon.control import Broadcast, Json
from ikeway.daemon.loop import Driver
from ikeway.daemon.status import Status
from ikeway.errors import HostError, IkewayError
from ikeway.ike import events as ike

if TYPE_CHECKING:
    from ikeway.ike.sa import IkeSa

WATCH_SECONDS = 1.0  # between two reports when nothing happens; counters change all the same
_MOST_SECONDS = 3600.0
_NEWS = (
    ike.IkeEstablished,
    ike.IkeRekeyed,
    ike.IkeClosed,
    ike.ChildUp,
    ike.ChildDown,
    ike.ChildFailed,
    ike.PathChanged,
)


def rekey(driver: Driver, sa: IkeSa, what: str, child: str) -> list[str]:
    """Begin to renew keys: `what` is "ike", "child" (all, or the one named `child`) or "login" (all of it anew).
    Returns what was begun, in words."""
    if not sa.is_alive:
        raise HostError("the connection is not up", remedy="wait until it is, and try again")
    if what == "ike":
        driver.command(sa.rekey)
        return ["the IKE SA"]
    if what == "login":
        driver.command(sa.reauthenticate)
        return ["the login"]
    if what != "child":
        raise IkewayError(f"{what!r} cannot be rekeyed", expected="ike, child or login", got=what)
    wanted = [each for each in sa.live_children if not child or each.name == child]
    if not wanted:
        known = ", ".join(each.name for each in sa.live_children) or "none"
        raise IkewayError(f"there is no child SA {child!r}", expected=known, remedy="name one of these")
    for each in wanted:
        driver.command(functools.partial(sa.rekey_child, each))
    return [f"child SA {each.name}" for each in wanted]


class Watch:
    """The stream of the `watch` command: the status at once, when something happens, and every second."""

    def __init__(self, status: Callable[[], Awaitable[Status]]) -> None:
        """`status` is asked for each report."""
        self._status = status
        self._news = Broadcast()

    def on_event(self, event: ike.Event) -> None:
        """To be given to `Driver.listen`."""
        if isinstance(event, _NEWS):
            self._news.publish({"event": type(event).__name__})

    async def stream(self, arguments: Mapping[str, Json]) -> AsyncGenerator[Json, None]:
        """Reports, as often as the argument `seconds` says and when something happens."""
        seconds = number(arguments, "seconds", WATCH_SECONDS, low=0.1, high=_MOST_SECONDS)
        async with contextlib.aclosing(self._news.listen()) as news:
            upcoming = asyncio.ensure_future(anext(news))
            try:
                while True:
                    yield (await self._status()).to_json()
                    await asyncio.wait([upcoming], timeout=seconds)
                    if upcoming.done():
                        upcoming.result()
                        upcoming = asyncio.ensure_future(anext(news))
            finally:
                upcoming.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await upcoming


def number(arguments: Mapping[str, Json], name: str, default: float, *, low: float, high: float) -> float:
    """A number among the arguments of a command. Raises `IkewayError`."""
    value = arguments.get(name, default)
    if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
        raise IkewayError(f"the argument `{name}` is not right", expected=f"a number from {low:g} to {high:g}")
    return float(value)


def text(arguments: Mapping[str, Json], name: str, default: str = "") -> str:
    """A text among the arguments of a command. Raises `IkewayError`."""
    value = arguments.get(name, default)
    if not isinstance(value, str):
        raise IkewayError(f"the argument `{name}` is not right", expected="a text")
    return value
