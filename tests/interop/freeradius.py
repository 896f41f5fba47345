"""Debian's FreeRADIUS with a small configuration of its own, in a namespace.

What to know of it: attributes of `users` come with Access-Accept only where `eap` returns early (`ok = return`); the
session of an EAP method is in memory, so that no other server can go on with it.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ikeway.host.namespaces import Namespace
from tests.interop.pki import Credential
from tests.interop.waiting import wait_for_text, wait_until

PROGRAM = "/usr/sbin/freeradius"
RADIUS_SECRET = "a secret of more than 16 letters"

CONFIGURATION = """
libdir = /usr/lib/freeradius
name = radiusd
logdir = {folder}
run_dir = {folder}
pidfile = {folder}/pid
hostname_lookups = no
max_request_time = 10
cleanup_delay = 1
max_requests = 4096
proxy_requests = no
log {{
  destination = stdout
  auth = yes
}}
security {{
  allow_vulnerable_openssl = yes
  reject_delay = 0
  status_server = no
}}
thread pool {{
  start_servers = 1
  max_servers = 4
  min_spare_servers = 1
  max_spare_servers = 4
  max_requests_per_server = 0
}}
client gateways {{
  ipaddr = 0.0.0.0/0
  secret = "{secret}"
  require_message_authenticator = yes
}}
modules {{
  files {{
    usersfile = {folder}/users
  }}
  always handled {{
    rcode = handled
  }}
  pap {{
  }}
  mschap {{
  }}
  detail {{
    filename = {folder}/accounts
    permissions = 0600
  }}
  eap {{
    default_eap_type = {method}
    timer_expire = 60
    max_sessions = 4096
    md5 {{
    }}
    gtc {{
      auth_type = PAP
    }}
    mschapv2 {{
    }}
    tls-config lab {{
      private_key_file = {key}
      certificate_file = {certificate}
      ca_file = {ca}
      cipher_list = "DEFAULT"
      tls_min_version = "1.2"
      tls_max_version = "{tls}"
      ecdh_curve = "prime256v1"
    }}
    tls {{
      tls = lab
    }}
    ttls {{
      tls = lab
      default_eap_type = md5
      virtual_server = inner
    }}
    peap {{
      tls = lab
      default_eap_type = mschapv2
      virtual_server = inner
    }}
  }}
}}
server outer {{
  listen {{
    type = auth
    ipaddr = *
    port = 1812
  }}
  listen {{
    type = acct
    ipaddr = *
    port = 1813
  }}
  authorize {{
    eap {{
      ok = return
    }}
    files
    {second_factor}
    pap
  }}
  authenticate {{
    Auth-Type PAP {{
      pap
    }}
    Auth-Type MS-CHAP {{
      mschap
    }}
    Auth-Type PASSWORD-THEN-CODE {{
      pap
      if (ok) {{
        update reply {{
          State := "begun"
          Reply-Message := "Code of the app: "
        }}
        update control {{
          Response-Packet-Type := Access-Challenge
        }}
        handled
      }}
    }}
    eap
  }}
  accounting {{
    detail
  }}
  post-auth {{
    {signed}
    Post-Auth-Type REJECT {{
      {signed}
    }}
    Post-Auth-Type Challenge {{
      {signed}
    }}
  }}
}}
server inner {{
  authorize {{
    mschap
    eap {{
      ok = return
    }}
    files
    pap
  }}
  authenticate {{
    Auth-Type PAP {{
      pap
    }}
    Auth-Type MS-CHAP {{
      mschap
    }}
    eap
  }}
}}
"""


# Lets servers from before CVE-2024-3596 sign every answer; with EAP they do it anyway.
SIGNED = """
    update reply {
      Message-Authenticator := 0x00
    }
"""
# The right password is answered by a question for a code.
SECOND_FACTOR = """
    if (!&State) {{
      update control {{
        Auth-Type := PASSWORD-THEN-CODE
      }}
    }}
    else {{
      update control {{
        Cleartext-Password := "{code}"
      }}
    }}
"""


@dataclass(frozen=True)
class Record:
    """An accounting record, as FreeRADIUS wrote it down."""

    attributes: Mapping[str, str]

    @property
    def status(self) -> str:
        return self.attributes["Acct-Status-Type"]

    def number(self, name: str) -> int:
        return int(self.attributes[name])


class FreeRadius:
    """A server; `stop()` ends it."""

    def __init__(
        self,
        namespace: Namespace,
        folder: Path,
        credential: Credential,
        users: str,
        *,
        trusts: Credential | None = None,
        code: str = "",
        signed: bool = True,
        method: str = "mschapv2",
        tls: str = "1.2",
    ) -> None:
        """`users` as its users file has them; `method` is proposed first. Certificates of clients must be of the authority
        of `trusts`. `code`: what everybody is asked for after the password, where that comes in clear. `signed`: its
        answers to passwords have a Message-Authenticator."""
        self.namespace, self.folder = namespace, folder
        folder.mkdir(exist_ok=True)
        certificate, key, _ = credential.write(folder, "radius")
        _, _, ca = (trusts or credential).write(folder, "clients")
        (folder / "dictionary").write_text("$INCLUDE /usr/share/freeradius/dictionary\n")
        (folder / "users").write_text(users)
        (folder / "radiusd.conf").write_text(
            CONFIGURATION.format(
                second_factor=SECOND_FACTOR.format(code=code) if code else "",
                signed=SIGNED if signed else "",
                folder=folder,
                secret=RADIUS_SECRET,
                method=method,
                tls=tls,
                certificate=certificate,
                key=key,
                ca=ca,
            )
        )
        self._output = folder / "output"
        with self._output.open("wb") as output:
            self.process = namespace.popen(
                [PROGRAM, "-X", "-d", str(folder)], files={}, environment={}, stdout=output, stderr=subprocess.STDOUT
            )
        wait_for_text(self.log, "Ready to process requests", 10, lambda: self.process.poll() is not None)

    def log(self) -> str:
        """All that it said."""
        return self._output.read_text(errors="replace")

    def records(self) -> list[Record]:
        """The accounting records so far."""
        path = self.folder / "accounts"
        found = path.read_text().strip().split("\n\n") if path.exists() else []
        return [Record(dict(re.findall(r"^\t([\w-]+) = \"?(.*?)\"?$", one, re.MULTILINE))) for one in found if one]

    def wait_for_record(self, status: str, timeout: float = 10) -> Record:
        """The first record of this kind."""
        wait_until(
            lambda: any(record.status == status for record in self.records()), f"no record {status}", timeout, self.log
        )
        return next(record for record in self.records() if record.status == status)

    def stop(self) -> None:
        """End it."""
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait(10)


def radclient(namespace: Namespace, server: str, command: str, attributes: Mapping[str, str | int]) -> str:
    """What `radclient` (freeradius-utils) says of the answer to a request. `command`: disconnect or coa."""
    words = ["radclient", "-x", "-r", "1", "-t", "3", server, command, RADIUS_SECRET]
    text = ", ".join(
        f'{key}="{value}"' if isinstance(value, str) else f"{key}={value}" for key, value in attributes.items()
    )
    done = namespace.popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    said, _ = done.communicate(text + "\n", timeout=20)
    return str(said)
