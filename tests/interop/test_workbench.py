"""The workbench between real peers: what it shows of charon's messages, as a gateway and as a client."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from ikeway.host.namespaces import Namespace
from ikeway.wire import Eap, NotifyType
from ikeway.workbench.recording import Note, Recording, load
from ikeway.workbench.recording.opening import open_all
from tests.interop.agreement import CLIENT_NAME, GATEWAY_NAME, SECRET, Agreement, agreement
from tests.interop.lab import Lab
from tests.interop.network import Network, Way
from tests.interop.ours import write_private
from tests.interop.pki import issue
from tests.interop.strongswan import Sa, StrongswanGateway, daemon_settings
from tests.interop.waiting import wait_until

pytestmark = pytest.mark.peer


class Workbench:
    """`ikeway workbench ...` in a namespace."""

    def __init__(self, namespace: Namespace, folder: Path, *words: str) -> None:
        self.recorded = folder / "session.ikr"
        self._output = folder / "output"
        command = [sys.executable, "-m", "ikeway", "workbench", *words, "--record", str(self.recorded)]
        with self._output.open("wb") as output:
            self.process = namespace.popen(
                command,
                environment={"PYTHONUNBUFFERED": "1", "TERM": "dumb", "COLUMNS": "200"},
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=subprocess.STDOUT,
            )

    def type(self, line: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(f"{line}\n")
        self.process.stdin.flush()

    def shown(self) -> str:
        return self._output.read_text(errors="replace")

    def wait_for(self, text: str, times: int = 1) -> None:
        wait_until(lambda: self.shown().count(text) >= times, f"{text!r} was not shown", 15, self.shown)

    def end(self) -> int:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
        return self.process.wait(15)

    def recording(self) -> Recording:
        found = load(self.recorded)
        assert found.errors == ()
        return found


@contextmanager
def workbench(namespace: Namespace, folder: Path, *words: str) -> Iterator[Workbench]:
    made = Workbench(namespace, folder, *words)
    try:
        yield made
    finally:
        made.end()


@pytest.fixture
def secret(tmp_path: Path) -> str:
    path = tmp_path / "psk"
    path.touch(0o600)
    path.write_text(f"{SECRET}\n")
    return str(path)


def test_charon_connects_to_a_stand_in_and_every_payload_is_shown(
    lab: Lab, network: Network, tmp_path: Path, secret: str
) -> None:
    agreed = agreement("psk")
    lab.without_charon(network.gateway)
    words = ("serve", "--psk-file", secret, "--identity", GATEWAY_NAME, "--listen", Way.WAN.gateway)
    with workbench(network.gateway, tmp_path, *words) as bench:
        bench.wait_for("serving")
        client = lab.client("charon", agreed)
        try:
            client.connect()
            client.rekey("child")
            bench.wait_for("CREATE_CHILD_SA response")
            bench.wait_for("it deletes SAs")  # the one that was replaced; else the IKE SA might go first
            client.close()
            bench.wait_for("it deletes SAs", times=2)
        finally:
            client.stop()
    shown = bench.shown()
    for words in (f"IDi ID_RFC822_ADDR '{CLIENT_NAME}'", "it says who it is and proves it", "N(EAP_ONLY_AUTHENTICATION)",
                  "it rekeys a child SA", "INTERNAL_IP4_ADDRESS 192.0.2.1"):  # fmt: skip
        assert words in shown, shown
    assert len(bench.recording().messages) == 10  # five exchanges


def test_without_credentials_the_first_message_is_held_and_answered_by_hand(
    lab: Lab, network: Network, tmp_path: Path
) -> None:
    """The article's first step: what does the client say once there are keys?"""
    agreed = agreement("eap-mschapv2", client={"patient": True})
    lab.without_charon(network.gateway)
    with workbench(network.gateway, tmp_path, "serve", "--listen", Way.WAN.gateway) as bench:
        bench.wait_for("serving")
        client = lab.client("charon-cmd", agreed)
        try:
            with pytest.raises(AssertionError):
                client.connect(timeout=0.2)
            bench.wait_for("answer> ")
            shown = bench.shown()
            assert "it wants to log in by EAP" in shown
            assert f"IDi ID_RFC822_ADDR '{CLIENT_NAME}'" in shown, shown
            bench.type('answer eap-request:1:""')
            bench.wait_for("IKE_AUTH response 1")
            wait_until(lambda: "EAP" in client.log() or "IDr" in client.log(), "charon said nothing", 10, client.log)
        finally:
            client.kill()


