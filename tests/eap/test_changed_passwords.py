"""MS-CHAPv2 where more than one password is said: retries and changes, against FreeRADIUS and wpa_supplicant."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from ikeway.eap.errors import PasswordExpired
from ikeway.eap.mschapv2 import MsChapV2Authenticator, MsChapV2Peer
from ikeway.eap.mschapv2_crypto import nt_password_hash
from ikeway.eap.questions import Granted, MustChange, NewPassword, NtHash
from ikeway.eap.session import EapAuthenticator, EapPeer
from ikeway.questions import CurrentTime
from tests.eap.conversations import Asker
from tests.eap.eapol import asked_eapol_test
from tests.eap.freeradius import running
from tests.eap.live import PASSWORD, USER
from tests.eap.radius_stage import log_in_by_radius, serving

NAME = USER.encode()
NEW = "a new one 1"  # in ASCII: of others wpa_supplicant says a wrong length, and our authenticator refuses them
# Samba's flags of an account, which FreeRADIUS goes by: a usual one (0x10) whose password has expired (0x20000).
EXPIRED = ", SMB-Account-Ctrl := 131088"
# Debian's (3.2.1) goes on from there into a crash of its own, in OpenSSL's RC4: what it would do with our new password
# cannot be seen. wpa_supplicant's packets below are what shows that ours are right, as each end opens the other's.
CHANGES = 'passchange { local_cpw = "%{MS-CHAP-New-NT-Password}" }'


def peer(*passwords: str | None) -> tuple[EapPeer, Asker]:
    left = list(passwords)
    asked = Asker(lambda question: left.pop(0) if left else None)
    return EapPeer(asked, NAME, [lambda: MsChapV2Peer(NAME)]), asked


@pytest.mark.programs("freeradius")
def test_freeradius_says_that_the_password_has_expired(tmp_path: Path) -> None:
    with running(tmp_path, method="mschapv2", mschap=CHANGES, checks=EXPIRED) as server:
        session, _ = peer(PASSWORD, None)
        with pytest.raises(PasswordExpired):
            log_in_by_radius(server.port, session, NAME)


@pytest.mark.programs("freeradius")
def test_freeradius_lets_us_try_again(tmp_path: Path) -> None:
    with running(tmp_path, method="mschapv2", mschap="allow_retry = yes") as server:
        session, asked = peer("wrong", PASSWORD)
        keys = log_in_by_radius(server.port, session, NAME)
        assert [(question.attempt, question.prompt) for question in asked.questions] == [
            (1, ""),
            (2, "Authentication rejected"),
        ]  # type: ignore[attr-defined]
        assert session.succeeded and session.msk is not None and keys == session.msk[:32]


def authenticator(stored: Any, kept: list[NewPassword], retries: int = 0) -> EapAuthenticator:
    def answer(question: Any) -> Any:
        if isinstance(question, CurrentTime):
            return datetime.now(UTC)
        if isinstance(question, NewPassword):
            kept.append(question)
            return Granted()
        return stored

    return EapAuthenticator(Asker(answer), [lambda: MsChapV2Authenticator(retries=retries)])


@pytest.mark.programs("eapoltest")
@pytest.mark.parametrize("old", [PASSWORD, NtHash(nt_password_hash(PASSWORD))], ids=["password", "hash"])
def test_we_take_wpa_supplicants_new_password(tmp_path: Path, old: Any) -> None:
    kept: list[NewPassword] = []
    with serving(lambda: authenticator(MustChange(old), kept)) as server:
        options = ("eap=MSCHAPV2", f'identity="{USER}"', f'password="{PASSWORD}"')
        with asked_eapol_test(server.port, tmp_path, {"NEW_PASSWORD": NEW}, *options) as (asked, log):
            assert "NEW_PASSWORD" in asked
            assert "EAP-MSCHAPV2: Password changed successfully" in log
        assert any(session.succeeded for session in server.finished), [each.reason for each in server.made]
        assert {(question.identity, question.password) for question in kept} == {(NAME, NEW)}
