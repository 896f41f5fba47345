"""A machine's certificate and then its user, whom FreeRADIUS judges (RFC 4739): what companies have."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.interop.agreement import CLIENT_NAME, Agreement, agreement
from tests.interop.freeradius import RADIUS_SECRET, FreeRadius
from tests.interop.lab import Pair, Tunnel
from tests.interop.network import LAN_HOST
from tests.interop.strongswan import ConnectFailed
from tests.interop.test_radius import ours, serve, user  # noqa: F401 - `serve` is a fixture
from tests.interop.waiting import wait_until

pytestmark = [pytest.mark.peer, pytest.mark.programs("freeradius", "freeradius-utils")]

Make = Callable[[Pair, Agreement], Tunnel]
CLIENTS = pytest.mark.parametrize("client", ["ikeway", "charon"])


def certificate_and_radius(groups: list[str], **client: Any) -> Agreement:
    servers = {"servers": [LAN_HOST[4]], "secret": RADIUS_SECRET, "timeout": "1s", "accounting": True}
    then = {"login": "eap", "radius": "lab"} | ({"groups": groups} if groups else {})
    configuration = {"radius": {"lab": servers}, "connections": {"lab": {"then": [then]}}}
    return agreement("rsa", client={"then": ("eap-mschapv2",), **client}, gateway={"ours": configuration})


@CLIENTS
@pytest.mark.parametrize("groups", [[], ["staff"]], ids=["all", "of-a-group"])
def test_log_in(tunnel: Make, serve: Callable[..., FreeRadius], client: str, groups: list[str]) -> None:  # noqa: F811
    server = serve(user('Filter-Id = "staff"'))
    made = tunnel(Pair(client, "ikeway"), certificate_and_radius(groups))
    made.client.connect()
    made.check_ping()
    (session,) = ours(made).sessions()
    assert session.eap_identity == CLIENT_NAME and len(session.proofs) == 2
    assert session.proofs[0] == f"{CLIENT_NAME} by certificate"
    assert server.wait_for_record("Start").attributes["User-Name"] == CLIENT_NAME
    made.client.close()


@CLIENTS
def test_a_user_of_another_group(tunnel: Make, serve: Callable[..., FreeRadius], client: str) -> None:  # noqa: F811
    serve(user('Filter-Id = "guests"'))
    made = tunnel(Pair(client, "ikeway"), certificate_and_radius(["staff"]))
    with pytest.raises(ConnectFailed):
        made.client.connect()
    wait_until(lambda: "no connection here is for this user" in made.gateway.log(), "unsaid", 5, made.logs)
    wait_until(lambda: not ours(made).sessions(), "a session is left", logs=made.logs)


@CLIENTS
def test_a_wrong_password(tunnel: Make, serve: Callable[..., FreeRadius], client: str) -> None:  # noqa: F811
    serve(user())
    wrong = {"then_password": "wrong", "password": "wrong"}
    made = tunnel(Pair(client, "ikeway"), certificate_and_radius([], **wrong))
    with pytest.raises(ConnectFailed):
        made.client.connect()
    wait_until(lambda: "EAP refused" in made.gateway.log(), "unsaid", 5, made.logs)
    wait_until(lambda: not ours(made).sessions(), "a session is left", logs=made.logs)
