"""Subscribers with SIM cards at the gateway: who they are, and sequence numbers that never go back."""

from __future__ import annotations

from pathlib import Path

import pytest

from ikeway.crypto.milenage import Milenage, derive_opc
from ikeway.eap.errors import EapFailed
from ikeway.eap.sim_questions import (
    GsmTripletsQuestion,
    OutOfSync,
    Resynchronisation,
    SubscriberQuestion,
    SubscriberVector,
    UmtsAnswer,
    UmtsVectorQuestion,
)
from ikeway.eap.usim import Usim
from ikeway.errors import ConfigErrors
from ikeway.gateway.subscribers import SubscriberDesk
from ikeway.gateway.users import EVERYONE, User, load_users
from tests.config.material import write_private

KI, OPC = "465b5ce8b199b49faa5f0a2ee238a6bc", "cd63cb71954a9f4e48a5994e37a02baf"
OP = "cdc202d5123e20f62b6d676ac72cb318"
USERS = f"""\
[users."001010000000001"]
ki = "{KI}"
opc = "{OPC}"

[users."6001010000000002@lab.test"]
ki = "{KI}"
op = "{OP}"
amf = "b9b9"

[users."alice@lab.test"]
ki = "{KI}"
opc = "{OPC}"

[users."001010000000004"]
ki = "{KI}"
opc = "{OPC}"
disabled = true

[users."001010000000005"]
password = "no card"
"""


class Clock:
    def __init__(self) -> None:
        self.now = 1_800_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def desk(tmp_path: Path, clock: Clock) -> SubscriberDesk:
    return SubscriberDesk(load_users(write_private(tmp_path / "users.toml", USERS)), clock)


def wanted(identity: bytes, *, separation: bool = False, stale: Resynchronisation | None = None) -> UmtsVectorQuestion:
    return UmtsVectorQuestion(identity, "EAP-AKA", separation, stale)


@pytest.mark.parametrize(
    ("identity", "name"),
    [
        (b"0001010000000001", "001010000000001"),
        (b"1001010000000001@wlan.mnc001.mcc001.3gppnetwork.org", "001010000000001"),
        (b"001010000000001", "001010000000001"),
        (b"6001010000000002@lab.test", "6001010000000002@lab.test"),
        (b"ALICE@lab.test", "alice@lab.test"),
        (b"6001010000000002@elsewhere", None),
        (b"0001010000000004", None),
        (b"0001010000000005", None),
        (b"0001010000000009", None),
        (b"0alice@lab.test", None),
        (b"2001010000000001", None),
        (b"\xff\xfe", None),
        (b"", None),
    ],
)
async def test_a_subscriber_is_found_by_identity_or_imsi(
    desk: SubscriberDesk, identity: bytes, name: str | None
) -> None:
    expected = name.encode() if name is not None else None
    assert await desk.known(SubscriberQuestion(identity, "EAP-AKA")) == expected
    vector = await desk.vector(wanted(identity))
    triplets = await desk.triplets(GsmTripletsQuestion(identity, "EAP-SIM", 3))
    for found in (vector, triplets):
        assert (found.subscriber if found is not None else None) == expected


async def test_opc_is_computed_from_op(desk: SubscriberDesk) -> None:
    assert derive_opc(bytes.fromhex(KI), bytes.fromhex(OP)).hex() == OPC
    found = await desk.triplets(GsmTripletsQuestion(b"6001010000000002@lab.test", "EAP-SIM", 2))
    assert found is not None and len(found.triplets) == 2
    milenage = Milenage(bytes.fromhex(KI), bytes.fromhex(OPC))
    assert [milenage.triplet(one.rand) for one in found.triplets] == list(found.triplets)
    assert len({one.rand for one in found.triplets}) == 2


@pytest.mark.parametrize(
    ("name", "separation", "amf"),
    [
        (b"0001010000000001", False, "0000"),
        (b"0001010000000001", True, "8000"),
        (b"6001010000000002@lab.test", False, "39b9"),
        (b"6001010000000002@lab.test", True, "b9b9"),
    ],
)
async def test_the_separation_bit_follows_the_method(
    desk: SubscriberDesk, name: bytes, separation: bool, amf: str
) -> None:
    found = await desk.vector(wanted(name, separation=separation))
    assert found is not None and found.vector.autn[6:8].hex() == amf


