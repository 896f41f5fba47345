"""Can this kernel carry ESP for us, and may we ask it to? Told with reasons, as `ikeway doctor` shows them."""

from __future__ import annotations

import errno
import secrets
from dataclasses import dataclass

from ikeway.host.linux import xfrm
from ikeway.host.linux.links import add_xfrm_link, delete_link
from ikeway.host.linux.netlink import Netlink
from ikeway.host.linux.xfrm_structures import FLAG_AF_UNSPEC, MODE_TUNNEL, Algorithm, State, StateId

# Documentation addresses (RFC 5737, RFC 3849): no packet ever comes from there.
_NOWHERE = {4: ("192.0.2.1", "192.0.2.2"), 6: ("2001:db8::1", "2001:db8::2")}
_PROBE_KEY = bytes(16)
_NAME = "ikeway-probe"
_OPTIONS = {4: "CONFIG_INET_ESP", 6: "CONFIG_INET6_ESP"}
_MODULES = {4: "esp4", 6: "esp6"}


@dataclass(frozen=True, slots=True)
class Missing:
    """One thing that the kernel, or this process, lacks, and how to get it. `fatal`: nothing goes without it."""

    what: str
    remedy: str
    fatal: bool = True

    def __str__(self) -> str:
        return self.what


@dataclass(frozen=True, slots=True)
class KernelSupport:
    """What `probe` found. `available`: the kernel can carry ESP for us at all. `interface`: and has xfrm interfaces, so
    that our policies touch nobody else's traffic; without, they hold for the whole host."""

    available: bool
    interface: bool
    missing: tuple[Missing, ...] = ()

    @property
    def isolated(self) -> bool:
        """True when nothing is missing that matters: then `data_plane = "auto"` takes the kernel."""
        return self.available and self.interface

    def __str__(self) -> str:
        """In words."""
        if not self.missing:
            return "the kernel carries ESP"
        return "; ".join(map(str, self.missing))


def probe() -> KernelSupport:
    """Try it: make a state that nothing will ever match, and remove it. Takes some milliseconds, the first time longer,
    as the kernel loads what it needs."""
    try:
        nl = xfrm.open_xfrm()
    except OSError as error:
        return KernelSupport(False, False, (_no_ipsec(error),))
    with nl:
        missing = [found for version in (4, 6) if (found := _try_state(nl, version)) is not None]
    if _FORBIDDEN in missing:
        return KernelSupport(False, False, (_FORBIDDEN,))
    without_interface = _try_interface()
    if without_interface is not None:
        missing.append(without_interface)
    available = not any(each.fatal for each in missing)
    return KernelSupport(available, without_interface is None, tuple(dict.fromkeys(missing)))


_FORBIDDEN = Missing(
    "this process may not change the kernel's IPsec (CAP_NET_ADMIN)",
    "run it as root; without root, ESP in userspace works as well",
)


def _no_ipsec(error: OSError) -> Missing:
    if error.errno == errno.EPROTONOSUPPORT:
        return Missing(
            "the kernel has no IPsec (XFRM)",
            "load it (modprobe xfrm_user), or take a kernel with CONFIG_XFRM_USER; containers have what their host has",
        )
    return Missing(f"the kernel's IPsec cannot be reached: {error.strerror}", "see whether a sandbox forbids it")


def _try_state(nl: Netlink, version: int) -> Missing | None:
    source, destination = _NOWHERE[version]
    spi = 0x100 + secrets.randbelow(0xFFFFFFFF - 0x100)
    gcm = Algorithm(name="rfc4106(gcm(aes))", key=_PROBE_KEY + bytes(4), icv_bits=128, is_aead=True)
    wanted = State(
        source=source,
        destination=destination,
        spi=spi,
        reqid=0,
        mode=MODE_TUNNEL,
        flags=FLAG_AF_UNSPEC,
        algorithms=(gcm,),
    )
    try:
        xfrm.add_state(nl, wanted)
    except OSError as error:
        return _explain_state(error, version)
    xfrm.delete_state(nl, StateId(destination=destination, spi=spi))
    return None


def _explain_state(error: OSError, version: int) -> Missing:
    if error.errno in (errno.EPERM, errno.EACCES):
        return _FORBIDDEN
    if error.errno == errno.ENOSYS:
        return Missing(
            "the kernel has no AES-GCM for ESP",
            "load it (modprobe gcm; modprobe seqiv), or take a kernel with CONFIG_CRYPTO_GCM",
        )
    if error.errno in (errno.EPROTONOSUPPORT, errno.EAFNOSUPPORT, errno.EINVAL):
        return Missing(
            f"the kernel has no ESP over IPv{version}: {xfrm.explain(error)}",
            f"load it (modprobe {_MODULES[version]}), or take a kernel with {_OPTIONS[version]}",
            fatal=version == 4,  # without IPv6, nobody here has it anyway
        )
    return Missing(f"the kernel refuses ESP over IPv{version}: {xfrm.explain(error)}", "see the kernel's log (dmesg)")


def _try_interface() -> Missing | None:
    """The number 0 is refused by kernels that know xfrm interfaces, old ones take it: nothing is left either way."""
    with Netlink() as nl:
        try:
            add_xfrm_link(nl, _NAME, 0)
        except OSError as error:
            if error.errno in (errno.EINVAL, errno.EEXIST):
                return None
            if error.errno in (errno.EPERM, errno.EACCES):
                return _FORBIDDEN
            return Missing(
                "the kernel has no xfrm interfaces, so IPsec policies would hold for the whole host",
                "load them (modprobe xfrm_interface), take a kernel from 4.19 with CONFIG_XFRM_INTERFACE, or choose "
                '`data_plane = "kernel"`, which does without',
                fatal=False,
            )
        delete_link(nl, _NAME)
    return None
