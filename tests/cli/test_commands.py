"""The command line: help with examples, exit codes, what is printed, and quick starts."""

from __future__ import annotations

import asyncio
import json
import re
import subprocess
import sys
import threading
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from ikeway.address import Address
from ikeway.cli import COMMANDS, build
from ikeway.cli.errors import exit_code, explain, guarded
from ikeway.daemon.control import ControlServer, socket_path
from ikeway.daemon.pcap import PcapWriter
from ikeway.daemon.status import ChildStatus, PoolStatus, SessionStatus, Status, WorkerStatus
from ikeway.errors import (
    AuthenticationFailed,
    Closed,
    ConfigError,
    ConfigErrors,
    HostError,
    IkewayError,
    NegotiationFailed,
    PeerUnreachable,
    ProtocolViolation,
)
from tests.config.material import make_pki, write_private
from tests.ike.pair import Pair


@pytest.fixture(autouse=True)
def environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IKEWAY_RUNTIME_DIR", str(tmp_path / "run"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("TERM", "dumb")


def run(*words: str, stdin: str | bytes | None = None) -> tuple[int, str, str]:
    result = CliRunner().invoke(build(words[0] if words[0] in COMMANDS else None), list(words), input=stdin)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.stdout, result.stderr


def every_command() -> list[tuple[str, ...]]:
    def walk(app: typer.Typer, words: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
        yield words
        for command in app.registered_commands:
            assert command.callback is not None
            yield (*words, command.name or command.callback.__name__.replace("_", "-"))
        for group in app.registered_groups:
            assert group.typer_instance is not None
            yield from walk(group.typer_instance, (*words, str(group.name)))

    return list(walk(build(), ()))


@pytest.mark.parametrize("words", every_command(), ids=" ".join)
def test_every_command_has_examples_in_its_help(words: tuple[str, ...]) -> None:
    result = CliRunner().invoke(build(), [*words, "--help"])
    assert result.exit_code == 0
    assert re.search(r"\bExamples?\b", result.stdout)
    example = " ".join(("ikeway", *words))
    assert example in re.split(r"\bExamples?\b", result.stdout, maxsplit=1)[1]


def test_the_commands() -> None:
    code, told, _ = run("--help")
    assert code == 0
    for name in COMMANDS:
        assert re.search(rf"\b{name}\b", told)
    assert "Exit codes" in told


def test_python_dash_m_and_the_version() -> None:
    done = subprocess.run([sys.executable, "-m", "ikeway", "--version"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "ikeway 0.1.0\n", "")


@pytest.mark.parametrize(
    ("command", "absent"),
    [
        ("down", ("pydantic", "ikeway.wire", "cryptography", "numpy", "rich.table", "ikeway.cli.gateway")),
        ("up", ("pydantic", "ikeway.gateway", "numpy", "ikeway.cli.pki", "ikeway.cli.demo")),
        ("status", ("pydantic", "ikeway.wire", "cryptography", "numpy", "rich.table")),
        ("doctor", ("pydantic", "ikeway.wire", "numpy", "asyncio")),
        ("bench", ("pydantic", "ikeway.wire", "numpy", "rich.table")),
        ("gateway", ("pydantic", "ikeway.client", "numpy")),
        ("user", ("pydantic", "ikeway.client", "ikeway.gateway", "cryptography")),
    ],
)
def test_a_command_imports_only_what_it_needs(command: str, absent: tuple[str, ...]) -> None:
    code = f"import sys, ikeway.cli; ikeway.cli.build({command!r}); print([m for m in {absent!r} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_a_client_is_there_without_what_takes_long() -> None:
    """All that `ikeway up` needs before the first message. The worker has numpy, in a process of its own."""
    modules = ("cli.progress", "cli.up", "client.profile", "client.client", "client.control", "daemon.trace")
    absent = ("numpy", "gmpy2", "Crypto", "cffi", "dbus_fast", "rich.table", "rich.live", "scapy", "ikeway.gateway")
    code = f"import sys; {'; '.join(f'import ikeway.{each}' for each in modules)}"
    code += f"; print([m for m in {absent!r} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (ConfigError("x"), 2),
        (ConfigErrors([ConfigError("x")]), 2),
        (AuthenticationFailed("x"), 3),
        (NegotiationFailed("x"), 4),
        (ProtocolViolation("x"), 4),
        (PeerUnreachable("x"), 5),
        (HostError("x"), 6),
        (Closed("x"), 1),
        (IkewayError("x"), 1),
    ],
)
def test_exit_codes(error: IkewayError, code: int) -> None:
    assert exit_code(error) == code
    app = typer.Typer()

    @app.command()
    @guarded
    def fail() -> None:
        raise error

    result = CliRunner().invoke(app, [])
    assert result.exit_code == code
    assert result.stderr == explain(error) + "\n"


