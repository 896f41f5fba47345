"""Whole log-ins of AnyConnect and FortiGate, of which one message is changed on its way, under the right keys: by either
side, at any step. Both sides end with typed errors or agree all the same, soon, and keep nothing of what has failed."""

from __future__ import annotations

import time
from dataclasses import replace
from random import Random

import pytest

from ikeway.dialects.anyconnect.options import ClientOptions, GatewayOptions
from ikeway.errors import IkewayError
from ikeway.ike import events
from ikeway.ike.interception import combine
from ikeway.wire.message import Message
from ikeway.wire.payloads import (
    Configuration,
    ConfigurationAttribute,
    Eap,
    Notify,
    Payload,
    SecurityAssociation,
    TrafficSelectorsInitiator,
    TrafficSelectorsResponder,
    VendorId,
)
from ikeway.wire.registry import ConfigurationAttributeType, ConfigurationType, ExchangeType, NotifyType
from tests.dialects.anyconnect import pair, pki
from tests.dialects.test_fortigate_eap import pair as fortigate
from tests.ike.pair import Pair

CONVERSATIONS = 80  # of each seed
SECONDS = 2.0  # of one of them, which takes some hundredths
WORDS = [
    *(
        b"hello",
        b"init",
        b"auth-request",
        b"auth-reply",
        b"complete",
        b"ack",
        b"success",
        b"main",
        b"username",
        b"form",
    ),
    *(b"input", b"opaque", b"group_list", b"UTF-8", b"config-auth", b"host-scan", b"client-cert-request", b"password"),
]
STRANGE = [*WORDS, b"", b"\xff\xfe", b"\0", b"&b;", b"<!DOCTYPE a [<!ENTITY b 'c'>]>", b"<error>no</error>", b"UTF-16"]
NOTIFIES = (7, 14, 24, 36, 38, 40963, 45900, 61520, 61696, 16384)
_OF_CHILD = SecurityAssociation | TrafficSelectorsInitiator | TrafficSelectorsResponder
ATTRIBUTES = (1, 28672, 28674, 28675, 28676, 28683, 21516)


def changed(random: Random, octets: bytes) -> bytes:
    """Something like it."""
    at, length = random.randrange(len(octets) + 1), random.randrange(1, 40)
    match random.randrange(8):
        case 0:
            return octets[:at]
        case 1:
            return octets[:at] + random.randbytes(length) + octets[at:]
        case 2:
            return octets[:at] + octets[at + length :]
        case 3:
            return random.randbytes(5 * length)
        case 4:
            return octets + octets[4:]
        case 5:
            return octets + b"<a>" * random.randrange(9000)
        case 6:
            known = [word for word in WORDS if word in octets]
            return octets.replace(random.choice(known), random.choice(STRANGE)) if known else octets[::-1]
    return octets[:at] + random.randbytes(min(length, len(octets) - at)) + octets[at + length :]


def repaired(octets: bytes) -> bytes:
    """With lengths that are right, of the packet and of the only TLV: what is behind them gets looked at."""
    octets = octets[:2] + len(octets).to_bytes(2) + octets[4:] if 4 <= len(octets) < 65536 else octets
    is_xml = len(octets) > 16 and octets[4] == 254 and octets[12:14] == b"\0\0"
    return octets[:14] + (len(octets) - 16).to_bytes(2) + octets[16:] if is_xml else octets


class Changing:
    """Changes one message of the many that one side sends."""

    def __init__(self, random: Random) -> None:
        self._random = random
        self._left = random.randrange(9)
        self._before: list[Message] = []

    def sending(self, sa: object, message: Message) -> Message:
        """Change it when its turn has come."""
        if message.exchange_type not in (ExchangeType.IKE_SA_INIT, ExchangeType.IKE_AUTH):
            return message
        self._before.append(message)
        self._left -= 1
        return replace(message, payloads=tuple(self._changed(list(message.payloads)))) if self._left == -1 else message

    def received(self, sa: object, message: Message) -> Message:
        """Nothing."""
        return message

    def _changed(self, payloads: list[Payload]) -> list[Payload]:
        random = self._random
        at = random.randrange(len(payloads))
        eap = next((i for i, each in enumerate(payloads) if isinstance(each, Eap)), None)
        kind = random.randrange(8)
        if eap is not None and kind < 4:
            octets = changed(random, payloads[eap].packet)  # type: ignore[attr-defined]
            payloads[eap] = Eap((repaired(octets) if kind else octets)[:65000])
        elif kind == 4 and not isinstance(payloads[at], _OF_CHILD):
            del payloads[at]  # without SA and TS an IKE SA without a child SA would be right
        elif kind == 5:
            payloads.insert(at, payloads[random.randrange(len(payloads))])
        elif kind == 6:
            return list(random.choice(self._before).payloads)
        else:
            payloads.insert(at, self._another())
        return payloads

    def _another(self) -> Payload:
        random = self._random
        attributes = tuple(
            ConfigurationAttribute(
                ConfigurationAttributeType(random.choice(ATTRIBUTES)), random.randbytes(random.choice((0, 4, 14, 300)))
            )
            for _ in range(random.randrange(4))
        )
        return random.choice(
            (
                Notify(NotifyType(random.choice(NOTIFIES)), random.randbytes(random.randrange(20))),
                VendorId(random.randbytes(20)),
                Eap(random.randbytes(random.randrange(4, 60))),
                Configuration(ConfigurationType(random.randrange(1, 5)), attributes),
            )
        )


def conversation(random: Random) -> Pair:
    """One of the log-ins that there are."""
    room, seed = random.choice((576, 1280, 65000)), random.randrange(1 << 30)
    match random.randrange(5):
        case 0:
            split = {"banner": "Hi", "split_dns": ("a.example",), "split_include": ("10.0.0.0/8",)}
            ours, theirs = ClientOptions(group="Staff"), GatewayOptions(groups=("Staff", "X"), **split)
            return pair(ours, theirs, seed=seed, fragment_size=room, standard_fragments=random.random() < 0.5)
        case 1:
            theirs = GatewayOptions(password=False, certificate=True, host_scan=True)
            ours = ClientOptions(host_scan="echo")
            return pair(ours, theirs, credential=pki().alice, seed=seed, fragment_size=room)
        case 2:
            return pair(
                gateway=GatewayOptions(certificate=True, second_password=True), credential=pki().alice, seed=seed
            )
        case 3:
            return pair(username="carol", password="second", seed=seed)
    return fortigate()


@pytest.mark.parametrize("seed", range(4))
def test_one_message_is_another(seed: int) -> None:
    outcomes = set()
    for number in range(CONVERSATIONS):
        random = Random(1000 * seed + number)
        made = conversation(random)
        host = random.choice((made.a, made.b))
        host.connection = replace(host.connection, interception=combine(host.connection.interception, Changing(random)))
        begun = time.monotonic()
        made.connect()
        made.run(120)
        assert time.monotonic() - begun < SECONDS, number
        errors = made.a.errors + made.b.errors
        assert all(isinstance(each, IkewayError) and each.reason for each in errors), number
        is_up = bool(made.a.engine.sas)
        outcomes.add(is_up)
        assert bool(made.b.engine.sas) is is_up, (number, errors)
        if is_up:
            assert not errors, number
        else:
            assert errors or made.b.happened(events.Refused), number
            assert not (made.a.inbound or made.b.inbound or made.a.outbound or made.b.outbound), number
            assert not (made.a.engine._shared.table or made.b.engine._shared.table), number
    assert outcomes == {True, False}
