"""The computations of MS-CHAPv2 (RFC 2759 section 8) and of its keys (RFC 3079 section 3). Values in, values out.

MD4, SHA-1 and DES are what the protocol is made of: the log-in is safe only inside the IKE SA of an authenticated
gateway.
"""

from __future__ import annotations

import hashlib

from cryptography.hazmat.decrepit.ciphers.algorithms import TripleDES
from cryptography.hazmat.primitives.ciphers import Cipher, modes

MAX_PASSWORD = 256  # UTF-16 units (RFC 2759 section 8.1)

_SIGNING = b"Magic server to client signing constant"
_PADDING = b"Pad to make it do more than one iteration"
_MASTER_KEY = b"This is the MPPE Master Key"
_CLIENT_SENDS = b"On the client side, this is the send key; on the server side, it is the receive key."
_SERVER_SENDS = b"On the client side, this is the receive key; on the server side, it is the send key."
_ECB = modes.ECB()  # noqa: S305
_SHS_PAD_1, _SHS_PAD_2 = bytes(40), b"\xf2" * 40


def _sha1(*parts: bytes) -> bytes:
    return hashlib.sha1(b"".join(parts), usedforsecurity=False).digest()


def _md4(octets: bytes) -> bytes:
    from Crypto.Hash import MD4  # takes longer to import than a log-in: only those pay who log in with a password

    return MD4.new(octets).digest()  # noqa: S303


def nt_password_hash(password: str) -> bytes:
    """MD4 of the password in UTF-16LE, 16 octets (section 8.3)."""
    return _md4(password.encode("utf-16-le", "surrogatepass"))


def hash_nt_password_hash(password_hash: bytes) -> bytes:
    """MD4 of the NT hash (section 8.4)."""
    return _md4(password_hash)


def bare_user_name(name: bytes) -> bytes:
    r"""The name that goes into the hash: without `DOMAIN\\` in front (section 4)."""
    domain, backslash, user = name.partition(b"\\")
    return user if backslash else domain


def challenge_hash(peer_challenge: bytes, authenticator_challenge: bytes, user_name: bytes) -> bytes:
    """Eight octets of both challenges and the bare user name (section 8.2)."""
    return _sha1(peer_challenge, authenticator_challenge, user_name)[:8]


def challenge_response(challenge: bytes, password_hash: bytes) -> bytes:
    """The challenge under three DES keys cut from the NT hash, 24 octets (section 8.5)."""
    padded = password_hash + bytes(5)
    keys = (_with_parity(padded[index : index + 7]) for index in (0, 7, 14))
    return b"".join(_des(key, challenge) for key in keys)


def _des(key: bytes, block: bytes) -> bytes:
    """DES as 3DES with one key three times, which the library still has and which is three times as fast here."""
    return Cipher(TripleDES(key * 3), _ECB).encryptor().update(block)


def _with_parity(key: bytes) -> bytes:
    """Spread 56 bits over eight octets; the parity bits are not looked at by anybody."""
    bits = int.from_bytes(key)
    return bytes((bits >> shift & 0x7F) << 1 for shift in range(49, -1, -7))


def nt_response(authenticator_challenge: bytes, peer_challenge: bytes, user_name: bytes, password_hash: bytes) -> bytes:
    """The peer's proof, 24 octets (section 8.1). `user_name` is the bare one."""
    return challenge_response(challenge_hash(peer_challenge, authenticator_challenge, user_name), password_hash)


def authenticator_response(
    password_hash: bytes,
    response: bytes,
    peer_challenge: bytes,
    authenticator_challenge: bytes,
    user_name: bytes,
) -> bytes:
    """The server's proof, 20 octets; `S=` and hexadecimal on the wire (section 8.7)."""
    digest = _sha1(hash_nt_password_hash(password_hash), response, _SIGNING)
    return _sha1(digest, challenge_hash(peer_challenge, authenticator_challenge, user_name), _PADDING)


def encrypt_password(new_password: str, old_password_hash: bytes, filling: bytes) -> bytes:
    """The new password under the hash of the old one, 516 octets (sections 8.9, 8.10): random `filling` of 512 octets
    whose end gives way to the password, and its length."""
    secret = new_password.encode("utf-16-le", "surrogatepass")
    clear = filling[: 2 * MAX_PASSWORD - len(secret)] + secret + len(secret).to_bytes(4, "little")
    return _rc4(old_password_hash, clear)


def decrypt_password(encrypted: bytes, old_password_hash: bytes) -> str | None:
    """The new password; None when it was not encrypted with this hash."""
    clear = _rc4(old_password_hash, encrypted)
    length = int.from_bytes(clear[-4:], "little")
    if length > 2 * MAX_PASSWORD or length % 2:
        return None
    try:
        return clear[2 * MAX_PASSWORD - length : 2 * MAX_PASSWORD].decode("utf-16-le")
    except UnicodeDecodeError:
        return None


def encrypt_hash(old_password_hash: bytes, new_password_hash: bytes) -> bytes:
    """The old hash under two DES keys cut from the new one, 16 octets (sections 8.12, 8.13)."""
    keys = (_with_parity(new_password_hash[:7]), _with_parity(new_password_hash[7:14]))
    halves = (old_password_hash[:8], old_password_hash[8:])
    return b"".join(_des(key, half) for key, half in zip(keys, halves, strict=True))


def _rc4(key: bytes, octets: bytes) -> bytes:
    from Crypto.Cipher import ARC4  # as MD4: only those pay who need it

    return ARC4.new(key).encrypt(octets)


def master_key(password_hash_hash: bytes, response: bytes) -> bytes:
    """GetMasterKey of RFC 3079 section 3.4, 16 octets."""
    return _sha1(password_hash_hash, response, _MASTER_KEY)[:16]


def start_key(key: bytes, *, client_sends: bool, length: int = 16) -> bytes:
    """GetAsymmetricStartKey of RFC 3079 section 3.4, for one direction."""
    return _sha1(key, _SHS_PAD_1, _CLIENT_SENDS if client_sends else _SERVER_SENDS, _SHS_PAD_2)[:length]


def master_session_key(password_hash: bytes, response: bytes) -> bytes:
    """The MSK of EAP-MSCHAPv2, 64 octets: the server's receive key, its send key, zeros."""
    key = master_key(hash_nt_password_hash(password_hash), response)
    return start_key(key, client_sends=True) + start_key(key, client_sends=False) + bytes(32)