def test_the_stand_in_client_learns_what_charon_s_gateway_wants(lab: Lab, network: Network, tmp_path: Path) -> None:
    gateway = lab.gateway("charon", agreement("eap-mschapv2"))
    lab.without_charon(network.client)
    script = tmp_path / "steps.py"
    script.write_text(
        "from ikeway.wire import Eap\n"
        "def on_message(m):\n"
        "    packet = m.find(Eap)\n"
        "    if m.received and packet is not None and packet.packet[4:5] == bytes([26]):\n"
        "        m.note('it wants MSCHAPv2')\n"
        "        m.hold()\n"
    )
    words = ("connect", Way.WAN.gateway, "--eap", "--identity", CLIENT_NAME, "--script", str(script))
    try:
        with workbench(network.client, tmp_path, *words) as bench:
            bench.wait_for("answer> ")
            assert "MSCHAPv2 Challenge from" in bench.shown(), bench.shown()
            bench.type("ask IKE_AUTH eap-response:3:06")  # a Nak: EAP-GTC instead
            bench.wait_for("EAP failure")
            bench.type("go")
            assert bench.process.wait(15) == 3, bench.shown()  # a refused log-in
    finally:
        gateway.stop()
    recording = bench.recording()
    assert [each.text for each in recording.entries if isinstance(each, Note) and each.kind == "script"] == [
        "it wants MSCHAPv2"
    ]
    assert f"ID_FQDN '{GATEWAY_NAME}'" in bench.shown()


def test_a_profile_and_a_gateway_file_are_stood_in_for(lab: Lab, network: Network, tmp_path: Path) -> None:
    """Ours against ours, with all that the files say: EAP with a password, and the password is shown nowhere."""
    from tests.interop.ours import _gateway, _profile, _users  # what `ikeway gateway run` and `up` get

    agreed = agreement("eap-mschapv2")
    lab.without_charon(network.gateway)
    lab.without_charon(network.client)
    there, here = tmp_path / "gateway", tmp_path / "client"
    there.mkdir()
    here.mkdir()
    write_private(there / "users.toml", {"users": _users(agreed.gateway, agreed)})
    write_private(there / "gateway.toml", _gateway(agreed.gateway, agreed, there, there / "users.toml"))
    write_private(here / "lab.toml", _profile(agreed.client, agreed, here))
    with workbench(network.gateway, there, "serve", "--config", str(there / "gateway.toml"), "--once") as serving:
        serving.wait_for("serving")
        with workbench(network.client, here, "connect", "--profile", str(here / "lab.toml")) as calling:
            calling.wait_for("is logged in")
            serving.wait_for("is logged in")
        assert calling.process.returncode == 0, calling.shown()
        assert serving.process.wait(15) == 0, serving.shown()
    assert "MSCHAPv2 Response for 'alice@lab.test'" in serving.shown()
    for shown in (serving.shown(), calling.shown()):
        assert agreed.client.password not in shown


SERVER = "10.91.0.10"  # behind the host that the relay runs on


@contextmanager
def relayed(
    lab: Lab, network: Network, folder: Path, agreed: Agreement, *words: str
) -> Iterator[tuple[Workbench, StrongswanGateway]]:
    """charon as the real gateway, and a relay to it where clients look for one."""
    there = replace(agreed, way=SimpleNamespace(gateway=SERVER, client="10.91.0.1"))
    server = StrongswanGateway(lab.charon(network.lan, daemon_settings(agreed, agreed.gateway)), there)
    lab.without_charon(network.gateway)
    try:
        with workbench(network.gateway, folder, "relay", SERVER, "--listen", Way.WAN.gateway, "--listen", "10.91.0.1",
                       *words) as bench:  # fmt: skip
            bench.wait_for("relaying")
            yield bench, server
    finally:
        server.stop()
        lab.without_charon(network.lan)