def test_an_error_names_expectation_and_remedy() -> None:
    error = HostError("no device", expected="/dev/net/tun", got="nothing", remedy="modprobe tun")
    assert explain(error).splitlines() == [
        "error: no device",
        "  expected: /dev/net/tun",
        "  got: nothing",
        "  to mend it, on this host: modprobe tun",
    ]


def test_an_interrupt() -> None:
    @guarded
    def interrupted() -> None:
        raise KeyboardInterrupt

    with pytest.raises(typer.Exit) as caught:
        interrupted()
    assert caught.value.exit_code == 130


def test_peers_cannot_command_the_terminal() -> None:
    app = typer.Typer()

    @app.command()
    @guarded
    def fail() -> None:
        raise AuthenticationFailed("evil \x1b[2J", got="\x07")

    assert "\x1b" not in CliRunner().invoke(app, []).stderr


def test_a_wrong_profile_is_told_with_file_line_and_remedy(tmp_path: Path) -> None:
    path = write_private(tmp_path / "work.toml", '[gateway]\naddres = "x"\n[ike]\nrekey = "soon"\n')
    code, _, told = run("up", str(path))
    assert code == 2
    assert f"{path}:1: `address` is missing in [gateway]\n" in told
    assert f"{path}:2: unknown key `addres` in [gateway]\n" in told
    assert "  to mend it: write `address`\n" in told
    assert f"{path}:4: `ike.rekey`: this is no duration\n" in told
    assert 'expected: a duration such as "90s"' in told


def test_a_profile_that_is_not_there() -> None:
    code, _, told = run("up", "nonesuch")
    assert code == 2
    assert "config/ikeway/profiles/nonesuch.toml" in told


def test_a_gateway_configuration_is_checked(tmp_path: Path) -> None:
    folder = make_pki(tmp_path / "pki")
    write_private(folder / "users.toml", "")
    text = '[gateway]\ncertificate = "vpn.pem"\nkey = "vpn.key"\nusers = "users.toml"\n'
    text += '[pools.p]\nipv4 = "10.0.0.0/24"\n[connections.people]\nlogin = "eap-mschapv2"\npools = "p"\n'
    path = write_private(folder / "gateway.toml", text + '[ike]\nproposals = "3des-sha1-modp1024"\n')
    code, told, _ = run("gateway", "check", str(path))
    assert code == 0
    assert "warning: 3des-sha1-modp1024: 3des" in told
    assert told.endswith("gateway.toml: right; connections: people\n")
    write_private(folder / "users.toml", "[users.alice]\npasword = 1\n")
    path = write_private(folder / "gateway.toml", text + "[network]\nmtu = 3\n")
    code, _, told = run("gateway", "check", str(path))
    assert code == 2
    assert f"{folder / 'users.toml'}:2: unknown key `pasword`" in told
    assert f"{path}:11: the MTU is too small" in told
    assert told.count("  to mend it: ") == 2


def child(**changes: Any) -> ChildStatus:
    values: dict[str, Any] = {
        "name": "net",
        "state": "installed",
        "spi_in": "1",
        "spi_out": "2",
        "suite": "aes128gcm16",
        "mode": "tunnel",
        "encapsulation": "udp",
        "local": ("10.0.0.7/32",),
        "remote": ("10.1.0.0/16",),
        "age": 7300.0,
        "octets_in": 1_500_000,
        "packets_in": 1200,
        "dropped": {"replay": 2},
    }
    return ChildStatus(**(values | changes))


