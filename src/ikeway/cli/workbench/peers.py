"""`ikeway workbench serve`, `connect` and `relay`: stand-in peers."""

from __future__ import annotations

import asyncio
import enum
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ikeway.cli.errors import guarded

if TYPE_CHECKING:
    from ikeway.address import Address
    from ikeway.dialects import Dialect
    from ikeway.workbench.bench.bench import BenchSettings
    from ikeway.workbench.bench.replay import Replay
    from ikeway.workbench.bench.running import Tools
    from ikeway.workbench.bench.standin import Caller, GatewayStandIn, Knobs, StandIn

app = typer.Typer()


class Hold(enum.StrEnum):
    """Which messages wait for the engineer."""

    UNKNOWN = "unknown"
    ALL = "all"
    NOTHING = "nothing"


PskFile = Annotated[
    Path | None,
    typer.Option("--psk-file", help="A file with the pre-shared key, its owner's only.", show_default=False),
]
IdentityOption = Annotated[
    str,
    typer.Option(
        "--identity",
        help="Who we say we are: a host name, user@host, an address, a DN, keyid:NAME, or {TYPE}:TEXT and TYPE:0xHEX.",
        show_default=False,
    ),
]
RemoteIdentity = Annotated[
    str, typer.Option("--remote-identity", help="Who the other side must say it is.", show_default=False)
]
Proposals = Annotated[
    list[str] | None,
    typer.Option("--proposal", help="IKE proposals in place of the usual ones; may be repeated.", show_default=False),
]
VendorIds = Annotated[
    list[str] | None,
    typer.Option("--vendor-id", help="A vendor ID to send: text, or 0xHEX; may be repeated.", show_default=False),
]
DialectOption = Annotated[
    str,
    typer.Option(
        "--dialect",
        help="A vendor's: anyconnect; as a client also fortigate, windows, azure. Files bring their own.",
        show_default=False,
    ),
]
SetOption = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        help="KEY=VALUE, a setting of the dialect, that of the file included; may be repeated (docs/dialects.md).",
        show_default=False,
    ),
]
Scripts = Annotated[
    list[Path] | None,
    typer.Option("--script", help="A Python file with on_message(m); may be repeated.", show_default=False),
]
Answers = Annotated[
    Path | None,
    typer.Option("--answers", help="A recording that answers what is held, as then.", show_default=False),
]
ReplayOption = Annotated[
    Path | None,
    typer.Option(
        "--replay",
        help="A recording: say again what the side that we stand in for said, and answer what is held, as then.",
        show_default=False,
    ),
]
HoldOption = Annotated[Hold, typer.Option("--hold", help="Which messages that come in wait for an answer of yours.")]
Record = Annotated[
    Path | None,
    typer.Option("--record", help="Write everything to this new file, keys included.", show_default=False),
]
Secrets = Annotated[bool, typer.Option("--secrets", help="Show passwords, AUTH values and key exchange values too.")]
Listen = Annotated[
    list[str] | None, typer.Option("--listen", help="An address to listen on; may be repeated.", show_default=False)
]

PortOption = Annotated[
    int, typer.Option("--port", min=0, max=65535, help="The IKE port to listen on; 0 takes a free one.")
]
NatPortOption = Annotated[
    int,
    typer.Option("--nat-port", min=0, max=65535, help="The port for what goes on behind a NAT; 0 takes a free one."),
]


