"""Log-ins in which the gateway asks more than a password, at a terminal and from where a profile says: a second
factor, another try, a password that has to be changed."""

from __future__ import annotations

import os
import pty
from collections.abc import Iterator
from datetime import UTC, datetime

import pytest

from ikeway.auth.totp import Totp
from tests.cli.test_live import GATEWAY_FILE, IKEWAY, PROFILE, Side, wait_for
from tests.config.material import make_pki, write_private
from tests.netlab import two_hosts

pytestmark = pytest.mark.root

SEED = "GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ"
USERS = f"""\
[users.alice]
password = "correct horse"
totp = "{SEED}"
[users.'CORP\\bob']
password = "battery staple"
ipv4 = "10.99.0.77"
[users.carol]
password = "old password"
must_change = true
[users.dave]
password = "staple of horses"
"""
TUNNEL = """\
[connections.tunnel]
login = "eap-ttls"
identities = "dave"
pools = "office"
subnets = "10.99.0.0/24"
"""
CONNECTION = """\
login = ["eap-mschapv2", "eap-gtc"]
retries = 2
"""


@pytest.fixture(scope="module")
def sides(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Side, Side]]:
    folder = tmp_path_factory.mktemp("live")
    with two_hosts() as hosts:
        client, gateway = (
            Side(namespace, make_pki(folder / name))
            for name, namespace in (("client", hosts.client), ("gateway", hosts.gateway))
        )
        write_private(gateway.folder / "users.toml", USERS)
        configuration = GATEWAY_FILE.replace('login = "eap-mschapv2"\n', CONNECTION)
        configuration = configuration.replace("[connections.people]\n", TUNNEL + "[connections.people]\n")
        write_private(gateway.folder / "gateway.toml", configuration)
        serving = gateway.start("gateway", "run", str(gateway.folder / "gateway.toml"))
        wait_for(lambda: gateway.is_up("gateway", "gateway"))
        yield client, gateway
        assert gateway.run("gateway", "stop")[0] == 0
        assert serving.wait(60) == 0


def profile(side: Side, name: str, login: str) -> str:
    text = PROFILE.replace('username = "alice"\n', login)
    return str(write_private(side.folder / f"{name}.toml", text))


def asked(side: Side, path: str, answers: list[tuple[str, str]]) -> tuple[int, str]:
    """Run `ikeway up` at a terminal, give each answer when its prompt is there, and press Ctrl-C when it is up."""
    ours, theirs = pty.openpty()
    process = side.namespace.popen(
        ["setsid", "--ctty", *IKEWAY, "up", path],
        environment=side._environment,
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
    )
    os.close(theirs)
    told, seen, left = "", 0, list(answers)
    try:
        while chunk := os.read(ours, 4096).decode(errors="replace"):
            told += chunk
            if left and (at := told.find(left[0][0], seen)) >= 0:
                seen = at + len(left[0][0])
                os.write(ours, f"{left.pop(0)[1]}\n".encode())
            if " is up: " in told[seen:]:
                seen = len(told)
                os.write(ours, b"\x03")
    except OSError:  # EIO: the other end is closed
        pass
    os.close(ours)
    code = process.wait(60)
    assert not left, told
    return code, told


def code_now() -> str:
    return Totp.parse(SEED).code(datetime.now(UTC))


def test_a_code_is_asked_for_until_it_is_right(sides: tuple[Side, Side]) -> None:
    client, _ = sides
    path = profile(client, "code", 'method = "eap-gtc"\nusername = "alice"\n')
    answers = [
        ("Password for alice at", "correct horse"),
        ("Code for alice at", "000000"),
        ("Code for alice at", code_now()),
    ]
    code, told = asked(client, path, answers)
    assert code == 0, told
    assert "says: Wrong code. Code:" in told
    assert "correct horse" not in told and "000000" not in told


def test_a_script_computes_its_code(sides: tuple[Side, Side]) -> None:
    client, _ = sides
    login = f'method = "eap-gtc"\nusername = "alice"\npassword = "correct horse"\ntotp = "{SEED}"\n'
    path = profile(client, "script", login)
    period = Totp.parse(SEED).step(datetime.now(UTC))  # its code was used by the test before
    wait_for(lambda: Totp.parse(SEED).step(datetime.now(UTC)) > period, 40)
    code, told = client.run("up", "--detach", "--no-ask", path)
    assert code == 0, told
    assert client.run("down", "script")[0] == 0


def test_a_user_with_a_code_gets_in_nowhere_without_it(sides: tuple[Side, Side]) -> None:
    client, gateway = sides
    login = 'method = "eap-mschapv2"\nusername = "alice"\npassword = "correct horse"\n'
    code, told = client.run("up", "--no-ask", profile(client, "without", login))
    assert code == 3, told
    assert not gateway.status("gateway", "gateway")["sessions"]


def test_another_password_is_tried_in_the_same_log_in(sides: tuple[Side, Side]) -> None:
    """Of somebody whose name is no identity, as in a Windows domain; addresses are given to such users too."""
    client, _ = sides
    path = profile(client, "bob", "username = 'CORP\\bob'\n")
    answers = [("Password for CORP\\bob at", "wrong"), ("Password for CORP\\bob at", "battery staple")]
    code, told = asked(client, path, answers)
    assert code == 0, told
    assert "assigned 10.99.0.77" in told
    assert "says: Authentication failed" in told


def test_a_password_is_changed_while_logging_in(sides: tuple[Side, Side]) -> None:
    client, gateway = sides
    path = profile(client, "carol", 'username = "carol"\n')
    answers = [
        ("Password for carol at", "old password"),
        ("New password for carol at", "a new password"),
        ("once more for carol at", "a new password"),
    ]
    code, told = asked(client, path, answers)
    assert code == 0, told
    assert "says: Password expired" in told
    assert "a new password" not in told
    kept = (gateway.folder / "users.toml").read_text()
    assert "a new password" in kept and "must_change" not in kept and "old password" not in kept
    again = profile(client, "carol-again", 'username = "carol"\npassword = "a new password"\n')
    assert client.run("up", "--detach", "--no-ask", again)[0] == 0
    assert client.run("down", "carol-again")[0] == 0


def test_a_new_log_in_by_ttls_resumes_the_session(sides: tuple[Side, Side]) -> None:
    """The command that knows the password is run once: it might ask a token for a code."""
    client, gateway = sides
    called = client.folder / "called"
    command = client.folder / "password-of-dave"
    command.write_text(f"#!/bin/sh\necho once >>{called}\necho staple of horses\n")
    command.chmod(0o700)
    login = f'method = "eap-ttls"\nusername = "dave"\npassword = {{ command = ["{command}"] }}\n'
    code, told = client.run("up", "--detach", "--no-ask", profile(client, "dave", login))
    assert code == 0, told

    def sessions() -> list[int]:
        return [each["id"] for each in gateway.status("gateway", "gateway")["sessions"]]

    for _ in range(2):
        before = sessions()
        assert client.run("rekey", "login", "dave")[0] == 0
        wait_for(lambda: len(now := sessions()) == 1 and now != before)  # noqa: B023
    assert client.run("down", "dave")[0] == 0
    assert called.read_text() == "once\n"
