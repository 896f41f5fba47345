"""Log-ins by keys that stay in a token (PKCS#11, softhsm2), as client and as gateway, against strongSwan."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import load_der_private_key

from tests.config.tokens import PIN, SoftToken
from tests.interop.agreement import CLIENT_NAME, GATEWAY_NAME, Agreement, agreement
from tests.interop.lab import Pair, Tunnel
from tests.interop.pki import Credential, issue

pytestmark = [pytest.mark.peer, pytest.mark.programs("softhsm2")]

Make = Callable[[Pair, Agreement], Tunnel]
TO_CHARON, TO_OURS = Pair("ikeway", "charon"), Pair("charon", "ikeway")


def token_with(credential: Credential, folder: Path) -> SoftToken:
    token = SoftToken(folder)
    token.put_key(load_der_private_key(credential.key_der, None), "vpn", "01")
    token.put_certificate(x509.load_der_x509_certificate(credential.der), "vpn", "01")
    return token


def in_token(token: SoftToken) -> dict[str, object]:
    return {"certificate": None, "key": None, "pkcs11": token.uri("vpn"), "pin": PIN}


@pytest.mark.parametrize("kind", ["rsa", "ecdsa", "ed25519"])
@pytest.mark.parametrize("pair", [TO_CHARON, TO_OURS], ids=str)
def test_log_in(tunnel: Make, tmp_path: Path, pair: Pair, kind: str) -> None:
    is_client = pair == TO_CHARON
    credential = issue(kind, CLIENT_NAME if is_client else GATEWAY_NAME, server=not is_client)
    token = token_with(credential, tmp_path)
    environment = {"SOFTHSM2_CONF": str(token.configuration)}
    own = {"credential": credential, "environment": environment}
    own["ours"] = {"login" if is_client else "gateway": in_token(token)}
    made = tunnel(pair, agreement(kind, **{"client" if is_client else "gateway": own}))
    made.client.connect()
    made.check_ping()
    made.client.rekey("ike")
    made.check_ping()
    made.client.close()


def test_a_token_and_then_a_password(tunnel: Make, tmp_path: Path) -> None:
    credential = issue("ecdsa", CLIENT_NAME)
    token = token_with(credential, tmp_path)
    client = {
        "credential": credential,
        "environment": {"SOFTHSM2_CONF": str(token.configuration)},
        "ours": {"login": in_token(token)},
        "then": ("eap-mschapv2",),
    }
    made = tunnel(TO_CHARON, agreement("ecdsa", client=client))
    made.client.connect()
    made.check_ping()
    made.client.close()