@app.command()
@guarded
def serve(
    config: Annotated[
        Path | None,
        typer.Option("--config", help="A gateway's configuration: stand in for that gateway.", show_default=False),
    ] = None,
    psk_file: PskFile = None,
    identity: IdentityOption = "",
    remote_identity: RemoteIdentity = "",
    proposal: Proposals = None,
    vendor_id: VendorIds = None,
    dialect: DialectOption = "",
    setting: SetOption = None,
    script: Scripts = None,
    answers: Answers = None,
    replay: ReplayOption = None,
    hold: HoldOption = Hold.UNKNOWN,
    record: Record = None,
    secrets: Secrets = False,
    listen: Listen = None,
    port: PortOption = 500,
    nat_port: NatPortOption = 4500,
    once: Annotated[
        bool, typer.Option("--once", help="End when the first IKE SA has ended; the exit code says how.")
    ] = False,
) -> None:
    """Stand in for a gateway: speak as far as it goes, show every message decrypted and explained, and hold what is
    unknown until you answer it, here, by a script, or out of a recording.

    Without credentials it cannot prove anything: it agrees on keys and then holds whatever the client says first.
    With `--config` it is that gateway, users and dialects included, but it carries no traffic.

    [bold]Examples[/bold]

      ikeway workbench serve --record client.ikr

      ikeway workbench serve --psk-file secret.txt --identity vpn.example.com

      ikeway workbench serve --config gateway.toml --script steps.py --vendor-id CISCO-DELETE-REASON

      ikeway workbench serve --psk-file secret.txt --replay gateway.ikr
    """
    from ikeway.workbench.bench.running import opened
    from ikeway.workbench.bench.running import serve as run

    said = _replay(replay, initiator=False)
    knobs = _knobs(
        identity,
        remote_identity,
        proposal,
        vendor_id,
        said,
        dialect=_of_gateway(dialect, setting, in_file=config is not None),
    )
    # Without any credential the engine could only refuse what comes first in the clear: so it is held.
    bare = config is None and psk_file is None
    settings = _settings(listen, port, nat_port, Hold.ALL if bare and hold is Hold.UNKNOWN else hold)
    tools = _tools(script, answers, record, replay, secrets=secrets)
    role = _gateway(config, psk_file, knobs, setting)
    with opened(tools, "responder") as ready:
        asyncio.run(run(settings, role, ready, once=once))


@app.command()
@guarded
def connect(
    host: Annotated[str, typer.Argument(help="The gateway; may be left out with --profile.", show_default=False)] = "",
    profile: Annotated[
        str, typer.Option("--profile", help="A profile: stand in for that client.", show_default=False)
    ] = "",
    psk_file: PskFile = None,
    eap: Annotated[
        bool,
        typer.Option("--eap", help="Ask to log in by EAP, and hold whatever method the gateway wants."),
    ] = False,
    identity: IdentityOption = "",
    remote_identity: RemoteIdentity = "",
    no_idr: Annotated[bool, typer.Option("--no-idr", help="Do not say whom we look for.")] = False,
    proposal: Proposals = None,
    vendor_id: VendorIds = None,
    dialect: DialectOption = "",
    setting: SetOption = None,
    script: Scripts = None,
    answers: Answers = None,
    replay: ReplayOption = None,
    hold: HoldOption = Hold.UNKNOWN,
    record: Record = None,
    secrets: Secrets = False,
    listen: Listen = None,
    remote_port: Annotated[int, typer.Option("--remote-port", min=1, max=65535, help="The gateway's port.")] = 500,
) -> None:
    """Stand in for a client: connect, show every message decrypted and explained, and hold what is unknown until you
    answer it.

    With `--eap` any certificate of the gateway is believed: for looking at it, and for nothing else. Child SAs are agreed
    on, but no traffic is carried.

    [bold]Examples[/bold]

      ikeway workbench connect vpn.example.com --eap --identity alice@example.com --record gateway.ikr

      ikeway workbench connect vpn.example.com --psk-file secret.txt --identity alice@example.com

      ikeway workbench connect --profile work --vendor-id CISCO-ANYCONNECT-EAP --identity '{201}:*$AnyConnectClient$*'

      ikeway workbench connect vpn.example.com --eap --dialect anyconnect --set identity_type=11
    """
    from ikeway.address import Address
    from ikeway.workbench.bench.running import connect as run
    from ikeway.workbench.bench.running import opened
    from ikeway.workbench.probe.settings import one_host, resolve

    spoken = _of_client(dialect, setting, in_file=bool(profile))
    said = _replay(replay, initiator=True)
    knobs = _knobs(identity, remote_identity, proposal, vendor_id, said, send_idr=not no_idr, dialect=spoken)
    caller, usual = _caller(profile, psk_file, knobs, setting, eap=eap)
    addresses = resolve(one_host(host or usual.host))
    remote = Address(addresses[0], remote_port if host else usual.port)
    settings = _settings(listen, 0, 0, hold)
    with opened(_tools(script, answers, record, replay, secrets=secrets), "initiator") as ready:
        asyncio.run(run(settings, caller, remote, ready))