def session(number: int = 1, user: str = "alice") -> SessionStatus:
    return SessionStatus(
        id=number,
        name="people",
        state="established",
        role="responder",
        local="192.0.2.1:4500",
        remote="198.51.100.7:4500",
        local_identity="vpn.example.com",
        remote_identity="[markup] \x1b[2J",
        eap_identity=user,
        initiator_spi="a",
        responder_spi="b",
        suite="aes128gcm16-prfsha256-x25519",
        age=90.0,
        nat="the peer",
        mobike=True,
        addresses=("10.0.0.7",),
        children=(child(),),
    )


def status(role: str, name: str, **changes: Any) -> Status:
    values: dict[str, Any] = {
        "role": role,
        "name": name,
        "state": "up",
        "version": "1",
        "pid": 7,
        "uptime": 3.0,
        "interface": "ikeway0",
        "mtu": 1400,
        "sessions": (session(),),
        "pools": (PoolStatus(name="p", addresses="10.0.0.0/24", size=253, used=1),),
        "counters": {"received": 12, "malformed": 0},
    }
    return Status(**(values | changes))


class Service:
    """A control server in a thread, which notes what it is asked."""

    def __init__(self, role: str, name: str, answers: Mapping[str, Any]) -> None:
        self.asked: list[tuple[str, dict[str, Any]]] = []
        self._role, self._name, self._answers = role, name, dict(answers)
        self._started = threading.Event()
        self._loop = asyncio.new_event_loop()
        self._end = asyncio.Event()
        self._thread = threading.Thread(target=lambda: self._loop.run_until_complete(self._serve()))

    def __enter__(self) -> Service:
        self._thread.start()
        assert self._started.wait(5)
        return self

    def __exit__(self, *error: object) -> None:
        self.end()
        self._thread.join(5)

    def end(self) -> None:
        self._loop.call_soon_threadsafe(self._end.set)

    def _command(self, name: str, answer: Any) -> Callable[[Mapping[str, Any]], Any]:
        async def call(arguments: Mapping[str, Any]) -> Any:
            self.asked.append((name, dict(arguments)))
            if name in {"down", "stop"}:
                self.end()
            if isinstance(answer, IkewayError):
                raise answer
            return answer

        async def stream(arguments: Mapping[str, Any]) -> AsyncGenerator[Any, None]:
            self.asked.append((name, dict(arguments)))
            for item in answer:
                yield item

        return stream if name == "watch" else call

    async def _serve(self) -> None:
        commands = {name: self._command(name, answer) for name, answer in self._answers.items()}
        server = ControlServer(socket_path(self._role, self._name), commands)  # type: ignore[arg-type]
        await server.start()
        self._started.set()
        await self._end.wait()
        await asyncio.sleep(0.05)
        await server.close()


def client(name: str = "work", **answers: Any) -> Service:
    report = status("client", name).to_json()
    usual = {"status": report, "watch": [report, report], "rekey": {"begun": ["the IKE SA"]}, "down": {"pid": 1}}
    return Service("client", name, usual | answers)


def gateway(**answers: Any) -> Service:
    report = status("gateway", "gw").to_json()
    usual = {
        "status": report,
        "watch": [report],
        "rekey": {"begun": ["child SA x of session 1"]},
        "terminate": {"ended": [1, 2]},
        "reload": {"said": ["alice may not connect any more, and was disconnected"]},
        "stop": {"pid": 1},
    }
    return Service("gateway", "gw", usual | answers)


def test_status_for_people() -> None:
    with client():
        code, told, _ = run("status")
    assert code == 0
    assert "client work is up for 3s" in told
    assert "interface    ikeway0, MTU 1400" in told
    assert "alice from 192.0.2.1:4500, a NAT before the peer, MOBIKE" in told
    assert "1.5 MB in 1200, 2 dropped" in told
    assert "never used" in told
    assert "2h 1m" in told
    assert "received 12" in told
    assert "malformed" not in told
    assert "[markup] \\x1b[2J" in told
    assert "\x1b" not in told


