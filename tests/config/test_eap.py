"""The table of EAP methods, and what profiles and gateways may say of them."""

from __future__ import annotations

from ikeway.client.profile_model import LoginSection
from ikeway.config.eap import AUTHENTICATORS, EAP_LOGINS, PEERS, AuthenticatorInputs, PeerInputs
from ikeway.gateway.config_model import ConnectionPart


def test_every_method_that_can_be_named_is_there() -> None:
    assert set(PEERS) <= set(EAP_LOGINS)
    assert set(AUTHENTICATORS) <= set(EAP_LOGINS)
    assert set(EAP_LOGINS) == set(PEERS) | set(AUTHENTICATORS)


def test_the_keys_of_a_method_are_keys_of_the_configuration() -> None:
    for peer in PEERS.values():
        assert peer.uses <= set(LoginSection.model_fields)
        assert {key for group in peer.needs for key in group} <= peer.uses
    for authenticator in AUTHENTICATORS.values():
        assert authenticator.uses <= set(ConnectionPart.model_fields)
        assert {key for group in authenticator.needs for key in group} <= authenticator.uses


def test_both_sides_of_a_name_are_one_method() -> None:
    peer = PEERS["eap-mschapv2"].make(PeerInputs(username=b"alice"))()
    authenticator = AUTHENTICATORS["eap-mschapv2"].make(AuthenticatorInputs(server_name=b"vpn"))()
    assert peer.type == authenticator.type
    assert peer.name == authenticator.name
