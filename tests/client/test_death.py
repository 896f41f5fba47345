"""A client and its data plane when that fails: what becomes of the connection."""

from types import SimpleNamespace

import pytest

from ikeway.client import reach
from ikeway.client.client import Client, ClientState
from ikeway.client.profile import load_profile
from ikeway.dataplane.interface import DataPlaneDied
from ikeway.errors import HostError
from ikeway.ike import events as ike
from tests.client.live import private

PROFILE = """
[gateway]
address = "192.0.2.1"
[login]
method = "psk"
identity = "ann@test"
psk = "a shared secret that is long enough"
"""


class Stage:
    """A client whose gateway lets it in at once, after `before` was called."""

    def __init__(self, folder, monkeypatch):
        self.client = Client(load_profile(private(folder / "work.toml", PROFILE)))
        self.closed = []
        self.before = lambda: None
        self.sa = SimpleNamespace(
            is_initiator=True,
            is_alive=True,
            connection_id=1,
            remote_identity="gw.test",
            configuration=(),
            live_children=[SimpleNamespace(name=each.name) for each in self.client._connection.children],
            close=self.closed.append,
        )
        self.sa.latest = self.sa
        stage = self

        class Established:
            def __init__(self, *_, **__):
                pass

            async def establish(self):
                stage.before()
                stage.client._on_event(ike.IkeEstablished(stage.sa))
                return stage.sa

        async def found():
            pass

        monkeypatch.setattr(reach, "Reach", Established)
        monkeypatch.setattr(self.client, "_find_gateways", found)
        monkeypatch.setattr(self.client, "_paths", lambda outcome: [])
        driver = SimpleNamespace(command=lambda action: action(1.0))
        self.client.runner = SimpleNamespace(driver=driver, engine=None)


@pytest.fixture
def stage(tmp_path, monkeypatch):
    return Stage(tmp_path, monkeypatch)


async def test_given_up_during_the_log_in(stage):
    """There is no connection yet that could be dropped with it; what comes of the log-in carries nothing."""
    stage.before = lambda: stage.client._on_dataplane_died(DataPlaneDied("it died again and again", repeatedly=True))
    with pytest.raises(HostError, match="the data plane died"):
        await stage.client._connect()
    assert len(stage.closed) == 1
    assert stage.client.state is not ClientState.UP


@pytest.mark.parametrize(
    ("event", "dropped"),
    [
        (ike.OutboundAdded(None, None), True),
        (ike.PathChanged(None, None, None, True), True),
        (ike.InboundRemoved(7, None), False),
        (ike.OutboundRemoved(7, None, None), False),
    ],
)
async def test_what_it_cannot_do(stage, event, dropped):
    await stage.client._connect()
    assert stage.client.state is ClientState.UP
    stage.client._on_refused_sa(event, HostError("the data plane does not answer"))
    assert len(stage.closed) == dropped