def test_status_shows_workers_that_are_several_or_were_started_again() -> None:
    one = WorkerStatus(number=0, pid=8, interface="ikeway0", sas=2, restarts=0)
    other = WorkerStatus(number=1, pid=None, interface="ikeway1", sas=4, restarts=2)
    for workers, shown in (((one,), 0), ((other,), 1), ((one, other), 2)):
        with gateway(status=status("gateway", "gw", workers=workers).to_json()):
            _, told, _ = run("gateway", "status")
        assert told.count("worker ") == shown
        if shown == 2:
            assert "process 8, ikeway0, 2 SAs" in told
            assert "being started, ikeway1, 4 SAs, started again 2 times" in told


def test_status_for_machines() -> None:
    with client():
        code, told, _ = run("status", "work", "--json")
        assert code == 0
        assert Status.from_json(json.loads(told)) == status("client", "work")
        code, told, _ = run("status", "--json", "--watch", "--seconds", "0.5")
        assert [json.loads(line)["name"] for line in told.splitlines()] == ["work", "work"]


def test_status_goes_on_being_shown() -> None:
    with client() as service:
        code, told, _ = run("status", "--watch")
    assert code == 0
    assert told.count("client work is up") == 1
    assert told.count("work net: in 0 bit/s (0 p/s)") == 2  # no terminal: a line a report
    assert told.endswith("\n")
    assert service.asked == [("watch", {"seconds": 1.0})]


def test_status_of_nothing() -> None:
    assert run("status")[0] == 6
    with client():
        code, _, told = run("status", "home")
        assert code == 6
        assert "the client 'home' does not run" in told


def test_status_of_all() -> None:
    with client(), gateway():
        _, told, _ = run("status")
        assert "client work" in told
        assert "gateway gw" in told
        code, _, told = run("status", "--watch")
        assert code == 6
        assert "name one of them" in told


def test_down() -> None:
    with client() as service:
        assert run("down", "work")[:2] == (0, "work is down\n")
    assert service.asked == [("down", {})]
    with client():
        assert run("down")[:2] == (0, "work is down\n")
    code, _, told = run("down")
    assert code == 6
    assert "no client runs" in told
    code, _, told = run("down", "./profiles/home.toml")
    assert "the client 'home' does not run" in told


def test_down_of_one_of_several() -> None:
    with client(), client("home"):
        code, _, told = run("down")
        assert code == 6
        assert "several clients run: home, work" in told
        assert run("down", "--all")[1] == "home is down\nwork is down\n"


def test_rekey() -> None:
    with client() as service:
        assert run("rekey")[:2] == (0, "work: renewing the IKE SA\n")
        assert run("rekey", "ike", "work")[0] == 0
        assert run("rekey", "child", "work", "--child", "voice")[0] == 0
        assert run("rekey", "everything")[0] == 2
    assert [arguments for _, arguments in service.asked] == [
        {"what": "child", "child": ""},
        {"what": "ike", "child": ""},
        {"what": "child", "child": "voice"},
    ]
    with client(rekey=HostError("the connection is not up", remedy="wait")):
        code, _, told = run("rekey")
    assert (code, told) == (6, "error: the connection is not up\n  to mend it, on this host: wait\n")


def test_the_gateway_commands() -> None:
    with gateway() as service:
        _, told, _ = run("gateway", "status")
        assert "gateway gw is up" in told
        assert "pool p       10.0.0.0/24: 1 of 253 in use" in told
        assert re.search(r"1 +alice +198\.51\.100\.7:4500 +10\.0\.0\.7 +1\.5 MB", told)
        assert json.loads(run("gateway", "status", "--json")[1])["name"] == "gw"
        assert run("gateway", "status", "--watch", "--json")[0] == 0
        assert run("gateway", "terminate", "alice")[1] == "ended: 1, 2\n"
        assert run("gateway", "terminate", "--all")[0] == 0
        assert run("gateway", "terminate")[0] == 2
        assert run("gateway", "rekey", "1", "--ike")[1] == "renewing child SA x of session 1\n"
        assert "alice may not connect any more" in run("gateway", "reload", "-g", "gw")[1]
        assert run("gateway", "stop")[1] == "gw has stopped\n"
    assert [each for each in service.asked if each[0] not in {"status", "watch"}] == [
        ("terminate", {"session": "alice"}),
        ("terminate", {"all": True}),
        ("rekey", {"session": "1", "what": "ike"}),
        ("reload", {}),
        ("stop", {}),
    ]
    code, _, told = run("gateway", "status")
    assert code == 6
    assert "no gateway runs" in told