def sas_of(server: StrongswanGateway) -> list[Sa]:
    return [sa for sa in server.sas() if sa.state == "ESTABLISHED"]


def test_charon_and_charon_with_a_relay_between_them_by_a_pre_shared_key(
    lab: Lab, network: Network, tmp_path: Path, secret: str
) -> None:
    agreed = agreement("psk")
    with relayed(lab, network, tmp_path, agreed, "--psk-file", secret) as (bench, server):
        client = lab.client("charon", agreed)
        try:
            client.connect()
            (mine,), (theirs,) = client.sas(), sas_of(server)
            # The addresses and identities are the real ends', the IKE SAs are two.
            assert mine.virtual == theirs.virtual and mine.virtual
            assert (mine.remote_identity, theirs.remote_identity) == (GATEWAY_NAME, CLIENT_NAME)
            assert mine.initiator_spi != theirs.initiator_spi
            assert [child.remote for child in mine.children] == [child.local for child in theirs.children]
            client.rekey("ike")
            bench.wait_for("it rekeys the IKE SA")
            wait_until(
                lambda: [sa.initiator_spi for sa in client.sas()] not in ([], [mine.initiator_spi]),
                "the client has no other IKE SA",
                10,
                bench.shown,
            )
            client.close()
            wait_until(lambda: not server.sas(), "the gateway still has an IKE SA", 10, bench.shown)
        finally:
            client.stop()
    shown = bench.shown()
    for label in ("client", "server"):
        for message in ("IKE_SA_INIT request 0", "IKE_AUTH request 1", "IKE_AUTH response 1"):
            assert re.search(rf"^ *{label} .*{message}", shown, re.MULTILINE), shown
    recording = bench.recording()
    assert recording.role == "relay" and len(recording.keys) >= 3
    assert all(each.error is None for each in open_all(recording))


@pytest.mark.parametrize("method", ["eap-mschapv2", "eap-gtc"])
def test_eap_passes_as_it_is(lab: Lab, network: Network, tmp_path: Path, method: str) -> None:
    """A certificate that the client trusts, of another key than the gateway's; the password where a key follows from it."""
    agreed = agreement(method)
    with relayed(lab, network, tmp_path, agreed, *eap_words(tmp_path, agreed)) as (bench, server):
        client = lab.client("charon", agreed)
        try:
            client.connect()
            (mine,), (theirs,) = client.sas(), sas_of(server)
            assert mine.virtual == theirs.virtual and mine.virtual
            assert theirs.remote_identity == CLIENT_NAME
        finally:
            client.stop()
    messages = [each for each in bench.recording().messages if each.message.find(Eap) is not None]
    at_client = [each.message.find(Eap) for each in messages if each.remote.host == Way.WAN.client]
    at_server = [each.message.find(Eap) for each in messages if each.remote.host == SERVER]
    assert at_client == at_server and len(at_client) >= 4  # octet for octet
    assert agreed.client.password not in bench.shown()
    if method == "eap-gtc":
        assert "its answer: (hidden)" in bench.shown()


def eap_words(folder: Path, agreed: Agreement, *, password: bool = True) -> list[str]:
    """A gateway's file of the relay with a certificate of its own, of the same issuer; the user's password in a file."""
    from tests.interop.ours import _gateway, _users

    users = folder / "users.toml"
    write_private(users, {"users": _users(agreed.gateway, agreed)})
    configuration = folder / "relay.toml"
    write_private(configuration, _gateway(agreed.gateway, agreed, folder, users))
    words = ["--config", str(configuration)]
    if password:
        path = folder / "password"
        path.touch(0o600)
        path.write_text(agreed.client.password)
        words += ["--password-file", str(path)]
    return words


