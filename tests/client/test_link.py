"""One connection of a client: what it makes of the engine's events, which it hears of later than they happen."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import pytest

from ikeway.client.link import Link
from ikeway.daemon.loop import Driver
from ikeway.ike.sa import IkeState
from tests.ike.pair import Pair


class Commands:
    """Carries commands out at once, as the driver does."""

    def __init__(self, pair: Pair) -> None:
        self.pair = pair

    def command(self, action: Callable[[float], Any]) -> Any:
        return action(self.pair.now)


class Linked:
    """Side a's link; `hear` is when the events of the meantime reach it."""

    def __init__(self) -> None:
        self.pair = Pair()
        self.pair.connect()
        self.told: list[str] = []
        driver = cast("Driver", Commands(self.pair))
        self.link = Link(driver, self.pair.a.sa, lambda step, text: self.told.append(text), lambda: None)
        self.heard = len(self.pair.a.log)

    def hear(self) -> None:
        happened = self.pair.a.log[self.heard :]
        self.heard = len(self.pair.a.log)
        for event in happened:
            self.link.on_event(event)

    def asks_again(self) -> None:
        """When it hears, the link has another child SA made."""
        self.hear()
        self.pair.run(1)
        assert len(self.pair.a.sa.live_children) == 1 and self.link.is_up
        self.pair.agree()


@pytest.fixture
def linked() -> Linked:
    return Linked()


def test_a_child_sa_that_reached_its_hard_limit_is_asked_for_again(linked: Linked) -> None:
    pair = linked.pair
    pair.a.sa.expire_child(pair.a.sa.children[0], pair.now)
    pair.run(1)
    assert not pair.a.sa.live_children
    linked.asks_again()


def test_a_child_sa_that_goes_before_a_rekeying_is_asked_for_again(linked: Linked) -> None:
    pair, old = linked.pair, linked.pair.a.sa
    pair.b.sa.delete_child(pair.b.sa.children[0], pair.now)
    pair.run(0.2)
    pair.b.sa.rekey(pair.now)
    pair.run(0.2)
    assert pair.a.sa is not old
    linked.asks_again()


def test_a_connection_that_was_rekeyed_unheard_is_up_and_can_be_closed(linked: Linked) -> None:
    pair, old = linked.pair, linked.pair.a.sa
    pair.b.sa.rekey(pair.now)
    pair.run(0.2)
    assert old.state is IkeState.CLOSED
    assert linked.link.is_up and linked.link.sa is pair.a.sa
    linked.link._driver.command(linked.link.sa.close)
    pair.run(1)
    linked.hear()
    assert linked.link.ended.is_set() and not pair.b.engine.sas


def test_what_was_replaced_is_not_kept(linked: Linked) -> None:
    pair, old = linked.pair, linked.pair.a.sa
    for _ in range(3):
        pair.b.sa.rekey(pair.now)
        pair.run(20)
    linked.hear()
    assert linked.link._sa is pair.a.sa is not old
