"""`ikeway gateway run`: a signal ends it, whenever it comes."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from ikeway.cli import gateway


class Stubborn:
    """A gateway below which somebody swallows the cancellation."""

    closed = False

    def __init__(self, *_: object, **__: object) -> None: ...

    async def start(self) -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        with pytest.raises(asyncio.CancelledError):
            await asyncio.sleep(5)

    async def close(self) -> None:
        Stubborn.closed = True

    async def wait(self) -> None:
        raise AssertionError("it serves, although it was told to end")


def test_a_signal_that_got_lost_on_the_way_still_ends_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IKEWAY_RUNTIME_DIR", str(tmp_path / "run"))
    monkeypatch.setattr("ikeway.gateway.server.Gateway", Stubborn)
    monkeypatch.setattr(gateway, "_say_ready", lambda _: None)
    config: Any = SimpleNamespace(path=Path("gw.toml"))
    trace: Any = SimpleNamespace(observe=lambda _: None)
    asyncio.run(gateway._run(config, trace))
    assert Stubborn.closed
