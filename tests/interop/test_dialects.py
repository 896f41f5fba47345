"""Dialects of gateways that are not at hand, to a gateway that knows none of them: what they add is in nobody's way."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest

from tests.interop.agreement import Agreement, agreement
from tests.interop.lab import Pair, Tunnel

pytestmark = pytest.mark.peer

Make = Callable[[Pair, Agreement], Tunnel]


# What charon logs of what the dialect sent.
SEEN = {
    "anyconnect": r"CISCO-DELETE-REASON|Cisco Delete Reason|CISCO-ANYCONNECT-EAP|43:49:53:43:4f:2d",
    "fortigate": r"4c:53:42:7b:6d:46:5d:1b",
    "windows": r"MS NT5 ISAKMPOAKLEY",
}


@pytest.mark.parametrize("auth", ["eap-mschapv2", "rsa"])
@pytest.mark.parametrize("dialect", list(SEEN))
def test_charon_passes_over_what_a_dialect_adds(tunnel: Make, dialect: str, auth: str) -> None:
    login = {"method": "certificate" if auth == "rsa" else auth}
    ours = {"gateway": {"dialect": dialect}, "login": login}
    made = tunnel(Pair("ikeway", "charon"), agreement(auth, client={"ours": ours}))
    made.client.connect()
    made.check_ping()
    assert re.search(SEEN[dialect], made.charon.log())
    made.client.close()
