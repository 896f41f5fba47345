"""RFC 2759 section 9.2 and RFC 3079 section 3.5, read from the RFCs' own text."""

import re

import pytest

from ikeway.eap.mschapv2_crypto import (
    _with_parity,
    authenticator_response,
    bare_user_name,
    challenge_hash,
    challenge_response,
    hash_nt_password_hash,
    master_key,
    master_session_key,
    nt_password_hash,
    nt_response,
    start_key,
)
from tests.vectors import vector


def octets_after(text: str, label: str) -> bytes:
    """The hexadecimal octets behind `label =`, over as many lines as they take."""
    match = re.search(rf"{label}[^=\n]*[=:]\s*\n?((?:\s*(?:[0-9A-Fa-f]{{2}}\s+)+)+)", text)
    assert match, label
    return bytes.fromhex(match[1])


@pytest.fixture(scope="module")
def rfc2759() -> str:
    return vector("crypto/rfc/rfc2759_mschapv2_section9.txt").read_text()


@pytest.fixture(scope="module")
def rfc3079() -> str:
    text = vector("crypto/rfc/rfc3079_mppe_samples.txt").read_text()
    return text[text.index("3.5.  Sample Key Derivations") :]


def test_rfc2759_hash_generation(rfc2759: str) -> None:
    text = rfc2759[rfc2759.index("9.2.") : rfc2759.index("9.3.")]
    password_hash = octets_after(text, "16-octet PasswordHash")
    assert nt_password_hash("clientPass") == password_hash
    assert hash_nt_password_hash(password_hash) == octets_after(text, "16-octet PasswordHashHash")
    theirs, ours = octets_after(text, "16-octet AuthenticatorChallenge"), octets_after(text, "16-octet PeerChallenge")
    challenge = octets_after(text, "8-octet Challenge")
    assert challenge_hash(ours, theirs, b"User") == challenge
    response = octets_after(text, "24 octet NT-Response")
    assert challenge_response(challenge, password_hash) == response
    assert nt_response(theirs, ours, b"User", password_hash) == response
    claimed = re.search(r'"S=([0-9A-F]{40})"', text.replace("\n", ""))
    assert claimed
    assert authenticator_response(password_hash, response, ours, theirs, b"User").hex().upper() == claimed[1]


def test_rfc2759_des_keys(rfc2759: str) -> None:
    text = rfc2759[rfc2759.index("9.3.") :]
    password_hash = octets_after(text, "16-octet PasswordHash")
    assert nt_password_hash("MyPw") == password_hash
    for raw, corrected in (
        (password_hash[:7], octets_after(text, "First parity-corrected DES key")),
        (password_hash[7:14], octets_after(text, "Second parity-corrected DES key")),
    ):
        assert [octet & 0xFE for octet in corrected] == list(_with_parity(raw))


def test_rfc3079_keys(rfc3079: str) -> None:
    password_hash = octets_after(rfc3079, "PasswordHash")
    response = octets_after(rfc3079, "NT-Response")
    key = master_key(hash_nt_password_hash(password_hash), response)
    assert key == octets_after(rfc3079, "MasterKey")
    sent_by_server = start_key(key, client_sends=False)
    assert sent_by_server == octets_after(rfc3079, "SendStartKey128")
    assert start_key(key, client_sends=False, length=8) == octets_after(rfc3079, "SendStartKey40")
    msk = master_session_key(password_hash, response)
    assert len(msk) == 64
    assert msk[16:32] == sent_by_server
    assert msk[:16] == start_key(key, client_sends=True) != sent_by_server
    assert msk[32:] == bytes(32)


@pytest.mark.parametrize(
    ("name", "bare"),
    [
        (b"User", b"User"),
        (b"CORP\\User", b"User"),
        (b"A\\B\\C", b"B\\C"),
        (b"user@example.org", b"user@example.org"),
        (b"", b""),
    ],
)
def test_domain_is_left_out(name: bytes, bare: bytes) -> None:
    assert bare_user_name(name) == bare
