"""Named deadlines against a model: a dictionary."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from ikeway.ike.timers import Timers

names = st.sampled_from(["a", "b", ("retransmit", 1), ("retransmit", 2)])
moments = st.integers(0, 20).map(float)
steps = st.one_of(
    st.tuples(st.just("set"), names, moments),
    st.tuples(st.just("cancel"), names),
    st.tuples(st.just("pop"), moments),
    st.tuples(st.just("clear")),
)


@settings(max_examples=200)
@given(st.lists(steps, max_size=60))
def test_against_a_dictionary(script):
    timers, model = Timers(), {}
    for step in script:
        match step:
            case ("set", name, at):
                timers.set(name, at)
                model[name] = at
            case ("cancel", name):
                timers.cancel(name)
                model.pop(name, None)
            case ("clear",):
                timers.clear()
                model.clear()
            case ("pop", now):
                popped = timers.pop_due(now)
                due = [name for name, at in model.items() if at <= now]
                if popped is None:
                    assert not due
                else:
                    assert model[popped] == min(model.values()) <= now
                    del model[popped]
        assert timers.next() == min(model.values(), default=None)
        for name in ("a", "b", ("retransmit", 1), ("retransmit", 2)):
            assert timers.get(name) == model.get(name)
            assert (name in timers) == (name in model)


def test_what_falls_due_together_comes_in_the_order_in_which_it_was_set():
    timers = Timers()
    for name in ("one", "two", "three"):
        timers.set(name, 5.0)
    assert [timers.pop_due(5.0) for _ in range(4)] == ["one", "two", "three", None]


def test_everything_set_is_told_of():
    heard = []
    timers = Timers(lambda: heard.append(timers.next()))
    timers.set("a", 5.0)
    timers.set("b", 3.0)
    timers.set("a", 1.0)
    assert heard == [5.0, 3.0, 1.0]


def test_setting_one_again_and_again_takes_no_memory():
    timers = Timers()
    for number in range(100_000):
        timers.set("dpd", float(number))
        timers.set("retransmit", float(number))
        timers.cancel("retransmit")
    assert len(timers._heap) < 100
    assert timers.next() == 99_999.0
