"""Which data plane: the kernel's where it has ESP and we may use it, else ours.

`auto` takes the kernel only when it has xfrm interfaces too: without them our policies would hold for the whole host,
which somebody should want. `kernel` takes it in any case, and refuses to start without.
"""

from __future__ import annotations

import logging
import sys
from typing import Literal

from ikeway.dataplane.kernel.support import KernelSupport, Missing, probe
from ikeway.errors import HostError

log = logging.getLogger("ikeway.dataplane")

DataPlaneKind = Literal["auto", "userspace", "kernel"]


def kernel_support() -> KernelSupport:
    """What this host's kernel can do for us, whatever it is."""
    if sys.platform != "linux":
        return KernelSupport(False, False, (Missing("the kernel back end is for Linux", "use Linux for it"),))
    return probe()


def choose(wish: DataPlaneKind) -> KernelSupport | None:
    """What the kernel that is to carry ESP has; None when it is carried in userspace. Raises HostError when the kernel
    was asked for and cannot."""
    if wish == "userspace":
        return None
    support = kernel_support()
    if wish == "kernel":
        if not support.available:
            raise HostError(
                f"the kernel cannot carry ESP: {support}",
                remedy="; ".join(each.remedy for each in support.missing if each.fatal)
                + '; or use `data_plane = "userspace"`, which every host can',
            )
        return support
    if support.isolated:
        return support
    log.info("ESP is carried in userspace: %s", support)
    return None