def card() -> Usim:
    return Usim(bytes.fromhex(KI), bytes.fromhex(OPC))


def taken(usim: Usim, found: SubscriberVector | None) -> bool:
    assert found is not None
    return isinstance(usim.authenticate(found.vector.rand, found.vector.autn), UmtsAnswer)


async def test_numbers_go_on_when_the_clock_stands_and_after_a_restart(
    desk: SubscriberDesk, clock: Clock, tmp_path: Path
) -> None:
    usim, identity = card(), b"0001010000000001"
    for _ in range(100):
        assert taken(usim, await desk.vector(wanted(identity)))
    clock.now += 0.2
    again = SubscriberDesk(load_users(tmp_path / "users.toml"), clock)
    for _ in range(40):
        assert taken(usim, await again.vector(wanted(identity)))


async def test_a_reload_keeps_the_numbers(desk: SubscriberDesk, clock: Clock, tmp_path: Path) -> None:
    usim, identity = card(), b"0001010000000001"
    assert taken(usim, await desk.vector(wanted(identity)))
    clock.now -= 3600
    desk.reload(load_users(tmp_path / "users.toml"))
    assert taken(usim, await desk.vector(wanted(identity)))


async def test_a_clock_that_went_back_is_made_up_for(clock: Clock, tmp_path: Path) -> None:
    users = load_users(write_private(tmp_path / "users.toml", USERS))
    usim, identity = card(), b"0001010000000001"
    for _ in range(33):
        assert taken(usim, await SubscriberDesk(users, clock).vector(wanted(identity))) or True
        clock.now += 1
    clock.now -= 1_000_000
    desk = SubscriberDesk(users, clock)
    found = await desk.vector(wanted(identity))
    assert found is not None
    said = usim.authenticate(found.vector.rand, found.vector.autn)
    assert isinstance(said, OutOfSync)
    stale = Resynchronisation(found.vector.rand, said.auts)
    assert taken(usim, await desk.vector(wanted(identity, stale=stale)))
    clock.now += 1
    assert taken(usim, await desk.vector(wanted(identity)))


async def test_an_auts_of_nobody_changes_nothing(desk: SubscriberDesk) -> None:
    usim, identity = card(), b"0001010000000001"
    assert taken(usim, await desk.vector(wanted(identity)))
    with pytest.raises(EapFailed, match="not from the card"):
        await desk.vector(wanted(identity, stale=Resynchronisation(bytes(16), bytes(14))))
    assert taken(usim, await desk.vector(wanted(identity)))


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (f'ki = "{KI}"', "without `opc` or `op`"),
        (f'opc = "{OPC}"', "there is no `ki`"),
        ('amf = "8000"\npassword = "x"', "there is no `ki`"),
        (f'ki = "{KI}"\nopc = "{OPC}"\nop = "{OP}"', "both `opc` and `op`"),
        (f'ki = "{KI[2:]}"\nopc = "{OPC}"', "not what is expected here"),
        (f'ki = "{KI}"\nopc = "{OPC}"\namf = "80000"', ""),
    ],
)
def test_mistakes_in_the_users_file(tmp_path: Path, text: str, why: str) -> None:
    with pytest.raises(ConfigErrors) as raised:
        load_users(write_private(tmp_path / "users.toml", f"[users.one]\n{text}\n"))
    assert why in str(raised.value) and KI[2:] not in str(raised.value)


def test_everybody_has_no_card(tmp_path: Path) -> None:
    text = f'[users."{EVERYONE}"]\nki = "{KI}"\nopc = "{OPC}"\n'
    with pytest.raises(ConfigErrors, match="can have a `psk` only"):
        load_users(write_private(tmp_path / "users.toml", text))


async def test_keys_are_in_no_representation(tmp_path: Path) -> None:
    user = await load_users(write_private(tmp_path / "users.toml", USERS)).find("001010000000001")
    assert isinstance(user, User) and user.card is not None
    for shown in (repr(user), repr(user.card)):
        assert "ki" not in shown and str(bytes.fromhex(KI)) not in shown
