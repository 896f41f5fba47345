"""NAT and MSS clamping with nftables, in a table of our own, so that nobody's rules are touched and one deletion
undoes everything.

A packet must be accepted by every table, so a firewall of the host whose forward policy is "drop" still drops what is
forwarded for the VPN; our table cannot overrule it.
"""

from __future__ import annotations

import asyncio
import re
import shutil
from collections.abc import Sequence
from dataclasses import dataclass

from ikeway.errors import HostError
from ikeway.host.interface import GatewayConfiguration
from ikeway.host.journal import Change

_SBIN = "/usr/local/sbin:/usr/sbin:/sbin:/usr/local/bin:/usr/bin:/bin"
_TCP_OVER = {4: 40, 6: 60}  # IP and TCP headers without options (RFC 6691)


@dataclass(frozen=True, slots=True)
class TableAdded(Change):
    """An nftables table of family `inet`, with its contents as `nft` reads them."""

    table: str
    contents: str

    async def make(self, others: tuple[Change, ...]) -> None:
        """Add the table; one of that name (ours, from before) is replaced in the same transaction."""
        error = await _nft(f"add table inet {self.table}\ndelete table inet {self.table}\n{self.contents}")
        if error:
            raise HostError(
                f"nft refused the rules for the tunnel: {error}",
                remedy="check that the kernel has nftables with NAT (modules nft_nat, nft_masq)",
            )

    async def undo(self, others: tuple[Change, ...]) -> None:
        """Delete it."""
        await _nft(f"add table inet {self.table}\ndelete table inet {self.table}\n")

    def __str__(self) -> str:
        """Say what it does."""
        return f"add nftables table inet {self.table}"


def gateway_table(configuration: GatewayConfiguration) -> TableAdded | None:
    """The table that a gateway needs on its interfaces; None when it asks for neither NAT nor MSS clamping."""
    chains = []
    if configuration.masquerade and configuration.all_pools:
        chains.append(_chain("nat", "type nat hook postrouting priority srcnat", _masquerade(configuration)))
    if configuration.clamp_mss:
        chains.append(_chain("mss", "type filter hook forward priority mangle", _clamp(configuration)))
    if not chains:
        return None
    name = "ikeway_" + re.sub(r"\W", "_", configuration.interface)
    return TableAdded(name, f"table inet {name} {{\n{''.join(chains)}}}\n")


def _masquerade(configuration: GatewayConfiguration) -> list[str]:
    if configuration.masquerade_interfaces:
        leaving = f"oifname {_set(configuration.masquerade_interfaces)}"
    else:
        leaving = f"oifname != {_set(configuration.interfaces)}"
    return [
        f"{'ip6' if pool.version == 6 else 'ip'} saddr {pool} {leaving} masquerade" for pool in configuration.all_pools
    ]


def _clamp(configuration: GatewayConfiguration) -> list[str]:
    """`set` only ever lowers the value. Both directions: the peer's idea of the MTU may be larger than ours."""
    return [
        f"{way} {_set(configuration.interfaces)} meta nfproto ipv{version} "
        f"tcp flags & (syn | rst) == syn tcp option maxseg size set {configuration.mtu - headers}"
        for version, headers in _TCP_OVER.items()
        for way in ("iifname", "oifname")
    ]


def _set(names: Sequence[str]) -> str:
    return "{ " + ", ".join(f'"{name}"' for name in names) + " }"


def _chain(name: str, hook: str, rules: list[str]) -> str:
    body = "".join(f"    {rule}\n" for rule in rules)
    return f"  chain {name} {{\n    {hook}; policy accept;\n{body}  }}\n"


async def _nft(script: str) -> str:
    """Run a script in one transaction; return nft's complaint, empty for success."""
    program = shutil.which("nft") or shutil.which("nft", path=_SBIN)
    if program is None:
        raise HostError("the program nft is not installed", remedy="install the package nftables")
    process = await asyncio.create_subprocess_exec(
        program,
        "-f",
        "-",
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
    )
    _, complaint = await process.communicate(script.encode())
    return (complaint.decode(errors="replace").strip() or "failed") if process.returncode else ""
