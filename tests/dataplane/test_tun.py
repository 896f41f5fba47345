"""Opening TUN devices."""

from __future__ import annotations

import contextlib
import os

import pytest

from ikeway.errors import HostError
from ikeway.host.tun import TunDevice, open_tun
from tests.dataplane.namespaces import inside, ip, two_namespaces


def test_long_names_are_refused() -> None:
    with pytest.raises(HostError, match="too long"):
        open_tun("a-name-of-16-oct")


def test_closing_twice_is_no_mistake() -> None:
    reading, writing = os.pipe()
    os.close(writing)
    device = TunDevice(reading, "pipe")
    device.close()
    device.close()
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(reading)


@pytest.mark.root
def test_devices_come_and_go() -> None:
    with two_namespaces("iktun") as (here, _), contextlib.ExitStack() as stack:
        first = inside(here, lambda: open_tun("ike%d"))
        stack.callback(first.close)
        plain = inside(here, lambda: open_tun("plain", vnet_header=False))
        stack.callback(plain.close)
        assert (first.name, plain.name, first.vnet_header, plain.vnet_header) == ("ike0", "plain", True, False)
        with pytest.raises(HostError, match="in use"):
            inside(here, lambda: open_tun("plain"))
        # What ESP makes of a super-packet has to fit one send.
        assert "vnet_hdr on" in ip("-d", "link", "show", "ike0", namespace=here)
        assert "gso_max_size 60000" in ip("-d", "link", "show", "ike0", namespace=here)
        assert "qlen 2000" in ip("link", "show", "plain", namespace=here)
        assert "vnet_hdr off" in ip("-d", "link", "show", "plain", namespace=here)
        first.close()
        assert "ike0" not in ip("link", "show", namespace=here)
