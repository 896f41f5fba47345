"""Which way a connection's DNS servers are told to the host."""

from __future__ import annotations

import logging

from ikeway.errors import HostError
from ikeway.host.interface import TunnelConfiguration
from ikeway.host.journal import Change, Recovered, standing_changes
from ikeway.host.linux import resolvconf, resolved

log = logging.getLogger(__name__)


async def dns_change(configuration: TunnelConfiguration) -> Change | None:
    """The change that makes the host ask the connection's DNS servers; None when it brings none."""
    servers = tuple(map(str, configuration.dns_servers))
    if not servers:
        return None
    if await resolved.is_in_charge():
        everything = configuration.dns_for_all or not configuration.search_domains
        domains = (*configuration.search_domains, *(["~."] if everything else []))
        return resolved.LinkDnsSet(configuration.interface, servers, domains)
    if configuration.search_domains and not configuration.dns_for_all:
        log.warning(
            "Only systemd-resolved can ask some names here and others there, and this host does not use it: the "
            "tunnel's name servers (%s) are asked for all names, not only for those in %s",
            ", ".join(servers),
            ", ".join(configuration.search_domains),
        )
    return resolvconf.ResolvConfReplaced.of(resolvconf.location(), servers, configuration.search_domains)


def recover_resolv_conf() -> list[Recovered]:
    """Put back a resolv.conf of ours that outlived a restart of the machine (the journal did not)."""
    try:
        path = resolvconf.location()
        if not standing_changes(resolvconf.shared_key(path)) and resolvconf.restore_orphan(path):
            return [Recovered("", (f"write {path}",), ())]
    except HostError:
        pass  # no resolv.conf of our own, so none to put back
    except OSError as error:
        return [Recovered("", (), (f"write {resolvconf.PATH}: {error.strerror}",))]
    return []
