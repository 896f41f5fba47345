"""The demonstration, act by act. Each act shows something and checks it; what fails ends the demonstration."""

from __future__ import annotations

import dataclasses
import signal
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from ikeway.cli.demo import stage as place
from ikeway.cli.demo.stage import Program, Stage
from ikeway.cli.demo.traffic import Download, Pings, downloading, fetch, pinging
from ikeway.daemon.control import ControlClient, socket_path
from ikeway.errors import HostError, IkewayError

_SETTLE = 0.5  # seconds of traffic before and after what must not disturb it
_PINGS_SECONDS = 0.5
_LAST_WORDS = 30  # lines of each program, when something has failed


@dataclass(frozen=True, slots=True)
class Settings:
    """What the user asked for. `up_options` are handed to `ikeway up`."""

    verbose: bool
    up_options: tuple[str, ...]


class Narrator(Protocol):
    """Says what happens."""

    def act(self, title: str) -> None:
        """Begin an act."""
        ...

    def tell(self, text: str) -> None:
        """Say something."""
        ...

    def quote(self, speaker: str, line: str) -> None:
        """Repeat what a program said."""
        ...


class Story:
    """Plays the acts on a stage. `figures` are what was measured: name and value."""

    def __init__(self, stage: Stage, settings: Settings, narrator: Narrator) -> None:
        self.figures: list[tuple[str, str]] = []
        self._stage, self._settings, self._say = stage, settings, narrator
        self._programs: dict[str, Program] = {}
        self._url = f"http://{place.WEB}:{place.WEB_PORT}/"
        self._shown: set[str] = set()  # whose lines are repeated
        self._finished: set[str] = set()

    def play(self) -> None:
        """Play everything (`IkewayError` when something is not as it should be)."""
        hosts = (self._stage.client, self._stage.gateway)
        self._prepare()
        before = [self._stage.surroundings(host) for host in hosts]
        resolv_conf = self._stage.resolv_conf.read_text()
        self._serve()
        self._connect()
        self._look_around()
        self._download()
        self._rekey_under_traffic()
        self._move_under_traffic()
        self._end()
        after = [self._stage.surroundings(host) for host in hosts]
        # The client is in another network now, and its main routes with it.
        before[0], after[0] = (dataclasses.replace(each, main_routes=frozenset()) for each in (before[0], after[0]))
        _check(before == after, "the hosts' networks are not as they were", str(before), str(after))
        _check(self._stage.resolv_conf.read_text() == resolv_conf, "resolv.conf is not as it was")
        self._say.tell("both hosts' addresses, routes, rules and resolv.conf are as they were before")

    # -- the acts

    def _prepare(self) -> None:
        self._say.act("A certificate authority, and a certificate for the gateway")
        started = time.monotonic()
        self._stage.write_configuration()
        self._say.tell(f"made, with a user {place.USER} and a random password, in {_milliseconds(started)}")

    def _serve(self) -> None:
        self._say.act(f"ikeway gateway run: {place.GATEWAY_NAME} at {place.GATEWAY}, a web page behind it")
        if self._settings.verbose:
            self._shown.add("gateway")
        self._start("gateway", ["gateway", "run", str(self._stage.folder / f"{place.GATEWAY_CONFIG}.toml")])
        self._wait("the gateway serves", lambda: self._status("gateway") is not None)
        self._say.tell("it serves")

    def _connect(self) -> None:
        self._say.act(f"ikeway up: {place.USER} connects with EAP-MSCHAPv2")
        self._shown.add("client")
        started = time.monotonic()
        profile = str(self._stage.folder / f"{place.PROFILE}.toml")
        client = self._start("client", ["up", profile, *self._settings.up_options])
        self._wait("the client is up", lambda: client.said("up "))
        self._figure("Connect: command to tunnel", _milliseconds(started))
        exchange = client.seconds_between("sent ", "up ")
        self._figure("Connect: first message to tunnel", f"{exchange * 1000:.0f} ms")
        if not self._settings.verbose:
            self._shown.discard("client")

    def _look_around(self) -> None:
        self._say.act("Through the tunnel")
        session = self._session()
        child = session["children"][0]
        self._figure("IKE SA", session["suite"])
        self._figure("Child SA", f"{child['suite']} in {child['encapsulation'].upper()}")
        with pinging(self._stage.client, place.WEB) as pings:
            time.sleep(_PINGS_SECONDS)
        answers = pings()
        _check(answers.lost == 0, "pings were lost", "none", f"{answers.lost} of {answers.sent}")
        self._figure("Ping through the tunnel", f"{answers.round_trip * 1000:.2f} ms, {answers.sent} of {answers.sent}")
        for host in (place.WEB, f"[{place.WEB6}]"):
            page = fetch(self._stage.client, f"http://{host}:{place.WEB_PORT}/", place.page_hash())
            self._say.tell(f"the web page behind the gateway, from {host}: {page.octets} octets")
        _check(place.WEB in self._stage.resolv_conf.read_text(), "the client does not ask the gateway's name server")
        self._say.tell(f"the name server is {place.WEB}, the MTU {self._status('client')['mtu']}")

    def _download(self) -> None:
        download = self._fetch()
        self._say.tell(f"{download.octets / 1e6:.0f} MB arrived, and their SHA-256 is right")
        self._figure("Download through the tunnel", f"{download.megabits:.0f} Mbit/s")

    def _rekey_under_traffic(self) -> None:
        self._say.act("ikeway rekey: new keys while traffic flows")
        with (
            pinging(self._stage.client, place.WEB) as pings,
            downloading(self._stage.client, self._url + place.FILE, self._stage.file_hash) as downloads,
        ):
            time.sleep(_SETTLE)
            self._rekey("child", "child SA", lambda session: session["children"][0]["spi_in"])
            self._rekey("ike", "IKE SA", lambda session: session["initiator_spi"])
            time.sleep(_SETTLE)
        self._tell_of_traffic(pings(), downloads)
        _check(pings().lost == 0, "packets were lost while rekeying", "none", f"{pings().lost} of {pings().sent}")

    def _move_under_traffic(self) -> None:
        self._say.act(f"MOBIKE: the client loses the wifi ({place.WIFI}) and goes on over mobile data ({place.MOBILE})")
        before = self._session()
        with (
            pinging(self._stage.client, place.WEB) as pings,
            downloading(self._stage.client, self._url + place.FILE, self._stage.file_hash) as downloads,
        ):
            time.sleep(_SETTLE)
            self._stage.leave_wifi()
            self._wait("the tunnel follows", lambda: self._session()["local"].startswith(f"{place.MOBILE}:"))
            time.sleep(_SETTLE)
        after = self._session()
        self._say.tell(f"the tunnel went from {before['local']} to {after['local']}, without a new login")
        same = before["addresses"] == after["addresses"] and before["initiator_spi"] == after["initiator_spi"]
        _check(same, "the client logged in anew", before["initiator_spi"], after["initiator_spi"])
        self._tell_of_traffic(pings(), downloads)
        self._figure("Move to another network: silence", f"{pings().gap * 1000:.0f} ms")

    def _end(self) -> None:
        self._say.act("ikeway down, and the end of the gateway")
        with ControlClient(socket_path("client", place.PROFILE)) as control:
            control.call("down")
        self._finish("client")
        self._wait("the gateway knows", lambda: not self._status("gateway")["sessions"])
        self._programs["gateway"].process.send_signal(signal.SIGTERM)
        self._finish("gateway")

    # -- what they are made of

    def _rekey(self, what: str, name: str, number: Callable[[Any], str]) -> None:
        before, started = number(self._session()), time.monotonic()
        with ControlClient(socket_path("client", place.PROFILE)) as control:
            control.call("rekey", what=what)
        self._wait(f"the {name} has new keys", lambda: number(self._session()) != before)
        self._say.tell(f"{name}: SPI {before} became {number(self._session())} in {_milliseconds(started)}")

    def _tell_of_traffic(self, pings: Pings, downloads: Sequence[Download]) -> None:
        octets = sum(each.octets for each in downloads)
        self._say.tell(
            f"meanwhile {octets / 1e6:.0f} MB arrived undamaged, and {pings.received} of {pings.sent} pings were answered"
        )

    def _fetch(self) -> Download:
        return fetch(self._stage.client, self._url + place.FILE, self._stage.file_hash)

    def _figure(self, name: str, value: str) -> None:
        self.figures.append((name, value))
        self._say.tell(f"{name}: {value}")

    def _start(self, name: str, words: list[str]) -> Program:
        host = self._stage.client if name == "client" else self._stage.gateway

        def show(line: str) -> bool:
            if name in self._shown:
                self._say.quote(name, line)
            return name in self._shown

        self._programs[name] = self._stage.start(host, words, show)
        return self._programs[name]

    def _finish(self, name: str) -> None:
        self._finished.add(name)
        code = self._programs[name].wait()
        _check(code == 0, f"the {name} ended with an error", "exit code 0", f"{code}")

    def _status(self, name: str) -> Any:  # noqa: ANN401 - JSON
        """The status of a program; None while it does not answer yet."""
        role = "client" if name == "client" else "gateway"
        path = socket_path(role, place.PROFILE if role == "client" else place.GATEWAY_CONFIG)  # type: ignore[arg-type]
        try:
            with ControlClient(path) as control:
                return control.call("status")
        except IkewayError:
            return None

    def _session(self) -> Any:  # noqa: ANN401 - JSON
        status = self._status("client")
        _check(bool(status and status["sessions"]), "the client has lost its connection")
        return status["sessions"][0]

    def _wait(self, what: str, happened: Callable[[], object]) -> None:
        """Wait until it happens; the end of a program, or too long a time, is a failure."""

        def look() -> bool:
            for name, program in self._programs.items():
                _check(name in self._finished or program.process.poll() is None, f"the {name} ended before its time")
            return bool(happened())

        place.wait_until(what, look)

    def last_words(self) -> list[tuple[str, str]]:
        """The ends of what the programs said and was not shown, for when something has failed."""
        return [(name, line) for name, program in self._programs.items() for line in program.not_shown[-_LAST_WORDS:]]


def _check(is_right: bool, what: str, expected: str = "", got: str = "") -> None:
    if not is_right:
        raise HostError(what, expected=expected, got=got, remedy="see the messages above; `ikeway demo -v` shows all")


def _milliseconds(started: float) -> str:
    return f"{(time.monotonic() - started) * 1000:.0f} ms"
