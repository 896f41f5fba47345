"""Ikeway: an IKEv2/IPsec VPN suite.

`connect` and `Gateway` carry traffic; `ikeway.ike.Engine` is the protocol alone, without sockets.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ikeway.client.connect import connect
    from ikeway.gateway.server import Gateway

__version__ = "0.1.0"
__all__ = ["Gateway", "__version__", "connect"]

_HOMES = {"connect": "ikeway.client.connect", "Gateway": "ikeway.gateway.server"}


def __getattr__(name: str) -> Any:  # noqa: ANN401 - whatever the name stands for
    """Import late: the data plane's worker and the command line must not pay for what they do not use."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(_HOMES[name]), name)
