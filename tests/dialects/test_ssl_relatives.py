"""Our documents and those of the SSL variant of the protocol: openconnect fills in our gateway's forms, ocserv's are
filled in by our client. That is as near as software of others comes to AnyConnect-EAP here; IKE has no part in it."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import http.client
import http.server
import re
import socket
import ssl
import subprocess
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from ikeway.dialects.anyconnect.document import element
from ikeway.dialects.anyconnect.messages import (
    Choice,
    FromClient,
    FromGateway,
    Input,
    Kind,
    decode_client,
    decode_gateway,
    encode_gateway,
)
from ikeway.dialects.anyconnect.options import ClientOptions
from ikeway.dialects.anyconnect.packet import Tlv, decode, encode, value_of
from ikeway.dialects.anyconnect.peer import AnyConnectPeer
from ikeway.eap.errors import WrongPassword
from ikeway.eap.questions import PasswordQuestion
from ikeway.errors import AuthenticationFailed
from ikeway.pki.authority import Authority, encode_certificates
from ikeway.pki.keys import KeyKind, generate_key
from tests.interop.waiting import wait_until
from tests.ports import unused_port

PASSWORD = "wonder&land <1>"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with server.pem, server.key, and pin: the hash of the key, as openconnect wants it."""
    folder = tmp_path_factory.mktemp("ssl")
    then = datetime.now(UTC) - timedelta(days=1)
    ca = Authority.create("Test CA", generate_key(KeyKind.ECDSA_P256), then)
    key = generate_key(KeyKind.ECDSA_P256)
    certificate = ca.issue_gateway(["127.0.0.1"], key.public_key(), then)
    (folder / "server.pem").write_bytes(encode_certificates(certificate))
    (folder / "server.key").write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    public = key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    (folder / "pin").write_text("pin-sha256:" + base64.b64encode(hashlib.sha256(public).digest()).decode())
    return folder


# --- openconnect fills in our forms -----------------------------------------------------------------------------------

OPAQUE = element("opaque", element("tunnel-group", "Staff & more"), element("config-hash", "ABC"), is_for="sg")
FORM = (
    Input("text", "username", "Username:"),
    Input("password", "password", "Password:"),
    Input("select", "group_list", "GROUP:", choices=(Choice("staff", "Staff"), Choice("guests", "Guests"))),
)


