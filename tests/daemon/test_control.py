"""The control socket: requests, results, errors, streams; only for its owner."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
import threading
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from ikeway.cli.errors import exit_code, explain
from ikeway.daemon import control
from ikeway.daemon.control import (
    Broadcast,
    ControlClient,
    ControlServer,
    error_from_json,
    error_to_json,
    running,
    runtime_directory,
    socket_path,
)
from ikeway.eap.errors import EapFailed
from ikeway.errors import AuthenticationFailed, ConfigError, ConfigErrors, HostError, IkewayError, Side, WireError


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("IKEWAY_RUNTIME_DIR", str(tmp_path / "run"))
    return tmp_path / "run"


async def echo(arguments: Mapping[str, Any]) -> Any:
    return dict(arguments)


async def refuse(arguments: Mapping[str, Any]) -> Any:
    raise AuthenticationFailed("no", expected="a", got="b", side=Side.PEER, remedy="do this")


async def break_down(arguments: Mapping[str, Any]) -> Any:
    return 1 / 0


async def count(arguments: Mapping[str, Any]) -> AsyncGenerator[Any, None]:
    for number in range(arguments["to"]):
        yield number


COMMANDS = {"echo": echo, "refuse": refuse, "break": break_down, "count": count}


@pytest.fixture
async def server() -> AsyncIterator[ControlServer]:
    server = ControlServer(socket_path("client", "work"), COMMANDS)
    await server.start()
    yield server
    await server.close()


async def ask(action: Callable[[ControlClient], Any], path: Path) -> Any:
    """Do something with the blocking client, beside the loop that serves it."""

    def work() -> Any:
        with ControlClient(path, timeout=5) as client:
            return action(client)

    return await asyncio.to_thread(work)


async def test_a_call(server: ControlServer) -> None:
    assert await ask(lambda client: client.call("echo", a=1, b=["x"]), server.path) == {"a": 1, "b": ["x"]}


async def test_several_calls_on_one_connection(server: ControlServer) -> None:
    assert await ask(lambda client: [client.call("echo", n=n)["n"] for n in range(5)], server.path) == list(range(5))


async def test_a_stream(server: ControlServer) -> None:
    def work(client: ControlClient) -> Any:
        return list(client.stream("count", to=3)), client.call("echo", after=True)

    assert await ask(work, server.path) == ([0, 1, 2], {"after": True})


async def test_an_error_arrives_whole(server: ControlServer) -> None:
    with pytest.raises(AuthenticationFailed) as caught:
        await ask(lambda client: client.call("refuse"), server.path)
    error = caught.value
    assert (error.reason, error.expected, error.got, error.side, error.remedy) == ("no", "a", "b", Side.PEER, "do this")


@pytest.mark.parametrize(
    "error",
    [
        IkewayError("x", remedy="y"),
        HostError("x", remedy="y"),
        EapFailed("x", expected="y"),
        ConfigError("x", file="f", line=3, remedy="y"),
        ConfigErrors([ConfigError("x", file="f", line=3, expected="y"), ConfigError("z", file="g", line=1)]),
        WireError("x", offset=3),
    ],
)
def test_errors_of_all_kinds(error: IkewayError) -> None:
    """What is made of it has the same words, and the same exit code."""
    again = error_from_json(json.loads(json.dumps(error_to_json(error))))
    assert explain(again) == explain(error)
    assert exit_code(again) == exit_code(error)


async def test_a_defect_is_logged_and_told_without_details(server: ControlServer) -> None:
    with pytest.raises(IkewayError, match="ZeroDivisionError") as caught:
        await ask(lambda client: client.call("break"), server.path)
    assert "see the log" in caught.value.remedy
    assert await ask(lambda client: client.call("echo", ok=1), server.path) == {"ok": 1}


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b"rubbish\n", "not JSON"),
        (b"[1]\n", "no command"),
        (b'{"id": 1}\n', "no command"),
        (b'{"id": 1, "command": "nonesuch"}\n', "no command 'nonesuch'"),
        (b'{"id": 1, "command": "echo", "arguments": [1]}\n', "no JSON object"),
        (b"\xff\xfe\n", "not JSON"),
    ],
)
async def test_wrong_requests(server: ControlServer, line: bytes, reason: str) -> None:
    reader, writer = await asyncio.open_unix_connection(server.path)
    writer.write(line)
    answer = json.loads(await reader.readline())
    assert reason in answer["error"]["reason"]
    writer.close()


async def test_a_line_without_end_is_hung_up_on(server: ControlServer) -> None:
    reader, writer = await asyncio.open_unix_connection(server.path)
    writer.write(b"x" * (control.MAX_REQUEST * 3))
    assert await asyncio.wait_for(reader.read(), 5) == b""
    writer.close()
    assert await ask(lambda client: client.call("echo"), server.path) == {}


async def test_only_so_many_connections(server: ControlServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(control, "MAX_CONNECTIONS", 2)
    first = [await asyncio.open_unix_connection(server.path) for _ in range(2)]
    await asyncio.sleep(0.05)
    reader, writer = await asyncio.open_unix_connection(server.path)
    assert await asyncio.wait_for(reader.read(), 5) == b""
    for _, each in (*first, (reader, writer)):
        each.close()


async def test_the_socket_is_its_owners_only(server: ControlServer, folder: Path) -> None:
    assert server.path.stat().st_mode & 0o777 == 0o600
    assert folder.stat().st_mode & 0o777 == 0o700


@pytest.mark.root
async def test_other_users_are_refused(server: ControlServer, folder: Path, tmp_path: Path) -> None:
    """Even where the modes of files would let them in."""
    for path, mode in ((folder, 0o777), (server.path, 0o666)):
        path.chmod(mode)
    opened = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)

    def speak() -> int:
        pid = os.fork()
        if pid == 0:
            os.fchdir(opened)
            os.setuid(65534)
            code = 100  # did not even reach it
            try:
                with socket.socket(socket.AF_UNIX) as connection:
                    connection.connect(server.path.name)
                    code = 0
                    with contextlib.suppress(ConnectionError):
                        connection.sendall(b'{"id": 1, "command": "echo"}\n')
                        code = len(connection.recv(100))
            finally:
                os._exit(code)
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

    assert await asyncio.to_thread(speak) == 0  # octets that it got
    os.close(opened)


async def test_nobody_there(folder: Path) -> None:
    with pytest.raises(HostError, match="the client 'work' does not run") as caught:
        ControlClient(socket_path("client", "work"))
    assert "ikeway up work" in caught.value.remedy


async def test_another_one_runs_already(server: ControlServer) -> None:
    with pytest.raises(HostError, match="runs already") as caught:
        await ControlServer(server.path, COMMANDS).start()
    assert "ikeway down work" in caught.value.remedy
    assert await ask(lambda client: client.call("echo"), server.path) == {}


async def test_what_a_killed_one_left_is_no_hindrance(folder: Path) -> None:
    folder.mkdir(mode=0o700)
    path = socket_path("client", "work")
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    assert running() == []
    with pytest.raises(HostError, match="does not run"):
        ControlClient(path)
    server = ControlServer(path, COMMANDS)
    await server.start()
    assert await ask(lambda client: client.call("echo"), path) == {}
    await server.close()
    assert list(folder.iterdir()) == []


async def test_which_run(server: ControlServer) -> None:
    other = ControlServer(socket_path("gateway", "gw"), COMMANDS)
    await other.start()
    assert [(each.role, each.name) for each in await asyncio.to_thread(running)] == [
        ("client", "work"),
        ("gateway", "gw"),
    ]
    assert [each.name for each in await asyncio.to_thread(running, "gateway")] == ["gw"]
    await other.close()


async def test_the_end_of_the_server_is_the_end_of_its_streams(server: ControlServer) -> None:
    async def forever(arguments: Mapping[str, Any]) -> AsyncGenerator[Any, None]:
        yield 1
        await asyncio.Event().wait()

    server._commands["forever"] = forever
    got = threading.Event()

    def listen(client: ControlClient) -> list[Any]:
        items = []
        try:
            for item in client.stream("forever"):
                items.append(item)
                got.set()
        except HostError as error:
            items.append(error.reason)
        return items

    task = asyncio.create_task(ask(listen, server.path))
    await asyncio.to_thread(got.wait, 5)
    await server.close()
    assert (await task)[0] == 1
    assert "hung up" in (await task)[1]


async def test_unsafe_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    open_folder = tmp_path / "open"
    open_folder.mkdir()
    open_folder.chmod(0o777)
    link = tmp_path / "link"
    link.symlink_to(tmp_path)
    for folder in (open_folder, link):
        monkeypatch.setenv("IKEWAY_RUNTIME_DIR", str(folder))
        with pytest.raises(HostError, match="not safe") as caught:
            await ControlServer(socket_path("client", "work"), COMMANDS).start()
        assert caught.value.remedy


async def test_paths_that_are_too_long(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IKEWAY_RUNTIME_DIR", str(tmp_path / ("x" * 120)))
    with pytest.raises(HostError, match="too long"):
        await ControlServer(socket_path("client", "work"), COMMANDS).start()
    with pytest.raises(HostError, match="cannot be the name"):
        socket_path("client", "../x")


def test_where_sockets_live(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("IKEWAY_RUNTIME_DIR")
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert runtime_directory() == Path("/run/ikeway")
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setenv("XDG_RUNTIME_DIR", "/run/user/1000")
    assert runtime_directory() == Path("/run/user/1000/ikeway")
    monkeypatch.delenv("XDG_RUNTIME_DIR")
    assert runtime_directory() == Path("/tmp/ikeway-1000")


async def test_a_slow_listener_misses_the_oldest_and_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(control, "MAX_BACKLOG", 3)
    news = Broadcast()
    listening = news.listen()
    first = asyncio.ensure_future(anext(listening))
    await asyncio.sleep(0)
    for number in range(6):
        news.publish({"n": number})
    told = [await first] + [await anext(listening) for _ in range(3)]
    assert told == [{"event": "missed", "count": 3}, {"n": 3}, {"n": 4}, {"n": 5}]
    await listening.aclose()
    assert news._listeners == set()
