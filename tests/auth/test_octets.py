"""What AUTH covers, written out once more by hand."""

import hashlib
import hmac

from hypothesis import given
from hypothesis import strategies as st

from ikeway.auth.octets import eap_mac, psk_mac, signed_octets
from ikeway.crypto import new_prf
from ikeway.wire.registry import PseudorandomFunction


def sha256(key: bytes, octets: bytes) -> bytes:
    return hmac.new(key, octets, hashlib.sha256).digest()


@given(st.binary(max_size=50), st.binary(max_size=50), st.binary(max_size=64), st.binary(max_size=50))
def test_by_hand(message: bytes, nonce: bytes, key: bytes, body: bytes) -> None:
    prf = new_prf(PseudorandomFunction.PRF_HMAC_SHA2_256)
    signed = signed_octets(message, nonce, prf, key, body)
    assert signed == message + nonce + sha256(key, body)
    assert signed_octets(message, nonce, prf, key, body, b"IntAuth") == signed + b"IntAuth"
    assert psk_mac(prf, key, signed) == sha256(sha256(key, b"Key Pad for IKEv2"), signed)
    assert eap_mac(prf, key, signed) == psk_mac(prf, key, signed)