def test_proposals_are_explained() -> None:
    code, told, _ = run("proposals", "aes256gcm16-prfsha384-x25519", "3des-sha1-modp1024")
    assert code == 0
    good, bad = told.split("\n\n")
    assert "ENCR_AES_GCM_16 (256 bits)" in good
    assert "PRF_HMAC_SHA2_384" in good
    assert "CURVE25519" in good
    assert "nothing in it is known to be weak" in good
    assert bad.count("weak: ") == 4
    assert "MODP_1024" in bad
    _, told, _ = run("proposals", "--esp")
    assert "extended (64 bits), 32 bits" in told
    assert "By default, for IKE" in run("proposals")[1]
    _, told, _ = run("proposals", "--keywords")
    assert re.search(r"x25519.* +CURVE25519$", told, re.MULTILINE)
    assert re.search(r"modp1024 +MODP_1024  \(weak\)$", told, re.MULTILINE)
    code, _, told = run("proposals", "aes9")
    assert code == 2
    assert "no algorithm" in told


@pytest.fixture(scope="module")
def conversation() -> Pair:
    pair = Pair()
    pair.connect()
    return pair


def test_decode_a_message(conversation: Pair, tmp_path: Path) -> None:
    octets = conversation.sent[0].octets
    for words, stdin in (
        ((octets.hex(),), None),
        ((":".join(f"{each:02x}" for each in octets),), None),
        (("-",), octets.hex(" ")),
        (("-",), octets),
        ((str(write_private(tmp_path / "m.bin", octets)),), None),
        ((str(write_private(tmp_path / "m.hex", octets.hex() + "\n")),), None),
    ):
        code, told, _ = run("decode", *words, stdin=stdin)
        assert code == 0
        assert "IKE_SA_INIT" in told
        assert "CURVE25519" in told
    assert run("decode", "--brief", octets.hex())[1].startswith("IKE_SA_INIT request 0 { SAi1, ")


def test_decode_a_capture(conversation: Pair, tmp_path: Path) -> None:
    with PcapWriter(tmp_path / "x.pcapng") as packets:
        for datagram in conversation.sent:
            marker = bytes(4) if datagram.remote.port == 4500 else b""
            packets.udp(marker + datagram.octets, datagram.local, datagram.remote, True)
        packets.udp(b"\xff", Address("192.0.2.1", 4500), Address("192.0.2.2", 4500), True)
        packets.udp(b"\x12\x34\x56\x78esp", Address("192.0.2.1", 4500), Address("192.0.2.2", 4500), True)
        packets.udp(b"dns", Address("192.0.2.1", 53), Address("192.0.2.2", 53), True)
    code, told, _ = run("decode", "-b", str(tmp_path / "x.pcapng"))
    assert code == 0
    lines = told.splitlines()
    assert len(lines) == len(conversation.sent)
    assert lines[0].startswith("packet 1, 192.0.2.1:500 to 198.51.100.1:500: IKE_SA_INIT request 0 {")
    assert lines[-1].startswith(f"packet {len(lines)}, 198.51.100.1:4500 to 192.0.2.1:4500: IKE_AUTH response 1")


def test_decode_what_is_no_message(tmp_path: Path) -> None:
    code, _, told = run("decode", "00112233")
    assert code == 1
    assert "cut short" in told
    code, _, told = run("decode", "no such file")
    assert code == 2
    assert "not hexadecimal" in told
    damaged = write_private(tmp_path / "x.pcap", b"\xd4\xc3\xb2\xa1" + bytes(10))
    code, _, told = run("decode", str(damaged))
    assert code == 1
    assert "capture" in told