@app.command()
@guarded
def relay(
    gateway: Annotated[str, typer.Argument(help="The real gateway.", show_default=False)],
    config: Annotated[
        Path | None,
        typer.Option(
            "--config",
            help="Towards clients: a gateway's file, with a certificate that they trust.",
            show_default=False,
        ),
    ] = None,
    profile: Annotated[
        str, typer.Option("--profile", help="Towards the gateway: our own log-in.", show_default=False)
    ] = "",
    psk_file: PskFile = None,
    password_file: Annotated[
        Path | None,
        typer.Option("--password-file", help="The user's password, for EAP-MSCHAPv2.", show_default=False),
    ] = None,
    identity: IdentityOption = "",
    remote_identity: RemoteIdentity = "",
    proposal: Proposals = None,
    vendor_id: VendorIds = None,
    dialect: DialectOption = "",
    setting: SetOption = None,
    script: Scripts = None,
    answers: Answers = None,
    hold: HoldOption = Hold.NOTHING,
    record: Record = None,
    secrets: Secrets = False,
    listen: Listen = None,
    port: PortOption = 500,
    nat_port: NatPortOption = 4500,
    remote_port: Annotated[int, typer.Option("--remote-port", min=1, max=65535, help="The gateway's port.")] = 500,
) -> None:
    """Stand between a real client and a real gateway: two IKE SAs, and every payload in plaintext on the way.

    It needs what proves a gateway to the client, and a client to the gateway: the pre-shared key (`--psk-file` is for both
    sides), or a gateway's file with a certificate that the client trusts, and for the gateway a profile, or EAP, which is
    passed on as it is. What cannot be relayed, and why, is in docs/workbench.md. Traffic is not carried.

    [bold]Examples[/bold]

      ikeway workbench relay vpn.example.com --psk-file secret.txt --record both.ikr

      ikeway workbench relay vpn.example.com --config standin.toml --password-file alice.txt
    """
    from ikeway.address import Address
    from ikeway.workbench.bench.running import opened
    from ikeway.workbench.bench.running import relay as run
    from ikeway.workbench.probe.settings import one_host, resolve
    from ikeway.workbench.relay import Upstream

    spoken = _of_client(dialect, setting, in_file=bool(profile))
    knobs = _knobs(identity, remote_identity, proposal, vendor_id, dialect=spoken)
    # Settings are those of the side towards the gateway; some dialects are clients' alone.
    theirs = _knobs(identity, remote_identity, proposal, vendor_id, dialect=_of_gateway_too(dialect))
    downstream = _gateway(config, psk_file if config is None else None, theirs)
    by_eap = not profile and psk_file is None
    caller, _ = _caller(profile, None if profile else psk_file, knobs, setting, eap=by_eap)
    upstream = Upstream(
        remote=Address(resolve(one_host(gateway))[0], remote_port),
        caller=caller,
        password=_password(password_file),
        pass_eap=by_eap,
        second_factor=dialect == "fortigate",
        keep_identity=bool(identity) or _by_certificate(caller),
    )
    settings = _settings(listen, port, nat_port, hold)
    with opened(_tools(script, answers, record, secrets=secrets), "relay") as ready:
        asyncio.run(run(settings, downstream, upstream, ready))


def _password(path: Path | None) -> str | None:
    from ikeway.config.secrets import read_private

    return read_private(path).decode(errors="replace").rstrip("\r\n") if path is not None else None


def _by_certificate(caller: Caller) -> bool:
    from ikeway.auth.certificate import CertificateCredential

    return isinstance(caller.connection.local_credential, CertificateCredential)


def _gateway(
    config: Path | None, psk_file: Path | None, knobs: Knobs, settings: list[str] | None = None
) -> StandIn | GatewayStandIn:
    from ikeway.errors import ConfigError
    from ikeway.workbench.bench.standin import GatewayStandIn, serve_psk

    if config is None:
        return serve_psk(_secret(psk_file), knobs)
    if psk_file is not None:
        raise ConfigError("there are both --config and --psk-file", remedy="leave one of them out")
    from ikeway.client.secrets import terminal_prompt
    from ikeway.gateway.config import load_gateway_config
    from ikeway.workbench.bench.dialects import into_connections

    change = into_connections(settings or ())
    return GatewayStandIn(load_gateway_config(config, terminal_prompt(), change=change), knobs)


