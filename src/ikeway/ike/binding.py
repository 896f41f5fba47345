"""What a log-in may be bound to: the octets that AUTH of the initiator covers, for EAP methods that sign them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ikeway.auth.octets import signed_octets
from ikeway.eap.questions import IkeBinding
from ikeway.wire.payloads import IdInitiator

if TYPE_CHECKING:
    from ikeway.ike.sa import IkeSa


async def binding_of(sa: IkeSa) -> IkeBinding:
    """The answer to `IkeBindingQuestion`, which never leaves the engine. IDi is that of the first IKE_AUTH request."""
    identity = sa.local_identity if sa.is_initiator else sa.remote_identity
    assert identity is not None
    assert sa.keys is not None
    assert sa.suite is not None
    assert sa.suite.prf is not None
    body = IdInitiator(identity.type, identity.value).body
    octets = signed_octets(sa.init_request, sa.nonce_responder, sa.prf, sa.keys.sk_pi, body)
    return IkeBinding(octets, sa.suite.prf)
