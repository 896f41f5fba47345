"""From a key exchange to the keys of an IKE SA (RFC 7296 sections 2.14 and 2.18)."""

from __future__ import annotations

from ikeway.crypto import IkeKeys, derive_ike_keys, derive_rekeyed_skeyseed, derive_skeyseed, new_prf
from ikeway.errors import NegotiationFailed, Side
from ikeway.ike.proposals import Suite
from ikeway.ike.protection import key_octets
from ikeway.ike.sa import IkeSa
from ikeway.wire.registry import NotifyType


def require_single_exchange(suite: Suite) -> None:
    """Refuse a suite whose strength rests on key exchanges that nobody carries out (IKE_INTERMEDIATE, RFC 9370)."""
    if suite.additional_key_exchanges:
        raise NegotiationFailed(
            f"additional key exchanges are not carried out by this version, and {suite} asks for them",
            notify=NotifyType.NO_PROPOSAL_CHOSEN,
            side=Side.LOCAL,
            remedy="leave ke1_... to ke7_... out of the proposals",
        )


def protect_initial(sa: IkeSa, suite: Suite, shared_secret: bytes) -> None:
    """Keys after IKE_SA_INIT; the SA's nonces and SPIs are set."""
    require_single_exchange(suite)
    assert suite.prf is not None
    skeyseed = derive_skeyseed(new_prf(suite.prf), sa.nonce_initiator, sa.nonce_responder, shared_secret)
    sa.protect(suite, _expand(sa, suite, skeyseed))


def protect_rekeyed(sa: IkeSa, old: IkeSa, suite: Suite, shared_secret: bytes) -> None:
    """Keys of the IKE SA that replaces `old`; SKEYSEED comes from the old SA's PRF and SK_d (section 2.18)."""
    require_single_exchange(suite)
    assert old.keys is not None
    skeyseed = derive_rekeyed_skeyseed(old.prf, old.keys.sk_d, shared_secret, sa.nonce_initiator, sa.nonce_responder)
    sa.protect(suite, _expand(sa, suite, skeyseed))


def _expand(sa: IkeSa, suite: Suite, skeyseed: bytes) -> IkeKeys:
    assert suite.prf is not None
    encryption, integrity = key_octets(suite)
    return derive_ike_keys(
        new_prf(suite.prf),
        skeyseed,
        sa.nonce_initiator,
        sa.nonce_responder,
        sa.channel.initiator_spi,
        sa.channel.responder_spi,
        encryption,
        integrity,
    )