def test_certificates_on_both_sides_and_the_recording_played_as_either_peer(
    lab: Lab, network: Network, tmp_path: Path
) -> None:
    """The relay proves a gateway to the client with a certificate that it trusts, and a client to the gateway with one of
    its own; then what was recorded stands in for the gateway, before the same client."""
    from tests.interop.ours import _profile

    agreed = agreement("ecdsa", gateway={"expects": "*"})
    here, again = tmp_path / "client", tmp_path / "again"
    here.mkdir()
    again.mkdir()
    profile = here / "lab.toml"
    own = replace(agreed.client, identity="relay@lab.test", credential=issue("ecdsa", "relay@lab.test"))
    there = replace(agreed, way=SimpleNamespace(gateway=SERVER, client="10.91.0.1"))
    write_private(profile, _profile(own, there, here))
    config = eap_words(tmp_path, agreed, password=False)
    with relayed(lab, network, tmp_path, agreed, *config, "--profile", str(profile)) as (bench, server):
        client = lab.client("charon", agreed)
        try:
            client.connect()
            (mine,), (theirs,) = client.sas(), sas_of(server)
            assert mine.virtual == theirs.virtual and mine.virtual
            assert (mine.remote_identity, theirs.remote_identity) == (GATEWAY_NAME, "relay@lab.test")
            client.close()
            wait_until(lambda: not server.sas(), "the gateway still has an IKE SA", 10, bench.shown)
        finally:
            client.stop()
    said = bench.recording().said_by(initiator=False)
    assert said[0].notify(NotifyType.MULTIPLE_AUTH_SUPPORTED) is not None  # charon's gateway, not the relay's face
    words = ("serve", *config, "--listen", Way.WAN.gateway, "--replay", str(bench.recorded))
    with workbench(network.gateway, again, *words) as replayed:
        replayed.wait_for("serving")
        client = lab.client("charon", agreed)
        try:
            client.connect()
        finally:
            client.stop()
    response = next(each.message for each in replayed.recording().messages if each.message.is_response)
    assert response.notify(NotifyType.MULTIPLE_AUTH_SUPPORTED) is not None


def test_without_the_password_the_relay_says_what_it_lacks(lab: Lab, network: Network, tmp_path: Path) -> None:
    agreed = agreement("eap-mschapv2")
    with relayed(lab, network, tmp_path, agreed, *eap_words(tmp_path, agreed, password=False)) as (bench, server):
        client = lab.client("charon", agreed)
        try:
            with pytest.raises(AssertionError):
                client.connect()
            bench.wait_for("AUTH is made with the key of MSCHAPv2")
            wait_until(lambda: not server.sas(), "the gateway still has an IKE SA", 10, bench.shown)
        finally:
            client.stop()


def test_a_refusal_of_the_gateway_reaches_the_client(lab: Lab, network: Network, tmp_path: Path, secret: str) -> None:
    agreed = agreement("psk", gateway={"secret": "another"})
    with relayed(lab, network, tmp_path, agreed, "--psk-file", secret) as (bench, server):
        client = lab.client("charon", agreement("psk"))
        try:
            with pytest.raises(AssertionError, match="AUTHENTICATION_FAILED"):
                client.connect()
            assert not sas_of(server)
        finally:
            client.stop()
    assert bench.recording().messages


def test_eap_may_end_on_both_sides(lab: Lab, network: Network, tmp_path: Path) -> None:
    """A gateway's file with the users here, a profile with the log-in there."""
    from tests.interop.ours import _profile

    agreed = agreement("eap-mschapv2")
    profile = tmp_path / "lab.toml"
    write_private(profile, _profile(agreed.client, agreed, tmp_path))
    words = [*eap_words(tmp_path, agreed, password=False), "--profile", str(profile)]
    with relayed(lab, network, tmp_path, agreed, *words) as (bench, server):
        client = lab.client("charon", agreed)
        try:
            client.connect()
            (mine,), (theirs,) = client.sas(), sas_of(server)
            assert mine.virtual == theirs.virtual and mine.virtual
        finally:
            client.stop()
    assert bench.recording().messages
