from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.interop.agreement import Agreement
from tests.interop.lab import Lab, Pair, Tunnel
from tests.interop.network import Network


@pytest.fixture(scope="session")
def network() -> Iterator[Network]:
    network = Network()
    try:
        yield network
    finally:
        network.close()


@pytest.fixture(scope="session")
def lab(network: Network, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    lab = Lab(network, Path(tmp_path_factory.mktemp("interop")))
    try:
        yield lab
    finally:
        lab.close()


@pytest.fixture
def tunnel(lab: Lab) -> Iterator[Callable[[Pair, Agreement], Tunnel]]:
    """Makes tunnels and ends them after the test."""
    made: list[Tunnel] = []

    def make(pair: Pair, agreed: Agreement) -> Tunnel:
        made.append(lab.tunnel(pair, agreed))
        return made[-1]

    yield make
    for one in made:
        one.stop()
