"""The client and the gateway as they are run, with each other, in two namespaces."""

import os
import pty
import re
import signal
import subprocess
import sys
import termios
import time
from pathlib import Path

import pytest

from tests.client.live import INNER, INNER6, descriptors, descriptors_at_rest, live, wait_until
from tests.netlab import CLIENT, FAR, GATEWAY, GATEWAY6

pytestmark = pytest.mark.root


@pytest.fixture
def stage(tmp_path):
    with live(tmp_path) as stage:
        yield stage


def test_traffic_of_both_families_and_status_of_both_sides(stage):
    gateway, client = stage.gateway(), stage.client()
    stage.ping(INNER)
    stage.ping(INNER6)
    status = client.call("status")
    assert status["state"] == "up"
    (session,) = status["sessions"]
    assert session["addresses"] == ["10.99.0.1", "fd99::1"]
    (child,) = session["children"]
    assert child["packets_in"] >= 6
    (seen,) = gateway.call("status")["sessions"]
    assert seen["remote_identity"] == "ann@test"
    assert seen["addresses"] == session["addresses"]
    assert seen["children"][0]["packets_in"] >= 6
    assert client.end() == 0
    wait_until(lambda: gateway.call("status")["sessions"] == [], "the session is gone")


def test_outer_ipv6(stage):
    stage.gateway()
    stage.client(address=GATEWAY6)
    stage.ping(INNER)


def test_behind_nat(tmp_path):
    with live(tmp_path, nat=True) as stage:
        gateway, client = stage.gateway(), stage.client()
        stage.ping(INNER)
        assert client.call("status")["sessions"][0]["nat"] == "this side"
        assert gateway.call("status")["sessions"][0]["nat"] == "the peer"


def test_full_tunnel_takes_everything_but_its_own_packets(stage):
    stage.gateway(subnets='["0.0.0.0/0", "::/0"]')
    stage.client()
    stage.ping(FAR)
    assert "dev ikeway" in stage.hosts.client.run(["ip", "route", "get", "1.1.1.1"])
    assert "dev ikeway" not in stage.hosts.client.run(
        ["ip", "route", "get", GATEWAY, "ipproto", "udp", "dport", "4500"]
    )


def test_esp_as_protocol_50_and_in_udp(stage):
    stage.gateway()
    client = stage.client()
    assert client.call("status")["sessions"][0]["children"][0]["encapsulation"] == "esp"
    stage.ping(INNER)
    client.end()
    client = stage.client(ike="force_udp_encapsulation = true")
    assert client.call("status")["sessions"][0]["children"][0]["encapsulation"] == "udp"
    stage.ping(INNER)