class Gateway(http.server.BaseHTTPRequestHandler):
    """Answers with our documents, and notes what came."""

    said: list[FromClient]

    def do_POST(self) -> None:
        said = decode_client(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.said.append(said)  # type: ignore[attr-defined]
        if said.kind is Kind.INIT or not said.answers:
            answer = FromGateway(Kind.AUTH_REQUEST, OPAQUE, "Who are you?", FORM, csport="443")
        else:
            answer = FromGateway(Kind.COMPLETE, session_id="1", session_token="0A@1@2B@3C")
        body = encode_gateway(answer)
        self.send_response(200)
        self.send_header("Content-Type", "text/xml")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Nothing on the terminal."""


@contextlib.contextmanager
def our_gateway(folder: Path) -> Iterator[tuple[int, list[FromClient]]]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "server.pem", folder / "server.key")
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Gateway) as serving:
        serving.socket = context.wrap_socket(serving.socket, server_side=True)
        serving.said = []  # type: ignore[attr-defined]
        thread = threading.Thread(target=serving.serve_forever, daemon=True)
        thread.start()
        try:
            yield serving.server_address[1], serving.said  # type: ignore[attr-defined]
        finally:
            serving.shutdown()
            thread.join()


@pytest.mark.programs("openconnect")
@pytest.mark.parametrize("group", ["Staff", "Guests"])
def test_openconnect_fills_in_our_form(server: Path, group: str) -> None:
    with our_gateway(server) as (port, said):
        command = [
            *("openconnect", "--authenticate", "--non-inter", "--passwd-on-stdin", "--user", "alice"),
            *("--authgroup", group, "--servercert", (server / "pin").read_text(), f"https://127.0.0.1:{port}"),
        ]
        done = subprocess.run(command, input=PASSWORD + "\n", capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 0, done.stderr
    assert "0A@1@2B@3C" in done.stdout
    first, last = said[0], said[-1]
    assert first.kind is Kind.INIT
    assert first.device.platform.startswith("linux")
    assert last.kind is Kind.AUTH_REPLY
    assert dict(last.answers) == {"username": "alice", "password": PASSWORD}
    assert last.group_select == group.lower()
    assert last.opaque is not None and last.opaque.text_of("tunnel-group") == "Staff & more"
    assert "Who are you?" in done.stderr


# --- our client fills in ocserv's -------------------------------------------------------------------------------------

OCSERV = """
auth = "plain[passwd={folder}/passwd]"
tcp-port = {port}
listen-host = 127.0.0.1
run-as-user = root
run-as-group = root
socket-file = {folder}/socket
server-cert = {folder}/server.pem
server-key = {folder}/server.key
isolate-workers = false
max-clients = 4
device = ikwoc
ipv4-network = 192.0.2.0/28
pid-file = {folder}/pid
select-group = staff[Staff]
select-group = guests[Guests]
auto-select-group = false
"""


@pytest.fixture
def ocserv(server: Path) -> Iterator[int]:
    port = unused_port(socket.SOCK_STREAM)
    hashed = subprocess.run(["openssl", "passwd", "-6", PASSWORD], capture_output=True, text=True, check=True).stdout
    (server / "passwd").write_text(f"alice:staff,guests:{hashed.strip()}\n")
    (server / "ocserv.conf").write_text(OCSERV.format(folder=server, port=port))
    server.chmod(0o755)
    with (server / "log").open("wb") as log:
        process = subprocess.Popen(["ocserv", "-f", "-d", "2", "-c", server / "ocserv.conf"], stdout=log, stderr=log)
    try:
        wait_until(lambda: _listens(port) or process.poll() is not None, 10)
        assert process.poll() is None, (server / "log").read_text()
        yield port
    finally:
        process.terminate()
        process.wait(10)


def _listens(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
        return True
    return False


class Talk:
    """Our client's method with HTTPS under it in place of IKE; what is said first is an answer to `hello`."""

    def __init__(self, port: int, folder: Path, options: ClientOptions, password: str = PASSWORD) -> None:
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        self._connection = http.client.HTTPSConnection("127.0.0.1", port, context=context, timeout=20)
        self._cookies: dict[str, str] = {}
        self._password = password
        self.method = AnyConnectPeer(options, "alice")
        self.asked: list[PasswordQuestion] = []
        self.kinds: list[Kind] = []
        self._talk = self.method.run(encode((Tlv(0, encode_gateway(FromGateway(Kind.HELLO))),)), self._ask)

    async def _ask(self, question: object) -> str:
        assert isinstance(question, PasswordQuestion)
        self.asked.append(question)
        return self._password

    def run(self) -> None:
        """Until the server says `complete`."""
        answer = _result(anext(self._talk))
        while not self.method.may_succeed:
            xml = value_of(decode(answer), 0)
            assert xml is not None
            received = self._post(xml)
            self.kinds.append(decode_gateway(received).kind)
            answer = _result(self._talk.asend(encode((Tlv(0, received),))))
        assert decode_client(value_of(decode(answer), 0) or b"").kind is Kind.ACK

    def _post(self, body: bytes) -> bytes:
        headers = {
            "User-Agent": "AnyConnect Windows 4.9.01095",
            "X-Aggregate-Auth": "1",
            "X-Transcend-Version": "1",
            "Content-Type": "text/xml",
            "Cookie": "; ".join(f"{name}={value}" for name, value in self._cookies.items()),
        }
        self._connection.request("POST", "/auth" if self._cookies else "/", body, headers)
        response = self._connection.getresponse()
        for header in response.headers.get_all("Set-Cookie") or ():
            if found := re.match(r"([^=;]+)=([^;]*)", header):
                self._cookies[found[1]] = found[2]
        text = response.read()
        if response.status != 200:
            raise AuthenticationFailed(f"HTTP {response.status}")
        return text


def _result(step: object) -> bytes:
    try:
        step.send(None)  # type: ignore[attr-defined]
    except StopIteration as stop:
        value: bytes = stop.value
        return value
    raise AssertionError("it waits")


@pytest.mark.programs("ocserv")
@pytest.mark.root
def test_ocserv_takes_what_our_client_says(server: Path, ocserv: int) -> None:
    talk = Talk(ocserv, server, ClientOptions(group="guests"))
    talk.run()
    assert talk.kinds[-1] is Kind.COMPLETE
    assert set(talk.kinds[:-1]) == {Kind.AUTH_REQUEST}
    assert len(talk.asked) == 1


@pytest.mark.programs("ocserv")
@pytest.mark.root
def test_a_wrong_password_is_not_sent_to_ocserv_twice(server: Path, ocserv: int) -> None:
    talk = Talk(ocserv, server, ClientOptions(group="staff"), "another one")
    with pytest.raises((WrongPassword, AuthenticationFailed)):
        talk.run()
    assert [question.attempt for question in talk.asked] in ([1], [1, 2])