def _caller(
    profile: str, psk_file: Path | None, knobs: Knobs, settings: list[str] | None, *, eap: bool
) -> tuple[Caller, Address]:
    """Who calls, and where it usually does."""
    from ikeway.address import Address
    from ikeway.auth.identity import Identity
    from ikeway.errors import ConfigError
    from ikeway.workbench.bench.standin import call_with_eap, call_with_profile, call_with_psk

    if sum((bool(profile), psk_file is not None, eap)) != 1:
        raise ConfigError(
            "who are we to be?", expected="one of --profile, --psk-file and --eap", remedy="name one of them"
        )
    if profile:
        from ikeway.client.profile import load_profile
        from ikeway.client.secrets import terminal_prompt
        from ikeway.workbench.bench.dialects import into_profile

        prompt = terminal_prompt()
        loaded = load_profile(profile, prompt, change=into_profile(settings or ()))
        return call_with_profile(loaded, prompt, knobs), loaded.remote
    usual = knobs.dialect.identity if knobs.dialect is not None else None
    who = knobs.identity or usual or Identity.parse("stand-in@ikeway.invalid")
    secret = _secret(psk_file)
    caller = call_with_eap(who, knobs) if secret is None else call_with_psk(secret, who, knobs)
    return caller, Address("", 500)


def _secret(path: Path | None) -> bytes | None:
    from ikeway.config.secrets import read_private, shared_secret

    return shared_secret(read_private(path).decode(errors="surrogateescape").rstrip("\r\n")) if path else None


def _knobs(
    identity: str,
    remote_identity: str,
    proposals: list[str] | None,
    vendor_ids: list[str] | None,
    replay: Replay | None = None,
    *,
    send_idr: bool = True,
    dialect: Dialect | None = None,
) -> Knobs:
    from ikeway.auth.identity import Identity
    from ikeway.ike.proposals import parse_proposals
    from ikeway.workbench.bench.standin import Knobs

    return Knobs(
        # AUTH covers the identity, so it cannot be put in afterwards.
        identity=Identity.parse(identity) if identity else replay.identity if replay is not None else None,
        address=str(replay.address or "") if replay is not None else "",
        remote_identity=Identity.parse(remote_identity) if remote_identity else None,
        vendor_ids=tuple(map(_octets, vendor_ids or ())),
        ike_proposals=parse_proposals(", ".join(proposals)) if proposals else (),
        send_idr=send_idr,
        dialect=dialect,
    )


def _replay(path: Path | None, *, initiator: bool) -> Replay | None:
    from ikeway.workbench.bench.replay import Replay
    from ikeway.workbench.recording import load

    return Replay(load(path), initiator=initiator) if path is not None else None


def _of_client(name: str, settings: list[str] | None, *, in_file: bool) -> Dialect | None:
    """The dialect, with the settings where they are not a file's."""
    from ikeway.workbench.bench.dialects import client_dialect

    own = () if in_file else settings or ()
    return client_dialect(name, own) if name or own else None


def _of_gateway(name: str, settings: list[str] | None, *, in_file: bool) -> Dialect | None:
    """The same of a gateway."""
    from ikeway.workbench.bench.dialects import gateway_dialect

    own = () if in_file else settings or ()
    return gateway_dialect(name, own) if name or own else None


def _of_gateway_too(name: str) -> Dialect | None:
    """A dialect as gateways speak it, where there is such a thing."""
    from ikeway.workbench.bench.dialects import GATEWAYS, gateway_dialect

    return gateway_dialect(name) if name in GATEWAYS else None


def _octets(text: str) -> bytes:
    from ikeway.workbench.bench.words import parse_octets

    return parse_octets(text) if text.startswith("0x") else text.encode()


def _settings(listen: list[str] | None, port: int, nat_port: int, hold: Hold) -> BenchSettings:
    from ikeway.workbench.bench.bench import BenchSettings
    from ikeway.workbench.bench.desk import HoldWhat
    from ikeway.workbench.probe.settings import one_host

    hosts = tuple(map(one_host, listen)) if listen else ("0.0.0.0", "::")  # noqa: S104 - as a gateway does
    return BenchSettings(listen=hosts, port=port, nat_port=nat_port, hold=HoldWhat(hold.value))


def _tools(
    scripts: list[Path] | None, answers: Path | None, record: Path | None, replay: Path | None = None, *, secrets: bool
) -> Tools:
    from ikeway.workbench.bench.running import Tools

    return Tools(
        scripts=tuple(scripts or ()),
        answers=answers,
        replay=replay,
        record=record,
        secrets=secrets,
        ask=sys.stdin is not None,
    )
