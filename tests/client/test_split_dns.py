"""Split DNS with the real systemd-resolved: which name goes to which server while `ikeway up` runs, and afterwards.

It is unpacked, not installed, and runs with a bus of its own in namespaces: it is told of no interface but the test's.
"""

import subprocess
import sys
from pathlib import Path

import pytest

from ikeway.host.namespaces import Namespace
from tests.client.live import INNER, Live, live
from tests.netlab import GATEWAY

UNPACKED = Path("/var/cache/ikeway-tests/resolved")
RESOLVED = UNPACKED / "lib/systemd/systemd-resolved"
LIBRARIES = UNPACKED / "usr/lib/x86_64-linux-gnu/systemd"

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(not RESOLVED.exists(), reason=f"no systemd-resolved in {UNPACKED}, where .ci/run unpacks it"),
]

# Answers every question for an address with the one that it is given.
NAME_SERVER = """
import socket, sys
server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
server.bind((sys.argv[1], 53))
while True:
    question, peer = server.recvfrom(2048)
    end = question.index(0, 12) + 5
    is_a = question[end - 4 : end - 2] == bytes((0, 1))
    head = question[:2] + b"\\x81\\x80\\0\\1" + (b"\\0\\1" if is_a else b"\\0\\0") + bytes(4) + question[12:end]
    answer = b"\\xc0\\x0c\\0\\1\\0\\1\\0\\0\\0\\x05\\0\\4" + socket.inet_aton(sys.argv[2])
    server.sendto(head + (answer if is_a else b""), peer)
"""
BESIDE, THROUGH = "192.0.2.7", "10.91.0.7"  # what is answered outside the tunnel, and behind it

BUS = """<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN"
 "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig><type>system</type><listen>unix:path=/run/dbus/system_bus_socket</listen><auth>EXTERNAL</auth>
<policy context="default"><allow user="*"/><allow send_destination="*"/><allow receive_sender="*"/><allow own="*"/>
</policy></busconfig>
"""

# The first process of a PID namespace: this is "the host" for all that looks at process 1.
SCRIPT = f"""
set -eu
folder=$1; shift
mount --make-rprivate /
mount -t tmpfs none /run
mkdir -p /run/dbus /run/systemd/resolved.conf.d /run/systemd/resolve
for file in passwd group; do cp /etc/$file /run/$file; done
echo 'systemd-resolve:x:996:996::/:/usr/sbin/nologin' >> /run/passwd
echo 'systemd-resolve:x:996:' >> /run/group
for file in passwd group; do mount --bind /run/$file /etc/$file; done
echo 'nameserver 127.0.0.53' > /run/resolv.conf
mount --bind /run/resolv.conf /etc/resolv.conf
chown 996:996 /run/systemd/resolve
printf '[Resolve]\\nDNS={GATEWAY}\\nDNSSEC=no\\nLLMNR=no\\nMulticastDNS=no\\n' > /run/systemd/resolved.conf.d/test.conf
dbus-daemon --config-file=$folder/bus.conf --nofork 2>/dev/null &
until [ -S /run/dbus/system_bus_socket ]; do sleep 0.05; done
LD_LIBRARY_PATH={LIBRARIES} {RESOLVED} &
ask() {{
  for name in host.corp.test other.corp.test www.example.com; do
    LD_LIBRARY_PATH={LIBRARIES} {UNPACKED}/usr/bin/resolvectl query --cache=no -4 $name | sed -n '1s/ *-- .*//p'
  done
}}
tries=0
until LD_LIBRARY_PATH={LIBRARIES} {UNPACKED}/usr/bin/resolvectl status >/dev/null 2>&1; do
  tries=$((tries + 1)); [ $tries -lt 200 ]; sleep 0.05
done
"$@" > $folder/up.log 2>&1 &
up=$!
tries=0
until grep -qs ' is up: ' $folder/up.log; do
  tries=$((tries + 1)); [ $tries -lt 400 ] && kill -0 $up || {{ cat $folder/up.log; exit 1; }}; sleep 0.05
done
echo up; ask
kill $up; wait $up
echo down; ask
"""


def answers(stage: Live, network: str) -> dict[str, dict[str, str]]:
    """What each name led to while the tunnel was up and after it was down."""
    stage.gateway()
    for address, answer in ((GATEWAY, BESIDE), (INNER, THROUGH)):
        stage.hosts.gateway.popen([sys.executable, "-c", NAME_SERVER, address, answer])
    profile = stage.write_profile(network=network)
    (stage.folder / "bus.conf").write_text(BUS)
    said = in_a_host_of_its_own(stage.hosts.client, stage.folder, "up", str(profile))
    found: dict[str, dict[str, str]] = {}
    for line in said.splitlines():
        name, _, address = line.partition(": ")
        if address:
            found[list(found)[-1]][name] = address
        else:
            found[name] = {}
    return found


def in_a_host_of_its_own(namespace: Namespace, folder: Path, *words: str) -> str:
    isolated = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]
    process = namespace.popen(
        [*isolated, "sh", "-c", SCRIPT, "sh", str(folder), sys.executable, "-m", "ikeway", *words],
        environment={"HOME": str(folder), "TERM": "dumb", "PYTHONUNBUFFERED": "1", "SYSTEMD_LOG_LEVEL": "warning"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    said, _ = process.communicate(timeout=90)
    assert process.returncode == 0, said
    return said


@pytest.mark.parametrize(
    ("dns", "elsewhere"), [("domains", BESIDE), ("all", THROUGH)], ids=["names of the domain only", "all names"]
)
def test_names_go_to_the_servers_that_they_belong_to(tmp_path: Path, dns: str, elsewhere: str) -> None:
    with live(tmp_path) as stage:
        network = f'dns_servers = ["{INNER}"]\ndomains = ["corp.test"]\ndns = "{dns}"'
        found = answers(stage, network)
    corp = ("host.corp.test", "other.corp.test")
    assert found["up"] == dict.fromkeys(corp, THROUGH) | {"www.example.com": elsewhere}
    assert found["down"] == dict.fromkeys((*corp, "www.example.com"), BESIDE)
