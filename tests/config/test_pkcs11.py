"""Keys in tokens, with softhsm2: URIs, every way to sign, PINs, and what goes wrong."""

from __future__ import annotations

import asyncio
import gc
import os
import shutil
import sys
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pkcs11
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import load_der_public_key
from hypothesis import given
from hypothesis import strategies as st
from pkcs11.util.rsa import encode_rsa_public_key

from ikeway.auth.certificate import CertificateCredential, Signer, TrustStore
from ikeway.auth.errors import NoCommonSignature
from ikeway.auth.questions import SignQuestion
from ikeway.client.profile import load_profile
from ikeway.config.pkcs11.token import TokenSigner, open_token
from ikeway.config.pkcs11.uri import Pkcs11Uri, parse_uri
from ikeway.crypto.signature import CLASSIC_SCHEMES, schemes_for, verify
from ikeway.daemon.signing import sign
from ikeway.errors import ConfigError, ConfigErrors, HostError
from ikeway.gateway.config import load_gateway_config
from ikeway.ike import events
from ikeway.ike.exchanges import init
from ikeway.ike.settings import CertificateExpected
from ikeway.wire.payloads import Authentication
from ikeway.wire.registry import AuthenticationMethod
from tests.config.material import NOW, authority, write_private
from tests.config.tokens import LIBRARY, PIN, SoftToken
from tests.ike.pair import Pair, connection, connection_b

needs_token = pytest.mark.programs("softhsm2")

KEYS = {
    "rsa": lambda: rsa.generate_private_key(65537, 2048),
    "p256": lambda: ec.generate_private_key(ec.SECP256R1()),
    "p384": lambda: ec.generate_private_key(ec.SECP384R1()),
    "p521": lambda: ec.generate_private_key(ec.SECP521R1()),
    "ed25519": ed25519.Ed25519PrivateKey.generate,
}


@pytest.fixture(scope="module")
def token(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SoftToken]:
    made = SoftToken(tmp_path_factory.mktemp("token"))
    for number, (name, generate) in enumerate(KEYS.items(), 1):
        key = generate()
        made.put_key(key, name, f"{number:02x}")
        certificate = authority().issue_client(f"{name}@example.com", key.public_key(), NOW)
        made.put_certificate(certificate, name, f"{number:02x}")
    lonely = ec.generate_private_key(ec.SECP256R1())
    made.put_key(lonely, "lonely", "aa")
    (made.folder / "lonely.pem").write_bytes(
        _pem(authority().issue_client("lonely@example.com", lonely.public_key(), NOW))
    )
    (made.folder / "ca.pem").write_bytes(_pem(authority().certificate))
    (made.folder / "vpn.pem").write_bytes(
        _pem(authority().issue_gateway(["vpn.example.com"], lonely.public_key(), NOW))
    )
    yield made


def _pem(certificate) -> bytes:
    from cryptography.hazmat.primitives.serialization import Encoding

    return certificate.public_bytes(Encoding.PEM)


