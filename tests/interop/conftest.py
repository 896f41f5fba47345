from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.interop.agreement import Agreement
from tests.interop.lab import Lab, Pair, Tunnel
from tests.interop.network import Network
from tests.interop.rootless import HOST, NAME_SERVER, Runner, make_runner


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


@pytest.fixture
def runner(network: Network, lab: Lab) -> Iterator[Runner]:
    with tempfile.TemporaryDirectory() as folder:  # pytest's own are closed to other users
        made = make_runner(network, lab, Path(folder))
        yield made
        made.stop()


@pytest.fixture
def name_server(network: Network) -> Iterator[None]:
    process = network.lan.popen([sys.executable, "-c", NAME_SERVER], stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    yield
    process.kill()
    process.communicate()


@pytest.fixture
def named_runner(network: Network, lab: Lab, name_server: None) -> Iterator[Runner]:
    with tempfile.TemporaryDirectory() as folder:
        made = make_runner(network, lab, Path(folder), dns_servers=[HOST], domains=["corp.test"])
        yield made
        made.stop()
