"""How often somebody may fail to log in: by user, by address, and never at the cost of the right user elsewhere."""

from __future__ import annotations

import logging

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ikeway.address import Address
from ikeway.gateway import attempts
from ikeway.gateway.attempts import AttemptLimits, LoginAttempts, TooManyFailures
from ikeway.wire.registry import NotifyType

HOME, CAFE = "192.0.2.7", "198.51.100.9"


class World:
    """Log-ins in virtual time."""

    def __init__(self, **limits: float) -> None:
        self.now = 1000.0
        self.attempts = LoginAttempts(AttemptLimits(**limits), lambda: self.now)  # type: ignore[arg-type]
        self._count = 0

    def log_in(self, user: str, host: str, *, right: bool = False, guesses: int = 1) -> bool:
        """False when it was refused without a look."""
        login, remote = self.begin(), Address(host, 4500)
        try:
            self.attempts.admit(login, remote, "10.0.0.3")  # IDi, as Windows has it
            for _ in range(guesses):
                self.attempts.admit(login, remote, user, guess=True)
        except TooManyFailures as error:
            assert error.notify == NotifyType.AUTHENTICATION_FAILED
            self.attempts.ended(login, proven=None, refused=True)
            return False
        self.attempts.ended(login, proven=user if right else None, refused=not right)
        return True

    def begin(self) -> int:
        self._count += 1
        return self._count

    def fail(self, times: int, user: str = "alice", host: str = HOME) -> int:
        """How many of them were looked at."""
        return sum(self.log_in(user, host) for _ in range(times))


def test_after_five_failures_the_user_waits_there_and_longer_each_time() -> None:
    world = World()
    assert world.fail(9) == 5
    waits = []
    for _ in range(8):
        begin = world.now
        while not world.log_in("alice", HOME):
            world.now += 1
        waits.append(world.now - begin)
    assert waits == [30, 60, 120, 240, 480, 900, 900, 900]


def test_a_success_resets() -> None:
    world = World()
    for _ in range(20):
        assert world.fail(4) == 4
        assert world.log_in("Alice", HOME, right=True)
    assert len(world.attempts) == 0


def test_a_stranger_does_not_lock_the_user_out_elsewhere() -> None:
    world = World()
    for host in range(200):
        world.fail(50, host=f"203.0.113.{host}")
    for _ in range(10):
        assert world.log_in("alice", HOME, right=True)
    world.fail(1, host=CAFE)  # a slip of the finger costs half a minute then
    assert not world.log_in("alice", CAFE, right=True)
    world.now += 30
    assert world.log_in("alice", CAFE, right=True)


def test_many_addresses_have_one_try_each_against_one_user() -> None:
    world = World(per_user=30)
    looked_at = [world.fail(5, host=f"203.0.113.{host}") for host in range(100)]
    assert looked_at == [5] * 6 + [1] * 94


def test_an_address_that_tries_many_users_waits_for_all_of_them() -> None:
    world = World(per_address=50)
    assert sum(world.log_in(f"user{number}", CAFE) for number in range(200)) == 50
    assert not world.log_in("alice", CAFE, right=True)
    assert world.log_in("alice", HOME, right=True)
    world.now += 30
    assert world.log_in("alice", CAFE, right=True)


def test_an_account_of_ones_own_does_not_reset_the_guesses_at_others() -> None:
    world = World(per_address=50)
    tried = 0
    for number in range(200):
        tried += world.log_in(f"user{number}", CAFE)
        world.log_in("mallory", CAFE, right=True)
    assert tried == 50


def test_who_logs_in_resets_nobody_else() -> None:
    world, here = World(), Address(CAFE, 4500)
    refused = 0
    for _ in range(20):
        login = world.begin()
        try:
            world.attempts.admit(login, here, "alice")  # IDi, which EAP does not prove
            world.attempts.admit(login, here, "alice", guess=True)
            world.attempts.admit(login, here, "mallory", guess=True)  # another name on the retry
        except TooManyFailures:
            refused += 1
        world.attempts.ended(login, proven="mallory", refused=False)
    assert refused == 15


def test_one_device_with_a_stale_password_does_not_lock_its_office_out() -> None:
    world = World()
    for _ in range(8 * 3600):  # it tries every second, all day
        world.log_in("stale", CAFE)
        world.now += 1
        assert world.log_in("alice", CAFE, right=True)


def burst(world: World, count: int) -> int:
    """So many guesses at the same time, all wrong; returns how many were looked at."""
    logins, admitted = [world.begin() for _ in range(count)], 0
    for login in logins:
        try:
            world.attempts.admit(login, Address(HOME, 500), "alice", guess=True)
            admitted += 1
        except TooManyFailures:
            pass
    for login in logins:
        world.attempts.ended(login, proven=None, refused=True)
    return admitted


def test_guesses_at_the_same_time_count_before_they_have_failed() -> None:
    world = World()
    world.fail(1)
    assert burst(world, 40) == 4
    assert not world.log_in("alice", HOME, right=True)