@pytest.mark.parametrize("side", ["client", "gateway"])
@pytest.mark.parametrize("what", ["child", "ike"])
def test_rekeying_loses_no_packet(stage, side, what):
    gateway, client = stage.gateway(), stage.client()
    pinging = stage.hosts.client.popen(
        ["ping", "-c", "150", "-i", "0.01", INNER], stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    before = marks(client, what)
    for _ in range(4):
        time.sleep(0.2)
        if side == "client":
            client.call("rekey", what=what)
        else:
            gateway.call("rekey", what=what, session="ann@test")
    output, _ = pinging.communicate(timeout=60)
    assert " 0% packet loss" in output, output
    wait_until(lambda: marks(client, what) not in (before, ""), "no rekeying", logs=stage.logs)


def marks(client, what):
    """What changes with a rekeying; empty in the middle of one."""
    (session,) = client.call("status")["sessions"]
    if len(session["children"]) != 1:
        return ""
    return session["initiator_spi"] if what == "ike" else session["children"][0]["spi_in"]


def test_logging_in_anew_beside_the_old_session(stage):
    gateway, client = stage.gateway(), stage.client()
    before = client.call("status")["sessions"][0]
    pinging = stage.hosts.client.popen(
        ["ping", "-c", "100", "-i", "0.02", INNER], stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    client.call("rekey", what="login")
    client.wait_for("reauthenticated")
    output, _ = pinging.communicate(timeout=60)
    assert " 0% packet loss" in output, output
    wait_until(lambda: len(gateway.call("status")["sessions"]) == 1, "the old one is gone", logs=stage.logs)
    after = client.call("status")["sessions"][0]
    assert after["id"] != before["id"]
    assert after["addresses"] == before["addresses"]
    stage.ping(INNER)


def test_change_of_address_keeps_the_session(stage):
    gateway, client = stage.gateway(), stage.client()
    host = stage.hosts.client
    host.run(["sysctl", "-qw", "net.ipv4.conf.eth0.promote_secondaries=1"])
    host.run(["ip", "addr", "add", "192.168.50.77/24", "dev", "eth0"])
    try:
        host.run(["ip", "addr", "del", f"{CLIENT}/24", "dev", "eth0"])
        client.wait_for(r"the tunnel goes from 192\.168\.50\.77")
        stage.ping(INNER)
        (session,) = gateway.call("status")["sessions"]
        assert session["remote"].startswith("192.168.50.77")
        assert client.logins() == 1
    finally:
        host.run(["ip", "addr", "add", f"{CLIENT}/24", "dev", "eth0"])
        host.run(["ip", "addr", "del", "192.168.50.77/24", "dev", "eth0"])
        host.run(["ip", "route", "replace", "default", "via", GATEWAY])
        host.run(["sysctl", "-qw", "net.ipv4.conf.eth0.promote_secondaries=0"])


def test_change_of_address_without_mobike_connects_anew(stage):
    stage.gateway()
    client = stage.client(ike="mobike = false")
    host = stage.hosts.client
    host.run(["sysctl", "-qw", "net.ipv4.conf.eth0.promote_secondaries=1"])
    host.run(["ip", "addr", "add", "192.168.50.77/24", "dev", "eth0"])
    try:
        host.run(["ip", "addr", "del", f"{CLIENT}/24", "dev", "eth0"])
        wait_until(lambda: client.logins() == 2, "connected anew", logs=stage.logs)
        wait_until(stage.ping_arrives, "traffic passes", logs=stage.logs)
    finally:
        host.run(["ip", "addr", "add", f"{CLIENT}/24", "dev", "eth0"])
        host.run(["ip", "addr", "del", "192.168.50.77/24", "dev", "eth0"])
        host.run(["ip", "route", "replace", "default", "via", GATEWAY])
        host.run(["sysctl", "-qw", "net.ipv4.conf.eth0.promote_secondaries=0"])


@pytest.mark.parametrize("side", ["client", "gateway"])
def test_dead_worker(stage, side):
    """It is started again with the same SAs; nobody logs in anew."""
    gateway, client = stage.gateway(), stage.client()
    stage.ping(INNER)
    before = client.call("status")["sessions"]
    program = client if side == "client" else gateway
    for _ in range(2):
        files = descriptors_at_rest(program)
        pid = program.worker()
        os.kill(pid, signal.SIGKILL)
        wait_until(lambda pid=pid: program.workers() not in ([], [pid]), "another worker", logs=stage.logs)
        wait_until(stage.ping_arrives, "traffic passes", logs=stage.logs)
    assert client.logins() == 1
    after = client.call("status")["sessions"]
    assert (after[0]["id"], after[0]["initiator_spi"]) == (before[0]["id"], before[0]["initiator_spi"])
    for before_it, after_it in zip(before[0]["children"], after[0]["children"], strict=True):
        assert before_it["spi_in"] == after_it["spi_in"]
        assert all(after_it[count] > before_it[count] for count in ("packets_in", "packets_out", "octets_in"))
    assert len(gateway.call("status")["sessions"]) == 1
    wait_until(lambda: descriptors(program) == files, "no descriptor is left over")
    client.call("rekey", what="child")
    stage.ping(INNER)


@pytest.mark.parametrize("side", ["client", "gateway"])
def test_worker_that_dies_again_and_again(stage, side):
    """The connection ends with a word, and another one is made with a data plane that has begun anew."""
    gateway, client = stage.gateway(), stage.client()
    program = client if side == "client" else gateway
    files = descriptors_at_rest(program)
    for _ in range(5):
        wait_until(program.workers, "a worker", logs=stage.logs)
        pid = program.worker()
        os.kill(pid, signal.SIGKILL)
        wait_until(lambda pid=pid: program.workers() != [pid], "it is gone", logs=stage.logs)
    program.wait_for("it was killed by SIGKILL; it died 5 times within a minute")
    wait_until(lambda: client.logins() == 2, "connected anew", logs=stage.logs)
    wait_until(stage.ping_arrives, "traffic passes", logs=stage.logs)
    wait_until(lambda: len(gateway.call("status")["sessions"]) == 1, "one session", logs=stage.logs)
    wait_until(lambda: descriptors(program) == files, "no descriptor is left over")


def test_a_client_whose_workers_all_die_ends(stage):
    """One fresh start is enough to see that another would not help."""
    stage.gateway()
    client = stage.client()
    for logins in (1, 2):
        wait_until(lambda logins=logins: client.logins() == logins, "connected", logs=stage.logs)
        wait_until(stage.ping_arrives, "traffic passes", logs=stage.logs)
        for _ in range(5):
            wait_until(client.workers, "a worker", logs=stage.logs)
            pid = client.worker()
            os.kill(pid, signal.SIGKILL)
            wait_until(lambda pid=pid: pid not in client.workers(), "it is gone", logs=stage.logs)
    assert client.process.wait(60) == 6
    assert re.search(r"the data plane dies again and again: .*it was killed by SIGKILL; it died 5 times", client.log())


def test_killed_client_is_cleaned_up_after_by_the_next(stage):
    gateway, client = stage.gateway(), stage.client()
    client.kill()
    client = stage.client()
    client.wait_for("Cleaned up after")
    stage.ping(INNER)
    # INITIAL_CONTACT: the gateway forgets what the killed one left.
    wait_until(lambda: len(gateway.call("status")["sessions"]) == 1, "one session", logs=stage.logs)


def test_killed_client_is_cleaned_up_after_by_down(stage):
    stage.gateway()
    client = stage.client()
    client.kill()
    down = [sys.executable, "-m", "ikeway", "down"]
    assert "cleaned up after a client" in stage.hosts.client.run(down, files=client.files)
    with pytest.raises(subprocess.CalledProcessError) as caught:  # what it found the host like, `live` checks
        stage.hosts.client.run(down, files=client.files)
    assert "no client runs" in caught.value.output


def refused(stage, target=INNER):
    """True when this host itself says no: the ping did not leave."""
    return "No route to host" in stage.ping(target, count=1, check=False)


def test_kill_switch_after_kill_9(stage):
    """Until `ikeway down`. The gateway's network could be reached without the tunnel, in the clear."""
    stage.gateway()
    client = stage.client(network="kill_switch = true")
    stage.ping(INNER)
    client.kill()
    with stage.in_the_clear():
        wait_until(lambda: refused(stage), "nothing leaves", logs=stage.logs)
        assert refused(stage, INNER6)
        stage.hosts.client.run(["ping", "-c", "1", "-W", "2", GATEWAY])
        down = stage.hosts.client.run(
            [sys.executable, "-m", "ikeway", "down"], files=client.files, environment={"HOME": str(stage.folder)}
        )
        assert "cleaned up" in down
        stage.ping(INNER)


def test_kill_switch_while_the_client_connects_again(stage):
    """The gateway dies, and its device is taken away from the client meanwhile."""
    gateway = stage.gateway()
    client = stage.client(network="kill_switch = true")
    gateway.kill()
    stage.hosts.client.run(["ip", "link", "del", "ikeway0"])
    wait_until(lambda: "retry" in client.log(), "it is lost", logs=stage.logs)
    with stage.in_the_clear():
        for _ in range(10):
            assert not stage.ping_arrives()
    stage.gateway()
    wait_until(lambda: client.logins() == 2, "connected anew", logs=stage.logs)
    wait_until(stage.ping_arrives, "traffic passes", logs=stage.logs)


def test_excluded_networks(stage):
    stage.gateway()
    stage.client(network='exclude = "10.91.0.0/25"')
    with stage.in_the_clear():
        assert "ikeway0" not in stage.hosts.client.run(["ip", "route", "get", INNER])
    assert "ikeway0" in stage.hosts.client.run(["ip", "route", "get", "10.91.0.200"])


def test_killed_gateway_is_noticed_and_its_successor_found(stage):
    gateway, client = stage.gateway(), stage.client(dpd="1s")
    gateway.kill()
    client.wait_for(r"(?m)^lost\b", timeout=20)
    assert client.call("status")["state"] in ("connecting", "waiting")
    stage.gateway()
    wait_until(lambda: client.logins() == 2, "connected anew", timeout=20, logs=stage.logs)
    wait_until(stage.ping_arrives, "traffic passes", logs=stage.logs)


def test_vanished_client_is_noticed(stage):
    gateway = stage.gateway(dpd="1s")
    stage.client().kill()
    wait_until(lambda: gateway.call("status")["sessions"] == [], "the session is gone", timeout=20, logs=stage.logs)
    wait_until(lambda: gateway.call("status")["pools"][0]["used"] == 0, "its addresses are free")
    stage.client()  # cleans up


def test_stopped_gateway_says_goodbye(stage):
    gateway, client = stage.gateway(), stage.client(session="reconnect = false")
    assert gateway.end() == 0
    assert client.process.wait(60) == 1
    assert "the peer closed the connection" in client.log()


def test_down_ends_it_and_leaves_no_session(stage):
    gateway, client = stage.gateway(), stage.client()
    client.call("down")
    assert client.process.wait(60) == 0
    wait_until(lambda: gateway.call("status")["sessions"] == [], "the session is gone", logs=stage.logs)


def test_detached(stage):
    stage.gateway()
    client = stage.client("--detach", wait=False)
    assert client.process.wait(60) == 0
    stage.ping(INNER)
    pid = client.call("status")["pid"]
    assert pid != client.process.pid
    client.call("down")
    wait_until(lambda: not os.path.exists(f"/proc/{pid}"), "the process is gone")


def test_only_what_is_needed_is_kept_of_the_rights(stage):
    for program in (stage.gateway(), stage.client()):
        for process, wanted in ((program.process.pid, 1 << 5 | 1 << 12 | 1 << 13), (program.worker(), 0)):
            status = Path(f"/proc/{process}/status").read_text()
            held = {name: int(value, 16) for name, value in re.findall(r"(Cap(?:Prm|Eff|Bnd)):\s+(\w+)", status)}
            assert held == {"CapPrm": wanted, "CapEff": wanted, "CapBnd": wanted}


def test_wrong_secret_is_refused_on_both_sides(stage):
    gateway = stage.gateway()
    client = stage.client(secret="another one", wait=False)
    assert client.process.wait(60) == 3
    assert "error: " in client.log()
    gateway.wait_for("was refused")


@pytest.mark.parametrize("port", [500, 4500, 45009])
def test_nobody_at_that_port_is_told_soon(stage, port):
    client = stage.client(port=port, wait=False)
    client.wait_for(r"(?m)^connect\b")
    started = time.monotonic()
    assert client.process.wait(30) == 5
    assert re.search(rf"cannot be reached \(tried {re.escape(GATEWAY)}:{port}: refused \(ICMP", client.log())
    assert time.monotonic() - started < 15  # the retransmissions would take 165


def test_a_local_address_that_is_not_there_is_named(stage):
    client = stage.client(address=f'{GATEWAY}"\nlocal_address = "192.0.2.77', wait=False)
    assert client.process.wait(60) == 5
    assert "this host does not have `local_address` 192.0.2.77" in client.log()


def test_silent_address_is_told_with_its_port(stage):
    stage.hosts.gateway.run(
        ["nft", "table inet t { chain i { type filter hook input priority 0; udp dport 500 drop; }; }"]
    )
    client = stage.client(wait=False)
    assert client.process.wait(60) == 5
    assert f"tried {GATEWAY}:500: no answer" in client.log()
    stage.hosts.gateway.run(["nft", "delete table inet t"])


@pytest.mark.parametrize(("verdict", "told"), [("drop", "nothing for"), ("reject", ":4500: refused (ICMP")])
def test_a_closed_nat_port_is_told(stage, verdict, told):
    gateway = stage.gateway(network='[limits]\nhalf_open_time = "5s"')
    rules = f"table inet t {{ chain i {{ type filter hook input priority 0; udp dport 4500 {verdict}; }}; }}"
    stage.hosts.gateway.run(["nft", rules])
    client = stage.client(wait=False)
    assert client.process.wait(60) == 5
    assert f"{GATEWAY} answered IKE_SA_INIT, and then {GATEWAY}:4500 nothing" in client.log()
    assert told in client.log()
    stage.hosts.gateway.run(["nft", "delete table inet t"])
    gateway.wait_for("no IKE_AUTH")


def test_unreachable_network_is_told(stage):
    client = stage.client(address="fd77::1", wait=False)
    client.process.wait(60)
    assert re.search(r"tried \[fd77::1\]:500: (no route|network is unreachable)", client.log()), client.log()


def test_interrupted_while_it_connects(stage):
    stage.hosts.gateway.run(
        ["nft", "table inet t { chain i { type filter hook input priority 0; udp dport 500 drop; }; }"]
    )
    client = stage.client(wait=False)
    client.wait_for(r"(?m)^connect\b")
    started = time.monotonic()
    assert client.end(signal.SIGINT) == 130
    assert time.monotonic() - started < 20
    stage.hosts.gateway.run(["nft", "delete table inet t"])


def test_interrupted_while_the_host_is_set_up(stage):
    """Just then the answers of the data plane come: a cancellation must not get lost among them."""
    gateway = stage.gateway()
    for _ in range(3):
        client = stage.client(wait=False)
        client.wait_for(r"(?m)^address\b")
        assert client.end(signal.SIGINT, timeout=30) in (0, 130)
    wait_until(lambda: gateway.call("status")["sessions"] == [], "the sessions are gone")


def test_dead_address_of_a_name_is_passed_over(stage, tmp_path):
    hosts = tmp_path / "hosts"
    hosts.write_text(f"192.168.50.99 gw.test\n{GATEWAY} gw.test\n")
    stage.gateway()
    client = stage.client(address="gw.test", files={"/etc/hosts": hosts})
    assert client.call("status")["sessions"][0]["remote"].startswith(GATEWAY)
    stage.ping(INNER)


def test_two_clients_on_one_host(stage):
    gateway = stage.gateway(users=("ann", "bob"))
    stage.client()
    other = stage.client(name="other", user="bob")
    assert len(gateway.call("status")["sessions"]) == 2
    stage.ping(INNER)
    assert other.end() == 0
    stage.ping(INNER)


def test_reload_ends_the_sessions_of_removed_users_only(stage):
    gateway = stage.gateway(users=("ann", "bob"))
    ann = stage.client(session="reconnect = false")
    bob = stage.client(name="other", user="bob", session="reconnect = false")
    stage.users("bob")
    gateway.process.send_signal(signal.SIGHUP)
    assert ann.process.wait(60) == 1
    gateway.wait_for("ann@test may not connect any more")
    (session,) = gateway.call("status")["sessions"]
    assert session["remote_identity"] == "bob@test"
    assert bob.process.poll() is None


def test_reload_with_a_mistake_changes_nothing(stage):
    gateway = stage.gateway()
    client = stage.client()
    path = stage.folder / "gateway.toml"
    right = path.read_text()
    path.write_text(right.replace('login = "psk"', 'login = "pks"'))
    gateway.process.send_signal(signal.SIGHUP)
    gateway.wait_for("the old configuration stays: .*gateway.toml:")
    path.write_text(right)
    stage.ping(INNER)
    assert client.process.poll() is None


def test_removed_interface_is_made_anew(stage):
    stage.gateway()
    client = stage.client()
    stage.hosts.client.run(["ip", "link", "del", "ikeway0"])
    wait_until(lambda: client.logins() == 2, "connected anew", logs=stage.logs)
    wait_until(stage.ping_arrives, "traffic passes", logs=stage.logs)


def test_without_the_right_to_raw_sockets_esp_travels_in_udp(stage):
    gateway = stage.gateway()
    client = stage.client(prefix=["setpriv", "--bounding-set", "-net_raw", "--inh-caps", "-net_raw"])
    assert client.call("status")["sessions"][0]["children"][0]["encapsulation"] == "udp"
    stage.ping(INNER)
    assert gateway.call("status")["sessions"][0]["nat"] == "the peer"


def test_other_address_of_the_gateway_is_used_when_a_network_fails(stage):
    host = stage.hosts.client
    gateway = stage.gateway(listen='["192.168.50.1", "fd50::1"]')
    client = stage.client()
    host.run(["sysctl", "-qw", "net.ipv6.conf.eth0.keep_addr_on_down=1"])
    host.run(["ip", "addr", "del", f"{CLIENT}/24", "dev", "eth0"])
    try:
        wait_until(lambda: "fd50::2" in str(gateway.call("status")), "moved to IPv6", logs=stage.logs)
        stage.ping(INNER)
        assert client.logins() == 1
    finally:
        host.run(["ip", "addr", "add", f"{CLIENT}/24", "dev", "eth0"])
        host.run(["ip", "route", "replace", "default", "via", GATEWAY])
        host.run(["sysctl", "-qw", "net.ipv6.conf.eth0.keep_addr_on_down=0"])


def test_clients_that_come_and_go_leave_nothing_at_the_gateway(stage):
    gateway = stage.gateway()
    files = []
    for _ in range(3):
        client = stage.client()
        stage.ping(INNER, count=1)
        assert client.end() == 0
        wait_until(lambda: gateway.call("status")["sessions"] == [], "the session is gone")
        files.append(descriptors(gateway))
    wait_until(lambda: descriptors(gateway) == min(files, key=len), "no descriptor is left over")
    wait_until(lambda: gateway.call("status")["pools"][0]["used"] == 0, "all addresses are free")


def test_interrupted_at_the_prompt(stage):
    stage.gateway()
    profile = stage.write_profile()
    profile.write_text(re.sub(r'psk = ".*"', "", profile.read_text()))
    ours, theirs = pty.openpty()
    client = stage.hosts.client.popen(
        [sys.executable, "-m", "ikeway", "up", str(profile)],
        environment={"HOME": str(stage.folder), "IKEWAY_RUNTIME_DIR": str(stage.folder)},
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
    )
    said = b""
    while b"Pre-shared key for" not in said:
        said += os.read(ours, 4096)
    wait_until(lambda: not termios.tcgetattr(theirs)[3] & termios.ECHO, "the terminal does not echo")
    client.send_signal(signal.SIGINT)
    assert client.wait(60) == 130
    assert termios.tcgetattr(theirs)[3] & termios.ECHO
    os.close(ours)
    os.close(theirs)


def test_end_with_a_hanging_worker(stage):
    stage.gateway()
    client = stage.client()
    os.kill(client.worker(), signal.SIGSTOP)
    started = time.monotonic()
    assert client.end() == 0
    assert time.monotonic() - started < 40


def test_hanging_worker_is_replaced(stage):
    stage.gateway()
    client = stage.client()
    pid = client.worker()
    os.kill(pid, signal.SIGSTOP)
    wait_until(lambda: client.workers() not in ([], [pid]), "another worker", timeout=60, logs=stage.logs)
    wait_until(stage.ping_arrives, "traffic passes", logs=stage.logs)
    assert client.logins() == 1


def test_gateway_on_another_port_keeps_to_it(stage):
    stage.gateway(listen='["0.0.0.0"]\nport = 5501\nnat_port = 5500')
    client = stage.client(port=5500, ike="force_udp_encapsulation = true")
    assert client.call("status")["sessions"][0]["remote"] == f"{GATEWAY}:5500"
    stage.ping(INNER)


def test_host_without_ipv6(stage):
    for host in (stage.hosts.client, stage.hosts.gateway):
        host.run(["sysctl", "-qw", "net.ipv6.conf.all.disable_ipv6=1"])
    gateway = stage.gateway(subnets='["10.91.0.0/24"]')
    client = stage.client(network='request = ["ipv4"]')
    stage.ping(INNER)
    client.end()
    gateway.end()
    for host in (stage.hosts.client, stage.hosts.gateway):
        host.run(["sysctl", "-qw", "net.ipv6.conf.all.disable_ipv6=0"])
    stage.as_before = False  # the kernel made its own IPv6 addresses anew
