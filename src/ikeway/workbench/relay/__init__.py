"""Between a real client and a real gateway: two IKE SAs, and every payload in plaintext on the way."""

from ikeway.workbench.relay.eap import RelayError
from ikeway.workbench.relay.relay import Relay, Upstream

__all__ = ["Relay", "RelayError", "Upstream"]
