import os
import subprocess
import sys

import pytest

PROGRAM = """
import os, socket
from ikeway.daemon.privileges import CAP_NET_ADMIN, capabilities, keep_only
kept = keep_only([CAP_NET_ADMIN])
assert kept == capabilities() == {CAP_NET_ADMIN}, kept
try:
    socket.socket(socket.AF_INET, socket.SOCK_RAW, 50)
except PermissionError:
    print("no raw sockets")
status = open("/proc/self/status").read()
print([line.split()[1] for line in status.splitlines() if line.startswith(("CapBnd", "NoNewPrivs"))])
os.execvp("grep", ["grep", "CapEff", "/proc/self/status"])
"""


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="only root has something to give up")
def test_only_what_is_wanted_stays_for_good():
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=20)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0] == "no raw sockets"
    assert lines[1] == "['0000000000001000', '1']"
    assert lines[2].split()[1] == "0000000000001000"  # a program that is started has no more either
