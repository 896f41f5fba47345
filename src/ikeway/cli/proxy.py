"""`ikeway proxy`: SOCKS5 and HTTP proxies whose traffic goes through the VPN."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ikeway.cli.errors import INTERRUPTED, guarded
from ikeway.cli.options import KeyLogFile, LogFile, LogFormat, LogFormatOption, PcapFile, Verbose, set_up_log

if TYPE_CHECKING:
    from ikeway.cli.progress import Show, Steps
    from ikeway.client.enclave.enclave import Enclave
    from ikeway.client.profile import Profile
    from ikeway.client.proxy.server import ProxyServer
    from ikeway.client.proxy.users import ProxyUsers
    from ikeway.config.secrets import Prompt
    from ikeway.daemon.trace import Trace

app = typer.Typer()

_LOOPBACK = "127.0.0.1"


@app.command()
@guarded
def proxy(
    profile: Annotated[str, typer.Argument(help="The name of a profile, or the path of its file.", show_default=False)],
    socks: Annotated[
        str | None, typer.Option(metavar="[HOST:]PORT", help="Where the SOCKS5 proxy listens.", show_default=False)
    ] = None,
    http: Annotated[
        str | None, typer.Option(metavar="[HOST:]PORT", help="Where the HTTP proxy listens.", show_default=False)
    ] = None,
    users: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Ask for a name and a password: FILE has `name:password` lines."),
    ] = None,
    ask: Annotated[bool, typer.Option(help="Ask for passwords that the profile does not have.")] = True,
    verbose: Verbose = 0,
    log_format: LogFormatOption = LogFormat.TEXT,
    log_file: LogFile = None,
    keylog: KeyLogFile = None,
    pcap: PcapFile = None,
) -> None:
    """Offer the VPN as a proxy on this host's loopback. No root, and no change on this host.

    Without `--socks` and `--http`, both are there: SOCKS5 at 127.0.0.1:1080, HTTP at 127.0.0.1:8118. Names are looked
    up behind the VPN; for SOCKS5 say `socks5h` or switch on "proxy DNS". Every user of this host can use it unless
    `--users` is given. While the tunnel is down, nothing gets through.

    [bold]Examples[/bold]

      ikeway proxy work

      ikeway proxy work --socks 1080       and: curl --proxy socks5h://127.0.0.1 http://intranet/

      ikeway proxy work --http 8118        and: https_proxy=http://127.0.0.1:8118 git fetch

      ikeway proxy work --socks 0.0.0.0:1080 --users proxy-users    for other hosts too
    """
    from ikeway.cli.progress import Steps, terminal_show
    from ikeway.client.profile import load_profile
    from ikeway.client.proxy.users import ProxyUsers
    from ikeway.client.secrets import terminal_prompt
    from ikeway.daemon.trace import Trace, TraceSettings

    if socks is None and http is None:
        socks, http = "1080", "8118"
    known = ProxyUsers.read(users) if users is not None else ProxyUsers()
    offer = _Offer(_place(socks), _place(http), known)
    prompt = terminal_prompt() if ask else None
    loaded = load_profile(profile, prompt)
    set_up_log(log_format, verbose, log_file, quiet=True)
    show = terminal_show()
    for warning in (*loaded.warnings, *offer.warnings()):
        show("warning", warning)
    with Trace(TraceSettings(keylog=keylog, pcap=pcap)) as trace:
        steps = Steps(show, payloads=verbose > 0)
        if not asyncio.run(_run(loaded, prompt, offer, steps, trace, show)):
            raise typer.Exit(INTERRUPTED)


@dataclass(frozen=True, slots=True)
class _Offer:
    socks: tuple[str, int] | None
    http: tuple[str, int] | None
    users: ProxyUsers

    def warnings(self) -> list[str]:
        """What is risky."""
        from ipaddress import ip_address

        places = [place for place in (self.socks, self.http) if place is not None]
        if self.users or all(ip_address(host).is_loopback for host, _ in places):
            return []
        return ["everybody who reaches this host can use the VPN: name --users, or listen on 127.0.0.1"]


def _place(text: str | None) -> tuple[str, int] | None:
    from ipaddress import ip_address

    from ikeway.errors import ConfigError

    if text is None:
        return None
    host, _, port = text.rpartition(":")
    host = host.strip("[]") or _LOOPBACK
    try:
        if not 0 <= int(port) < 65536:
            raise ValueError(port)
        return str(ip_address(host)), int(port)
    except ValueError:
        raise ConfigError(
            "this is no place to listen", expected="PORT or ADDRESS:PORT, such as 1080 or 127.0.0.1:1080", got=text
        ) from None


async def _run(profile: Profile, prompt: Prompt | None, offer: _Offer, steps: Steps, trace: Trace, show: Show) -> bool:
    """Connect, serve, and stay until it ends. False when it was interrupted before."""
    from ikeway.cli.attended import attended, describe, start_client
    from ikeway.client.enclave.enclave import Enclave

    enclave = await Enclave.start()
    servers: list[ProxyServer] = []
    try:
        servers += await _listen(offer, enclave, show)  # while there is a right to low ports
        async with attended(profile, steps, trace, prompt, enclave=enclave) as client:
            if not await start_client(client):
                return False
            show("up", describe(client))
            ends = [asyncio.ensure_future(each) for each in (client.wait(), enclave.ended.wait())]
            done, _ = await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
            for each in ends:
                each.cancel()
            if ends[0] in done:
                ends[0].result()
    finally:
        for each_server in servers:
            await each_server.close()
        await enclave.close()
    return True


async def _listen(offer: _Offer, enclave: Enclave, show: Show) -> list[ProxyServer]:
    """Start what is offered."""
    from ikeway.client.proxy.http import HttpProxy
    from ikeway.client.proxy.server import Limits, ProxyServer
    from ikeway.client.proxy.socks import SocksProxy

    limits = Limits()
    wanted = (
        ("SOCKS", offer.socks, SocksProxy(enclave, offer.users, limits).serve),
        ("HTTP", offer.http, HttpProxy(enclave, offer.users, limits).serve),
    )
    started: list[ProxyServer] = []
    for name, place, serve in wanted:
        if place is None:
            continue
        server = ProxyServer(name, serve, limits)
        try:
            port = await server.start(*place)
        except BaseException:
            for each in started:
                await each.close()
            raise
        show("proxy", f"{name} at {place[0]} port {port}")
        started.append(server)
    return started
