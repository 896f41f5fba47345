"""The client's side of the host: what is done again when it has failed."""

from ipaddress import ip_interface
from types import SimpleNamespace

import pytest

from ikeway.address import Address
from ikeway.client.assigned import Assigned
from ikeway.client.attachment import Attachment
from ikeway.client.profile import HostSettings
from ikeway.errors import HostError
from ikeway.esp.parameters import Mode
from tests.dataplane.tunnels import GCM, network


class Host:
    """Refuses what `refuses` says, once."""

    def __init__(self):
        self.done = []
        self.refuses = ""

    async def configure_tunnel(self, configuration):
        self._do("configured", configuration.interface)

    async def device_replaced(self, interface):
        self._do("replaced", interface)

    def outer_mtu(self, remote):
        return 1500

    def _do(self, what, interface):
        if what == self.refuses:
            self.refuses = ""
            raise HostError("not now")
        self.done.append((what, interface))


@pytest.mark.parametrize("refuses", ["", "replaced"])
async def test_a_device_that_could_not_be_furnished_is_furnished_with_the_next_connection(refuses):
    host, mtus = Host(), []

    async def set_mtu(mtu):
        mtus.append(mtu)

    runner = SimpleNamespace(interface="ikeway0", mark=0, in_kernel=False, set_mtu=set_mtu)
    selectors = (network("10.0.0.0/8"),)
    child = SimpleNamespace(mode=Mode.TUNNEL, remote_selectors=selectors, esp_out=SimpleNamespace(transforms=GCM))
    sa = SimpleNamespace(
        remote=Address("192.0.2.1", 4500), peer_addresses=(), live_children=[child], udp_encapsulation=True
    )
    link = SimpleNamespace(sa=sa, assigned=Assigned(addresses=(ip_interface("10.9.0.2/32"),)))
    attachment = Attachment(SimpleNamespace(host=HostSettings()), runner, host)
    assert await attachment.follow(link)
    assert await attachment.follow(link) is None
    host.refuses, runner.interface = refuses, "ikeway1"
    if refuses:
        with pytest.raises(HostError):
            await attachment.device_replaced()
        assert await attachment.follow(link)
    else:
        await attachment.device_replaced()
    assert await attachment.follow(link) is None
    assert host.done == [("configured", "ikeway0"), ("configured" if refuses else "replaced", "ikeway1")]
    assert len(mtus) == 2
    assert attachment.configuration.interface == "ikeway1"
