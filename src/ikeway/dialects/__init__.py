"""What vendors change: one file, or folder, a vendor. The core knows none of them; `interface` says what they may do."""

from ikeway.dialects.interface import Dialect, for_client, for_gateway, for_responder

__all__ = ["Dialect", "for_client", "for_gateway", "for_responder"]