def test_a_first_burst_is_paid_for_with_the_longest_wait() -> None:
    """The engine bounds it (half_open_per_address)."""
    world = World()
    assert burst(world, 40) == 40
    world.now += 899
    assert not world.log_in("alice", HOME, right=True)
    world.now += 1
    assert burst(world, 40) == 1


def test_devices_that_share_an_account_come_all_at_once() -> None:
    world = World()
    for login in range(100):
        world.attempts.admit(login, Address(HOME, 500), "office", guess=True)
    for login in range(100):
        world.attempts.ended(login, proven="office", refused=False)
    assert len(world.attempts) == 0


def test_guesses_in_one_log_in_are_counted_one_by_one() -> None:
    world = World()
    assert world.log_in("alice", HOME, guesses=5)
    assert not world.log_in("alice", HOME)


def test_a_code_after_the_password_fits_into_the_last_try() -> None:
    world = World()
    world.fail(4)
    assert world.log_in("alice", HOME, right=True, guesses=2)
    world.fail(4)
    assert not world.log_in("alice", HOME, guesses=3)


def test_many_users_behind_one_address_may_come_at_the_same_time() -> None:
    world = World(per_address=5)
    for number in range(100):
        world.attempts.admit(number, Address(CAFE, 4500), f"user{number}", guess=True)
    for number in range(100):
        world.attempts.ended(number, proven=f"user{number}", refused=False)
    assert len(world.attempts) == 0


def test_who_leaves_without_a_guess_has_not_failed() -> None:
    world = World()
    for _ in range(100):
        login = world.begin()
        world.attempts.admit(login, Address(HOME, 500), "alice")
        world.attempts.ended(login, proven=None, refused=False)
    assert len(world.attempts) == 0
    world.attempts.ended(4711, proven=None, refused=True)  # one that was never heard of


def test_a_certificate_or_key_that_is_refused_counts_for_its_identity() -> None:
    world = World()
    refused = 0
    for _ in range(9):
        login = world.begin()
        try:
            world.attempts.admit(login, Address(HOME, 500), "alice")
        except TooManyFailures:
            refused += 1
        world.attempts.ended(login, proven=None, refused=True)
    assert refused == 4


def test_the_neighbours_of_an_ipv6_host_are_the_host() -> None:
    world = World()
    assert sum(world.log_in("alice", f"2001:db8::{number:x}") for number in range(1, 20)) == 5
    assert world.log_in("alice", "2001:db8:0:1::1", right=True)


def test_failures_are_forgotten_in_an_hour() -> None:
    world = World()
    for _ in range(20):
        assert world.fail(4) == 4
        world.now += 3601


def test_no_limits() -> None:
    world = World(per_user_and_address=0, per_address=0, per_user=0)
    assert world.fail(1000) == 1000


def test_the_log_says_it_once(caplog: pytest.LogCaptureFixture) -> None:
    world = World()
    with caplog.at_level(logging.WARNING):
        world.fail(100, user="al\nice")
    assert [record.getMessage() for record in caplog.records] == [
        "5 log-ins of 'al\\nice' from 192.0.2.7 have failed; the next is refused for 30 s"
    ]


def test_memory_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attempts, "MAX_RECORDS", 100)
    world = World()
    for number in range(500):
        world.log_in(f"user{number}" * 100, f"10.0.{number // 250}.{number % 250}")
    assert len(world.attempts) == 100
    assert max(len(user) for _, user in world.attempts._records) <= 80
    assert not world.attempts._open and not world.attempts._under_way


steps = st.tuples(st.sampled_from(["alice", "bob", "mallory"]), st.sampled_from([HOME, CAFE]), st.booleans())


@given(st.lists(st.tuples(steps, st.floats(0, 400)), max_size=80))
@settings(max_examples=100)
def test_nothing_is_left_over_and_no_wait_is_longer_than_it_may_be(
    story: list[tuple[tuple[str, str, bool], float]],
) -> None:
    world = World(per_user_and_address=2, per_address=3, per_user=4)
    for (user, host, right), pause in story:
        world.log_in(user, host, right=right)
        world.now += pause
    assert not world.attempts._open and not world.attempts._under_way
    assert all(record.count > 0 for record in world.attempts._records.values())
    world.now += 900
    assert world.log_in("alice", HOME, right=True)


def test_all_secrets_of_several_log_ins_in_one_were_right() -> None:
    """A pre-shared key of the office and then a user: neither has failed."""
    world = World()
    for _ in range(20):
        login = world.begin()
        for user in ("office", "alice"):
            world.attempts.admit(login, Address(HOME, 500), user, guess=True)
        world.attempts.ended(login, proven="alice", also=["office", "alice"], refused=False)
    assert len(world.attempts) == 0


def test_the_first_of_two_secrets_alone_forgives_nothing() -> None:
    world = World()
    for _ in range(5):
        login = world.begin()
        for user in ("office", "alice"):
            world.attempts.admit(login, Address(HOME, 500), user, guess=True)
        world.attempts.ended(login, proven=None, refused=True)
    assert not world.log_in("alice", HOME) and not world.log_in("office", HOME)
