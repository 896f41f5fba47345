"""The exchanges that `IkeSa`'s commands begin, in one name."""

from ikeway.ike.exchanges import create_child, delete, informational, init, mobike, rekey_child, rekey_ike

__all__ = ["create_child", "delete", "informational", "init", "mobike", "rekey_child", "rekey_ike"]
