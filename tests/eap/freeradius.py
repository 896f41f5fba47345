"""FreeRADIUS on a port of its own, with a configuration of its own."""

from __future__ import annotations

import contextlib
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

from tests.conftest import OTHER_PROGRAMS
from tests.eap.live import CLIENT, PASSWORD, USER, authority
from tests.eap.radius_stage import SECRET
from tests.ports import unused_port

_CONFIGURATION = """
prefix = /usr
exec_prefix = /usr
sysconfdir = /etc
libdir = /usr/lib/freeradius
raddbdir = {folder}
logdir = {folder}
run_dir = {folder}
db_dir = {folder}
pidfile = {folder}/pid
name = ikeway-test
correct_escapes = true
max_request_time = 10
cleanup_delay = 2
hostname_lookups = no
log {{ destination = stdout }}
security {{ allow_core_dumps = no
  reject_delay = 0 }}
thread pool {{ start_servers = 1
  max_servers = 2
  min_spare_servers = 1
  max_spare_servers = 1 }}
client local {{ ipaddr = 127.0.0.1
  secret = {secret}
  require_message_authenticator = yes }}
modules {{
  pap {{ }}
  mschap {{ use_mppe = yes
    {mschap} }}
  always reject {{ rcode = reject }}
  always ok {{ rcode = ok }}
  files {{ filename = {folder}/users }}
  eap {{
    default_eap_type = {method}
    timer_expire = 60
    ignore_unknown_eap_types = no
    max_sessions = 256
    md5 {{ }}
    sim {{ }}
    gtc {{ challenge = "Password: "
      auth_type = PAP }}
    mschapv2 {{ send_error = yes }}
    tls-config common {{
      private_key_file = {folder}/server.key
      certificate_file = {folder}/server.pem
      ca_file = {folder}/ca.pem
      tls_min_version = "1.2"
      tls_max_version = "1.3"
      cipher_list = "DEFAULT"
      fragment_size = {fragment}
      ecdh_curve = ""
      cache {{ enable = {cache}
        lifetime = 1
        name = "ikeway-test"
        persist_dir = {folder}/sessions }}
    }}
    tls {{ tls = common }}
    ttls {{ tls = common
      default_eap_type = {inner}
      virtual_server = inner }}
    peap {{ tls = common
      default_eap_type = {inner}
      virtual_server = inner }}
  }}
}}
server default {{
  listen {{ type = auth
    ipaddr = 127.0.0.1
    port = {port} }}
  authorize {{ files
    eap }}
  authenticate {{ mschap
    Auth-Type PAP {{ pap }}
    eap }}
}}
server inner {{
  authorize {{ mschap
    update control {{ &Proxy-To-Realm := LOCAL }}
    eap {{ ok = return }}
    files
    pap }}
  authenticate {{
    Auth-Type PAP {{ pap }}
    Auth-Type MS-CHAP {{ mschap }}
    mschap
    eap }}
}}
"""


class FreeRadius:
    """A running server. `log` has its words."""

    def __init__(
        self,
        folder: Path,
        *,
        method: str,
        inner: str,
        cache: bool,
        fragment: int,
        mschap: str,
        checks: str,
        more_users: str,
    ) -> None:
        self.port = unused_port()
        folder.chmod(0o700)
        authority().write(folder)
        (folder / "sessions").mkdir(0o700)
        settings = _CONFIGURATION.format(
            folder=folder,
            secret=SECRET.decode(),
            port=self.port,
            method=method,
            inner=inner,
            cache="yes" if cache else "no",
            fragment=fragment,
            mschap=mschap,
        )
        # Its parser wants a line for each brace; the reader of the above does not.
        (folder / "radiusd.conf").write_text(settings.replace(" }", "\n}").replace("{ ", "{\n"))
        known = f'Cleartext-Password := "{PASSWORD}"{checks}'
        (folder / "users").write_text(f'{USER} {known}\n"{CLIENT}" {known}\n{more_users}')
        self.log = folder / "log"
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [OTHER_PROGRAMS["freeradius"], "-f", "-X", "-d", str(folder), "-n", "radiusd"], stdout=log, stderr=log
            )
        deadline = time.monotonic() + 20
        while "Ready to process requests" not in self.log.read_text(errors="replace"):
            assert self.process.poll() is None and time.monotonic() < deadline, self.log.read_text(errors="replace")
            time.sleep(0.05)

    def close(self) -> None:
        self.process.terminate()
        self.process.wait(10)


@contextlib.contextmanager
def running(
    folder: Path,
    *,
    method: str = "tls",
    inner: str = "mschapv2",
    cache: bool = False,
    fragment: int = 1024,
    mschap: str = "",
    checks: str = "",
    more_users: str = "",
) -> Iterator[FreeRadius]:
    """`mschap`: more of this module's configuration. `checks`: more that the users file says of everybody;
    `more_users`: lines behind these."""
    server = FreeRadius(
        folder,
        method=method,
        inner=inner,
        cache=cache,
        fragment=fragment,
        mschap=mschap,
        checks=checks,
        more_users=more_users,
    )
    try:
        yield server
    finally:
        server.close()
