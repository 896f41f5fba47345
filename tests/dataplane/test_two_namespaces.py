"""Two workers in two network namespaces, static keys: real packets through real devices."""

from __future__ import annotations

import asyncio
import os

import pytest

from tests.dataplane.namespaces import run_in
from tests.dataplane.tunnels import Side, connect, two_sides

pytestmark = [pytest.mark.root, pytest.mark.skipif(os.geteuid() != 0, reason="needs root: namespaces and TUN")]


async def ping(side: Side, address: str, count: int = 3, *options: str) -> str:
    result = await asyncio.to_thread(
        run_in, side.namespace, "ping", "-n", "-i", "0.01", "-c", str(count), "-W", "2", *options, address
    )
    return result.stdout + result.stderr


async def test_ping_both_families() -> None:
    async with two_sides() as (left, right):
        await connect(left, right)
        assert " 0% packet loss" in await ping(left, right.inner)
        assert " 0% packet loss" in await ping(right, left.inner_ipv6)
