"""EAP-SIM of FreeRADIUS, which has triplets in its users file, with our peer. (It has no EAP-AKA.)"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from ikeway.crypto.milenage import Milenage
from ikeway.eap.authentication_centre import gsm_triplets
from ikeway.eap.errors import EapFailed
from ikeway.eap.session import EapPeer
from tests.eap.freeradius import FreeRadius, running
from tests.eap.radius_stage import log_in_by_radius
from tests.eap.sim_sides import IMSI, KI, OPC, Pair, card

pytestmark = pytest.mark.programs("freeradius")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory):
    triplets = gsm_triplets(Milenage(KI, OPC), 3, os.urandom)
    values = [
        f"EAP-Sim-Rand{number} = 0x{one.rand.hex()}, EAP-Sim-SRES{number} = 0x{one.sres.hex()}, "
        f"EAP-Sim-KC{number} = 0x{one.kc.hex()}"
        for number, one in enumerate(triplets, 1)
    ]
    entry = f"1{IMSI.decode()} EAP-Type := SIM\n\t" + ",\n\t".join(values) + "\n"
    folder: Path = tmp_path_factory.mktemp("freeradius")
    with running(folder, method="sim", more_users=entry) as running_server:
        yield running_server


def log_in(server: FreeRadius, pair: Pair) -> tuple[EapPeer, bytes | None]:
    identity = pair.identities.offer()
    peer = EapPeer(pair.ask_card, identity, [lambda: pair.peer_class(pair.identities)])
    return peer, log_in_by_radius(server.port, peer, identity)


def test_our_peer_logs_in(server: FreeRadius) -> None:
    for _ in range(2):
        peer, msk = log_in(server, Pair("sim", name=IMSI))
        assert peer.succeeded and peer.msk == msk and msk is not None and len(msk) == 64


def test_our_peer_refuses_triplets_of_another_card(server: FreeRadius) -> None:
    with pytest.raises(EapFailed, match="Ki and OPc"):
        log_in(server, Pair("sim", name=IMSI, answers=card(ki=bytes(16))))
