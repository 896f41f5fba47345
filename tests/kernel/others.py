"""Our client and gateway against libreswan and OpenIKED, which want a kernel with IPsec: a suite for one boot."""

from tests.kernel import libreswan, openiked, probes  # noqa: F401 - their cases
from tests.kernel.daemons import SUITE, prepare

__all__ = ["SUITE", "prepare"]