@pytest.fixture(autouse=True)
def _library(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The library reads its environment when it is loaded."""
    if "token" in request.fixturenames:
        monkeypatch.setenv("SOFTHSM2_CONF", str(request.getfixturevalue("token").configuration))
    yield
    gc.collect()  # sessions that nobody has any more are closed before their library goes
    for thread in threading.enumerate():
        if thread.name == "ikeway-token":
            thread.join(5)
    pkcs11.unload(LIBRARY)


def opened(token: SoftToken, name: str) -> TokenSigner:
    return open_token(parse_uri(token.uri(name)), lambda attempt: PIN)


# --- URIs (RFC 7512) --------------------------------------------------------------------------------------------------


def test_uris() -> None:
    found = parse_uri("pkcs11:token=The%20Software%20PKCS%2311%20token;object=my-key;id=%69%95;serial=DECC0401648")
    assert (found.token, found.object, found.id) == ("The Software PKCS#11 token", "my-key", b"\x69\x95")
    assert found.serial == "DECC0401648" and found.slot_id is None
    found = parse_uri("pkcs11:object=a;type=private;slot-id=327?module-path=/usr/lib/libmypkcs11.so.1")
    assert found.slot_id == 327 and found.module_path == "/usr/lib/libmypkcs11.so.1"
    assert parse_uri("pkcs11:") == Pkcs11Uri("pkcs11:")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "token=work",
        "http:token=work",
        "pkcs11:token",
        "pkcs11:token=a;token=b",
        "pkcs11:token=%zz",
        "pkcs11:token=%ff",
        "pkcs11:unknown=1",
        "pkcs11:slot-id=-1",
        "pkcs11:type=secret-key",
        "pkcs11:library-version=1",
        "pkcs11:?module-name=x",
        "pkcs11:token=\n",
    ],
)
def test_what_is_no_uri(text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_uri(text)
    assert caught.value.expected and caught.value.remedy


@pytest.mark.parametrize("name", ["pin-value", "pin-source"])
def test_a_pin_in_a_uri_is_refused_and_not_repeated(name: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_uri(f"pkcs11:token=work?{name}=hunter2")
    assert "hunter2" not in str(caught.value) and "`pin`" in caught.value.remedy


@given(st.text(max_size=200))
def test_any_text_is_a_uri_or_a_mistake(text: str) -> None:
    try:
        parse_uri("pkcs11:" + text)
    except ConfigError as error:
        assert error.remedy


# --- signatures -------------------------------------------------------------------------------------------------------


@needs_token
@pytest.mark.parametrize("name", KEYS)
def test_every_scheme_of_every_kind_of_key(token: SoftToken, name: str) -> None:
    signer = opened(token, name)
    assert isinstance(signer, Signer) and signer.blocks
    key = signer.public_key
    schemes = [*schemes_for(key), *(each for each in CLASSIC_SCHEMES.values() if each.fits(key))]
    assert schemes
    for scheme in schemes:
        verify(key, scheme, signer.sign(scheme, b"to be signed"), b"to be signed")
    assert PIN not in repr(signer)


METHODS = {"rsa": AuthenticationMethod.RSA_DIGITAL_SIGNATURE, "p256": AuthenticationMethod.ECDSA_SHA256_P256}


@needs_token
@pytest.mark.parametrize("name", ["rsa", "p256", "ed25519"])
@pytest.mark.parametrize("rfc7427", [True, False])
def test_a_log_in_of_both_sides(token: SoftToken, name: str, rfc7427: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """The engine asks for the signature, and goes on when it is there."""
    if not rfc7427:
        monkeypatch.setattr(init, "_capabilities", lambda *, fragmentation: ())
    signer = opened(token, name)
    credential = CertificateCredential(signer.chain, signer)
    own = {"local_identity": credential.identity, "local_credential": credential, "remote_identity": None}
    own["remote_expectation"] = CertificateExpected(TrustStore((authority().certificate,)))
    pair = Pair(connection(**own), connection_b(**own), epoch=datetime.now(UTC))
    pair.a.answers[SignQuestion] = pair.b.answers[SignQuestion] = lambda asked: asked.signer.sign(
        asked.scheme, asked.octets
    )
    pair.connect()
    if not rfc7427 and name not in METHODS:
        assert isinstance(pair.a.errors[0], NoCommonSignature)
        return
    pair.agree()
    assert len(pair.a.inbound) == 1, pair.a.errors
    (found,) = {
        payload.method
        for event in (*pair.a.happened(events.MessageReceived), *pair.b.happened(events.MessageReceived))
        for payload in event.message.find_all(Authentication)
    }
    assert found == (AuthenticationMethod.DIGITAL_SIGNATURE if rfc7427 else METHODS[name])


@needs_token
def test_a_token_that_refuses_ends_the_log_in(token: SoftToken) -> None:
    signer = opened(token, "p256")
    credential = CertificateCredential(signer.chain, signer)
    trust = CertificateExpected(TrustStore((authority().certificate,)))
    for side in ("a", "b"):
        a = connection(local_identity=credential.identity, local_credential=credential)
        b = connection_b(local_credential=credential, local_identity=None, remote_identity=None)
        pair = Pair(a, connection_b(remote_identity=None, remote_expectation=trust)) if side == "a" else Pair(b=b)
        host = pair.a if side == "a" else pair.b
        host.answers[SignQuestion] = HostError("the token is gone")
        pair.connect()
        assert not pair.a.happened(events.IkeEstablished) and not pair.b.happened(events.IkeEstablished)
        told = host.errors if side == "a" else [event.error for event in host.happened(events.Refused)]
        assert any("the token is gone" in str(error) for error in told)


@needs_token
async def test_signing_leaves_the_event_loop_alone(token: SoftToken) -> None:
    """`daemon.signing` calls the token in a thread."""
    threads: list[int] = []

    class Slow(TokenSigner):
        def sign(self, scheme, octets):
            threads.append(threading.get_ident())
            return super().sign(scheme, octets)

    signer = Slow(parse_uri(token.uri("p256")), lambda attempt: PIN, ())
    threads.clear()
    scheme = schemes_for(signer.public_key)[0]
    signatures = await asyncio.gather(*(sign(SignQuestion(signer, scheme, bytes([n]))) for n in range(8)))
    for number, signature in enumerate(signatures):
        verify(signer.public_key, scheme, signature, bytes([number]))
    assert threading.get_ident() not in threads


@needs_token
def test_a_forked_process_opens_the_token_itself(token: SoftToken) -> None:
    signer = opened(token, "p256")
    scheme = schemes_for(signer.public_key)[0]
    child = os.fork()
    if child == 0:
        try:
            verify(signer.public_key, scheme, signer.sign(scheme, b"child"), b"child")
            os._exit(0)
        except BaseException:
            os._exit(1)
    assert os.waitpid(child, 0)[1] == 0
    verify(signer.public_key, scheme, signer.sign(scheme, b"parent"), b"parent")


# --- configurations ---------------------------------------------------------------------------------------------------


def profile(token: SoftToken, login: str, prompt=None):
    text = f'[gateway]\naddress = "vpn.example.com"\nca = "ca.pem"\n[login]\n{login}\n'
    return load_profile(write_private(token.folder / "work.toml", text), prompt)


def mistake(token: SoftToken, login: str, prompt=None) -> ConfigError:
    with pytest.raises(ConfigErrors) as caught:
        profile(token, login, prompt)
    (error,) = caught.value.errors
    assert error.remedy and PIN not in str(error)
    return error


@needs_token
def test_a_profile(token: SoftToken) -> None:
    found = profile(token, f'pkcs11 = "{token.uri("p256")}"\npin = "{PIN}"')
    credential = found.connection().local_credential
    assert isinstance(credential, CertificateCredential)
    assert str(credential.identity) == "p256@example.com"
    assert not found.asks_secret and PIN not in repr(found)


@needs_token
@pytest.mark.parametrize("by", ["id", "certificate"])
def test_other_ways_to_name_the_key(token: SoftToken, by: str) -> None:
    if by == "id":
        login = f'pkcs11 = "{token.uri(id="%02")}"\npin = "{PIN}"'
    else:
        login = f'pkcs11 = "{token.uri("lonely")}"\ncertificate = "lonely.pem"\npin = "{PIN}"'
    credential = profile(token, login).connection().local_credential
    assert str(credential.identity) == {"id": "p256@example.com", "certificate": "lonely@example.com"}[by]


@needs_token
def test_a_gateway(token: SoftToken) -> None:
    write_private(token.folder / "users.toml", '[users.alice]\npassword = "x"\n')
    text = (
        f'[gateway]\npkcs11 = "{token.uri("lonely")}"\ncertificate = "vpn.pem"\npin = {{ file = "pin" }}\n'
        'users = "users.toml"\n[pools.office]\nipv4 = "10.99.0.0/24"\n'
        '[connections.people]\nlogin = "eap-mschapv2"\npools = "office"\n'
    )
    write_private(token.folder / "pin", PIN)
    found = load_gateway_config(write_private(token.folder / "gateway.toml", text))
    (connection,) = found.candidates[0].connections
    assert isinstance(connection.local_credential, CertificateCredential)
    assert connection.local_credential.signer.blocks
    # A reload opens the token once more, beside the session that is in use.
    again = load_gateway_config(token.folder / "gateway.toml").candidates[0].connections[0].local_credential
    for credential in (connection.local_credential, again):
        scheme = schemes_for(credential.public_key)[0]
        verify(credential.public_key, scheme, credential.signer.sign(scheme, b"x"), b"x")


@needs_token
def test_reloads_leave_no_sessions_behind(token: SoftToken) -> None:
    """Tokens have few. The one that has logged in stays: its end would log out those that come after it."""
    first, later, gone = (opened(token, "p256") for _ in range(3))
    session = gone._held.session
    del gone
    gc.collect()
    deadline = time.monotonic() + 5
    with pytest.raises(pkcs11.PKCS11Error):
        while time.monotonic() < deadline:
            session.generate_random(64)
            time.sleep(0.01)
    for signer in (first, later):
        scheme = schemes_for(signer.public_key)[0]
        verify(signer.public_key, scheme, signer.sign(scheme, b"x"), b"x")


@needs_token
def test_one_at_a_time_speaks_to_a_library(token: SoftToken) -> None:
    """It is initialised without locks, and a reload opens the token while log-ins sign."""
    signer = opened(token, "p256")
    is_open = threading.Event()

    def open_another() -> None:
        opened(token, "p256")
        is_open.set()

    with signer._lock:
        other = threading.Thread(target=open_another)
        other.start()
        assert not is_open.wait(0.2)
    assert is_open.wait(5)
    other.join()


@needs_token
def test_the_pin_is_asked_for(token: SoftToken) -> None:
    asked: list[str] = []
    answers = ["0000", PIN]

    def person(words: str) -> str:
        asked.append(words)
        return answers.pop(0)

    profile(token, f'pkcs11 = "{token.uri("p256")}"', person)
    assert asked == ["PIN of work: ", "PIN of work: "]


@needs_token
def test_a_wrong_pin_is_tried_once(token: SoftToken) -> None:
    error = mistake(token, f'pkcs11 = "{token.uri("p256")}"\npin = "0000"')
    assert "the PIN of pkcs11:token=work" in error.reason and error.line == 5
    assert "a wrong PIN" in error.got and "tries" in error.got


@needs_token
@pytest.mark.parametrize(
    ("uri", "words"),
    [
        ("pkcs11:token=home?module-path={library}", "no token fits"),
        ("pkcs11:token=work;object=nothing?module-path={library}", "names 0 private keys"),
        ("pkcs11:token=work?module-path={library}", f"names {len(KEYS) + 1} private keys"),
        ("pkcs11:token=work;object=lonely?module-path={library}", "has 0 certificates of its key"),
        ("pkcs11:token=work?module-path=/usr/lib/nothing.so", "cannot be used as a PKCS#11 library"),
        ("pkcs11:token=work?module-path=/etc/hostname", "cannot be used as a PKCS#11 library"),
    ],
)
def test_what_is_not_there(token: SoftToken, uri: str, words: str) -> None:
    error = mistake(token, f'pkcs11 = "{uri.format(library=LIBRARY)}"\npin = "{PIN}"')
    assert words in error.reason, error


@needs_token
def test_a_certificate_of_another_key(token: SoftToken) -> None:
    error = mistake(token, f'pkcs11 = "{token.uri("p256")}"\ncertificate = "lonely.pem"\npin = "{PIN}"')
    assert "does not sign for its certificate" in error.reason


@needs_token
def test_nobody_to_ask(token: SoftToken) -> None:
    assert "nobody to ask" in mistake(token, f'pkcs11 = "{token.uri("p256")}"').reason


@needs_token
@pytest.mark.parametrize(
    ("login", "words"),
    [
        ('pkcs11 = "{uri}"\npin = "1"\nkey = "x.key"', "both `pkcs11`"),
        ('pin = "1"\nusername = "alice"', "`pin` is not used"),
        ('pkcs11 = "http:x"\npin = "1"', "no PKCS#11 URI"),
        ('method = "eap-mschapv2"\nusername = "alice"\npkcs11 = "{uri}"', "`pkcs11` is not used"),
    ],
)
def test_what_does_not_go_together(token: SoftToken, login: str, words: str) -> None:
    with pytest.raises(ConfigErrors) as caught:
        profile(token, login.format(uri=token.uri("p256")))
    assert any(words in error.reason for error in caught.value.errors), caught.value.errors


def test_without_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pkcs11", None)
    with pytest.raises(ConfigError) as caught:
        open_token(parse_uri(f"pkcs11:token=work?module-path={LIBRARY}"), lambda attempt: PIN)
    assert "ikeway[pkcs11]" in caught.value.remedy


# --- tokens that come and go ------------------------------------------------------------------------------------------


@pytest.fixture
def own_token(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SoftToken:
    made = SoftToken(tmp_path)
    monkeypatch.setenv("SOFTHSM2_CONF", str(made.configuration))
    key = KEYS["p256"]()
    made.put_key(key, "p256", "01")
    made.put_certificate(authority().issue_client("p256@example.com", key.public_key(), NOW), "p256", "01")
    return made


@needs_token
def test_a_token_that_is_taken_out_and_put_back(own_token: SoftToken, tmp_path: Path) -> None:
    signer = opened(own_token, "p256")
    scheme = schemes_for(signer.public_key)[0]
    shutil.move(tmp_path / "tokens", tmp_path / "drawer")
    (tmp_path / "tokens").mkdir()
    pkcs11.lib(LIBRARY).reinitialize()  # what a reader's driver sees at once, softhsm2 sees when it starts
    with pytest.raises((HostError, ConfigError)) as caught:
        signer.sign(scheme, b"x")
    assert "token" in str(caught.value) and caught.value.remedy
    shutil.rmtree(tmp_path / "tokens")
    shutil.move(tmp_path / "drawer", tmp_path / "tokens")
    pkcs11.lib(LIBRARY).reinitialize()
    verify(signer.public_key, scheme, signer.sign(scheme, b"x"), b"x")


@needs_token
@pytest.mark.parametrize("signers", [1, 2])
def test_a_key_that_wants_the_pin_for_each_signature(own_token: SoftToken, signers: int) -> None:
    """As that of a card for signatures has it."""
    with pkcs11.lib(LIBRARY).get_token(token_label="work").open(rw=True, user_pin=PIN) as session:
        wants_pin = {pkcs11.Attribute.ALWAYS_AUTHENTICATE: True}
        options = {"id": b"\x02", "label": "strict", "store": True, "private_template": wants_pin}
        public, _ = session.generate_keypair(pkcs11.KeyType.RSA, 2048, **options)
        key = load_der_public_key(encode_rsa_public_key(public))
    own_token.put_certificate(authority().issue_client("strict@example.com", key, NOW), "strict", "02")
    asked: list[int] = []

    def pin(attempt: int) -> str:
        asked.append(attempt)
        return PIN

    for signer in [open_token(parse_uri(own_token.uri("strict")), pin) for _ in range(signers)]:
        for number in range(3):
            scheme = schemes_for(signer.public_key)[0]
            verify(signer.public_key, scheme, signer.sign(scheme, bytes([number])), bytes([number]))
    assert asked == [1] * signers


# --- which library ----------------------------------------------------------------------------------------------------


@needs_token
def test_the_library_that_is_in_its_usual_place(token: SoftToken, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ikeway.config.pkcs11.token.LIBRARIES", (Path("/usr/lib/nothing.so"), Path(LIBRARY)))
    signer = open_token(parse_uri("pkcs11:token=work;object=p256"), lambda attempt: PIN)
    scheme = schemes_for(signer.public_key)[0]
    verify(signer.public_key, scheme, signer.sign(scheme, b"x"), b"x")


def test_no_library(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ikeway.config.pkcs11.token.LIBRARIES", ())
    with pytest.raises(ConfigError) as caught:
        open_token(parse_uri("pkcs11:token=work"), lambda attempt: PIN)
    assert "no PKCS#11 library is known" in caught.value.reason and "module-path" in caught.value.remedy
