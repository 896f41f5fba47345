"""Who carries ESP: what was asked for, and what the kernel has."""

import logging

import pytest

from ikeway.dataplane import choice
from ikeway.dataplane.kernel.support import KernelSupport, Missing
from ikeway.errors import HostError

NO_INTERFACES = Missing("no xfrm interfaces", "load them", fatal=False)
NO_ESP = Missing("no ESP", "take another kernel")
WITH_ALL, PLAIN = KernelSupport(True, True), KernelSupport(True, False, (NO_INTERFACES,))
NOTHING = KernelSupport(False, False, (NO_ESP, NO_INTERFACES))


@pytest.mark.parametrize(
    ("wish", "found", "chosen"),
    [
        ("auto", WITH_ALL, WITH_ALL),
        ("auto", PLAIN, None),
        ("auto", NOTHING, None),
        ("kernel", WITH_ALL, WITH_ALL),
        ("kernel", PLAIN, PLAIN),
        ("userspace", WITH_ALL, None),
    ],
)
def test_choice(monkeypatch, wish, found, chosen):
    monkeypatch.setattr(choice, "kernel_support", lambda: found)
    assert choice.choose(wish) is chosen


def test_a_kernel_that_was_asked_for_and_cannot_is_an_error_with_a_remedy(monkeypatch):
    monkeypatch.setattr(choice, "kernel_support", lambda: NOTHING)
    with pytest.raises(HostError) as error:
        choice.choose("kernel")
    assert "no ESP" in error.value.reason
    assert "take another kernel" in error.value.remedy and "userspace" in error.value.remedy


def test_why_auto_does_not_take_it_is_logged(monkeypatch, caplog):
    monkeypatch.setattr(choice, "kernel_support", lambda: PLAIN)
    with caplog.at_level(logging.INFO, "ikeway.dataplane"):
        choice.choose("auto")
    assert "no xfrm interfaces" in caplog.text


def test_this_host_says_what_it_lacks():
    found = choice.kernel_support()
    assert found.available or any(each.fatal for each in found.missing)
    assert all(each.remedy for each in found.missing)
