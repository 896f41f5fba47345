"""Exchanges and their collisions, message by message, against our engine (shared/vectors/conformance)."""

from __future__ import annotations

from typing import Any

import pytest

from ikeway.ike.proposals import parse_proposals
from ikeway.ike.selectors import selector
from ikeway.ike.settings import ChildSettings, ResponderSettings
from ikeway.wire.registry import ProtocolId
from tests.conformance.play import Player
from tests.conformance.scenarios import Variant, load, variants
from tests.conformance.stage import Stage
from tests.ike.pair import Pair, child, connection, connection_b, mirrored

SCENARIOS = {scenario.name: scenario for scenario in load()}

MULTIPLE_KEY_EXCHANGES = "RFC 9370 (IKE_FOLLOWUP_KE) is not there yet"
MESSAGE_ID_SYNC = "RFC 6311 (message ids of a cluster) is not there yet"
NOT_YET = {
    "test_ike_rekey.test_regular_multi_ke": MULTIPLE_KEY_EXCHANGES,
    "test_ike_rekey.test_regular_ke_invalid_multi_ke": MULTIPLE_KEY_EXCHANGES,
    "test_ike_rekey.test_collision_multi_ke": MULTIPLE_KEY_EXCHANGES,
    "test_ike_rekey.test_collision_mixed": MULTIPLE_KEY_EXCHANGES,
    "test_ike_rekey.test_collision_delayed_response_multi_ke": MULTIPLE_KEY_EXCHANGES,
    "test_ike_rekey.test_collision_delayed_request_multi_ke": MULTIPLE_KEY_EXCHANGES,
    "test_ike_rekey.test_collision_delete_multi_ke": MULTIPLE_KEY_EXCHANGES,
    "test_child_rekey.test_regular_multi_ke": MULTIPLE_KEY_EXCHANGES,
    "test_child_rekey.test_regular_ke_invalid_multi_ke": MULTIPLE_KEY_EXCHANGES,
    "test_child_rekey.test_collision_multi_ke": MULTIPLE_KEY_EXCHANGES,
    "test_child_rekey.test_collision_mixed": MULTIPLE_KEY_EXCHANGES,
    "test_child_rekey.test_collision_delayed_response_multi_ke": MULTIPLE_KEY_EXCHANGES,
    "test_child_rekey.test_collision_delayed_request_multi_ke": MULTIPLE_KEY_EXCHANGES,
    "test_child_rekey.test_collision_delete_multi_ke": MULTIPLE_KEY_EXCHANGES,
    "test_child_create.test_multi_ke": MULTIPLE_KEY_EXCHANGES,
    "test_ike_mid_sync.test_responder": MESSAGE_ID_SYNC,
    "test_ike_mid_sync.test_retransmit": MESSAGE_ID_SYNC,
    "test_ike_mid_sync.test_replay": MESSAGE_ID_SYNC,
    "test_ike_mid_sync.test_disabled": MESSAGE_ID_SYNC,
    "test_ike_mid_sync.test_sender_too_low": MESSAGE_ID_SYNC,
    "test_ike_mid_sync.test_recv_update": MESSAGE_ID_SYNC,
    "test_ike_mid_sync.test_active": MESSAGE_ID_SYNC,
}
PLAYED = [variant for name, scenario in SCENARIOS.items() if name not in NOT_YET for variant in variants(scenario)]

# Octets with which the nonces before those of the table begin: of tries that are refused (INVALID_KE_PAYLOAD). As the
# responder of an IKE SA we refuse before we make a nonce.
NONCES_BEFORE = {
    "test_ike_rekey.test_collision_ke_invalid": (0xFF,) * 2,
    "test_ike_rekey.test_collision_ke_invalid_delayed_retry": (0xFF,) * 2,
    "test_child_rekey.test_collision_ke_invalid": (0xFF,) * 4,
    "test_child_rekey.test_collision_ke_invalid_delayed_retry": (0xFF,) * 4,
    "test_child_rekey.test_collision_responder_incorrect_delete": (0xFF, 0x00, 0xFF, 0xFF),  # no table: b loses
}
OTHER_CHILD = child("other", remote_selectors=(selector("10.3.0.0/16"),))


def identifier(variant: Variant) -> str:
    return f"{variant.scenario.name}-{variant.index}"


def stage_for(variant: Variant) -> tuple[Stage, ChildSettings | None]:
    """The peers as the scenario wants them, and what `initiate` makes."""
    name = variant.scenario.name
    proposals = [parse_proposals(text, ProtocolId[kind.upper()]) for kind, text in variant.scenario.proposals]
    kind = variant.scenario.proposals[0][0] if proposals else ""
    if name.startswith("test_childless."):
        return childless_stage(variant, proposals[0] if proposals else None)
    settings = [child(), mirrored(child())]
    if kind == "esp":
        settings = [child(proposals=proposals[0]), mirrored(child(proposals=proposals[1]))]
    ike: dict[str, Any] = {"ike_proposals": proposals[0]} if kind == "ike" else {}
    stage = Stage(
        Pair(connection(children=(settings[0],), **ike), connection_b(children=(settings[1],), **ike)),
        swapped=variant.swapped,
    )
    stage.set_up()
    if kind == "ike":  # they agree at first, and differ when they rekey
        stage.replace_proposals(dict(zip(stage.peers, proposals, strict=True)))
    stage.script_nonces((*NONCES_BEFORE.get(name, ()), *variant.nonces))
    return stage, OTHER_CHILD if name == "test_child_create.test_collision_ike_rekey" else None


def childless_stage(variant: Variant, proposals: tuple | None) -> tuple[Stage, ChildSettings]:
    """Peers that have not met. Who demands childless IKE SAs: the initiator, in the second variant both."""
    name = variant.scenario.name.removeprefix("test_childless.")
    settings = child(**({"proposals": proposals} if proposals else {}))
    both = variant.index == 1
    stage = Stage(
        Pair(
            connection(
                children=() if name == "test_regular_manual" else (settings,), childless=name != "test_failure_resp"
            ),
            connection_b(children=(mirrored(settings),), childless=both or name == "test_failure_resp"),
            responder=ResponderSettings(
                ike_proposals=connection().ike_proposals, childless=name != "test_failure_init"
            ),
        )
    )
    return stage, settings


@pytest.mark.parametrize("variant", PLAYED, ids=identifier)
def test_scenario(variant: Variant) -> None:
    stage, settings = stage_for(variant)
    Player(stage, variant.row, settings).play(variant.steps())


def test_nothing_is_left_out_but_what_is_not_there_yet() -> None:
    absent = {name for name in SCENARIOS if "multi_ke" in name or "mixed" in name or "test_ike_mid_sync" in name}
    assert set(NOT_YET) == absent
    assert {variant.scenario.name for variant in PLAYED} | set(NOT_YET) == set(SCENARIOS)
    assert len(SCENARIOS) == 69
    waiting = sum(SCENARIOS[name].variants for name in NOT_YET)
    assert (len(PLAYED), waiting) == (160 - waiting, waiting)
