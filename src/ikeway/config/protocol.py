"""The [ike] and [esp] sections, which profiles and gateway configurations share, and what they mean to the engine."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Literal, TypedDict

from pydantic import Field

from ikeway.config.fields import (
    Duration,
    EspProposal,
    IkeProposal,
    Kind,
    Listed,
    Octets,
    Section,
    Selector,
    Size,
    between,
)
from ikeway.esp.parameters import EspLimits, Mode
from ikeway.ike.proposals import DEFAULT_ESP_PROPOSALS, DEFAULT_IKE_PROPOSALS, format_proposal, weaknesses
from ikeway.ike.settings import ChildSettings, Retransmission
from ikeway.wire.payloads import Proposal, TrafficSelector

Complain = Callable[[tuple[str, ...], str, str], None]  # location, reason, remedy

Share = Annotated[float, between(0.0, 0.9), Kind("a share from 0.0 to 0.9")]
Tries = Annotated[int, between(0, 20), Kind("a whole number from 0 to 20")]
Factor = Annotated[float, between(1.0, 10.0), Kind("a number from 1.0 to 10.0")]
FragmentSize = Annotated[
    int, between(0, 65535), Kind("0, or octets of an IP packet: 576 (IPv4) or 1280 (IPv6) and more")
]
Window = Annotated[int, between(1, 256), Kind("a whole number from 1 to 256")]
ReplayWindow = Annotated[int, between(0, 1 << 20), Kind("a number of packets from 0 to 1048576")]
PacketCount = Annotated[int, between(0, 1 << 63), Kind("a number of packets; 0 for no limit")]


class RetransmitSection(Section):
    """How long an unanswered request is repeated."""

    first: Duration = Field(default=4.0, description="How long to wait for an answer before the first repetition.")
    factor: Factor = Field(default=1.8, description="Each wait is this many times as long as the one before.")
    tries: Tries = Field(
        default=5, description="Repetitions before the peer counts as gone. The defaults end after 165 s."
    )
    limit: Duration = Field(default=90.0, description="No single wait is longer than this.")

    def settings(self) -> Retransmission:
        """The engine's value."""
        return Retransmission(first=self.first, factor=self.factor, tries=self.tries, limit=self.limit)


class IkeSection(Section):
    """The IKE SA: the control channel."""

    proposals: Listed[IkeProposal] = Field(
        default=DEFAULT_IKE_PROPOSALS,
        min_length=1,
        description=(
            "Algorithms, best first. `ikeway proposals` explains a proposal. Old algorithms (3DES, MD5, SHA-1, "
            "MODP-1024) are used only when they are named here, and a warning says why they should not be."
        ),
        json_schema_extra={"shown": "today's algorithms, AEAD first"},
    )
    rekey: Duration = Field(default=14400.0, description="Renew the keys after this time.")
    lifetime: Duration = Field(
        default=0.0,
        description="Give the SA up when it could not be rekeyed by then. `never` means 1.1 times `rekey` and a minute.",
    )
    reauthenticate: Duration = Field(
        default=0.0,
        description=(
            "Log in anew after this time, the new SA before the old one goes. Gateways ask their clients to "
            "(AUTH_LIFETIME, RFC 4478); those that do not know of it stay as they are."
        ),
    )
    jitter: Share = Field(
        default=0.1,
        description="Share of `rekey` that is taken off at random, so that both sides do not rekey at once.",
    )
    dpd: Duration = Field(
        default=30.0, description="Ask a silent peer whether it is still there after this time (dead peer detection)."
    )
    nat_keepalive: Duration = Field(
        default=20.0, description="Behind a NAT, send an octet after this time of silence to keep its mapping."
    )
    mobike: bool = Field(default=True, description="Survive changes of address (RFC 4555).")
    fragment_size: FragmentSize = Field(
        default=1280,
        description=(
            "Cut larger IKE messages into fragments that fit IP packets of this size (RFC 7383); 0 never does."
        ),
    )
    force_udp_encapsulation: bool = Field(
        default=False,
        description=(
            "Carry ESP in UDP even without a NAT, where else it is IP protocol 50 (which firewalls like less)."
        ),
    )
    window: Window = Field(
        default=1, description="Requests that the peer may have under way at a time (SET_WINDOW_SIZE)."
    )
    retransmit: RetransmitSection = Field(default=RetransmitSection(), description="Repetition of unanswered requests.")
    vendor_ids: Listed[Octets] = Field(default=(), description="Vendor IDs to send: texts, or octets as 0x...")
    send_certificate_requests: bool = Field(
        default=True, description="Tell the peer which certificate authorities are trusted (CERTREQ)."
    )
    always_send_certificate: bool = Field(
        default=True, description="Send our certificate even when the peer did not ask for it."
    )

    def check(self, complain: Complain) -> None:
        """Complain of values that do not go together."""
        _check_lifetime(self.rekey, self.lifetime, complain)
        if 0 < self.fragment_size < 576:
            complain(
                ("fragment_size",),
                "`fragment_size` is below what IP guarantees",
                "write 576 or more (IPv6: 1280), or 0 for no fragments",
            )
        if self.retransmit.first <= 0:
            complain(("retransmit", "first"), "the first wait must not be 0", 'write for example "4s"')

    def warnings(self) -> list[str]:
        """Why the proposals are weak, where they are."""
        return warnings_of(self.proposals)


class ClientIkeSection(IkeSection):
    """The IKE SA: the control channel."""

    initial_contact: bool = Field(
        default=True,
        description=(
            "Tell the gateway to forget older SAs with us (INITIAL_CONTACT). `ikeway run` and `proxy` do not: several "
            "of them may run at the same time."
        ),
    )


class EspSection(Section):
    """Child SAs: what carries the traffic."""

    proposals: Listed[EspProposal] = Field(
        default=DEFAULT_ESP_PROPOSALS,
        min_length=1,
        description="Algorithms, best first. A key exchange method in them gives forward secrecy at rekeying.",
        json_schema_extra={"shown": "today's algorithms, AEAD first"},
    )
    mode: Literal["tunnel", "transport"] = Field(
        default="tunnel", description="`transport` only protects traffic between the two peers themselves."
    )
    rekey: Duration = Field(default=3600.0, description="Renew the keys after this time.")
    lifetime: Duration = Field(
        default=0.0,
        description="Give the SA up when it could not be rekeyed by then. `never` means 1.1 times `rekey` and a minute.",
    )
    rekey_bytes: Size = Field(default=0, description="Renew the keys after this much traffic in one direction.")
    lifetime_bytes: Size = Field(
        default=0, description="Stop after this much traffic in one direction. `never` means no limit."
    )
    rekey_packets: PacketCount = Field(
        default=0, description="Renew the keys after this many packets in one direction."
    )
    lifetime_packets: PacketCount = Field(default=0, description="Stop after this many packets in one direction.")
    jitter: Share = Field(default=0.1, description="Share of `rekey` that is taken off at random.")
    replay_window: ReplayWindow = Field(
        default=4096, description="How far packets may overtake one another; 0 switches the protection off."
    )

    def check(self, complain: Complain) -> None:
        """Complain of values that do not go together."""
        _check_lifetime(self.rekey, self.lifetime, complain)
        for soft, hard, name in (
            (self.rekey_bytes, self.lifetime_bytes, "bytes"),
            (self.rekey_packets, self.lifetime_packets, "packets"),
        ):
            if hard and soft >= hard:
                complain(
                    (f"lifetime_{name}",),
                    f"`lifetime_{name}` is not above `rekey_{name}`",
                    f"write more than {soft}, or leave it out",
                )

    def child_settings(
        self, name: str, local: tuple[TrafficSelector, ...], remote: tuple[TrafficSelector, ...]
    ) -> ChildSettings:
        """The engine's value for a child SA with these selectors."""
        return ChildSettings(
            name=name,
            local_selectors=local,
            remote_selectors=remote,
            proposals=self.proposals,
            mode=Mode(self.mode),
            rekey_seconds=self.rekey,
            life_seconds=self.lifetime,
            jitter=self.jitter,
            limits=EspLimits(
                soft_bytes=self.rekey_bytes,
                hard_bytes=self.lifetime_bytes,
                soft_packets=self.rekey_packets,
                hard_packets=self.lifetime_packets,
            ),
            replay_window=self.replay_window,
        )

    def warnings(self) -> list[str]:
        """Why the proposals are weak, where they are."""
        return warnings_of(self.proposals)


class ClientEspSection(EspSection):
    """Child SAs of a client: what carries the traffic."""

    local: Listed[Selector] = Field(
        default=(), description="Traffic of this side. Empty: the address that the gateway assigns."
    )
    remote: Listed[Selector] = Field(
        default=(),
        description="Traffic of the other side that is to go through the tunnel. Empty: all that the gateway grants.",
    )


class ChildSection(ClientEspSection):
    """One of several child SAs. What is not written here is taken from [esp]."""


class ConnectionOptions(TypedDict):
    """The fields of a `Connection` that [ike] and [esp] fill."""

    ike_proposals: tuple[Proposal, ...]
    rekey_seconds: float
    life_seconds: float
    reauthenticate_seconds: float
    jitter: float
    dpd_seconds: float
    nat_keepalive_seconds: float
    mobike: bool
    fragment_size: int
    force_udp_encapsulation: bool
    window: int
    retransmission: Retransmission
    vendor_ids: tuple[bytes, ...]
    send_certificate_requests: bool
    always_send_certificate: bool


def connection_options(ike: IkeSection) -> ConnectionOptions:
    """Keyword arguments of `Connection`."""
    return {
        "ike_proposals": ike.proposals,
        "rekey_seconds": ike.rekey,
        "life_seconds": ike.lifetime,
        "reauthenticate_seconds": ike.reauthenticate,
        "jitter": ike.jitter,
        "dpd_seconds": ike.dpd,
        "nat_keepalive_seconds": ike.nat_keepalive,
        "mobike": ike.mobike,
        "fragment_size": ike.fragment_size,
        "force_udp_encapsulation": ike.force_udp_encapsulation,
        "window": ike.window,
        "retransmission": ike.retransmit.settings(),
        "vendor_ids": ike.vendor_ids,
        "send_certificate_requests": ike.send_certificate_requests,
        "always_send_certificate": ike.always_send_certificate,
    }


def warnings_of(proposals: tuple[Proposal, ...]) -> list[str]:
    """The weaknesses of proposals, one line each."""
    return [f"{format_proposal(proposal)}: {weakness}" for proposal in proposals for weakness in weaknesses(proposal)]


def _check_lifetime(rekey: float, lifetime: float, complain: Complain) -> None:
    if lifetime and rekey and lifetime <= rekey:
        complain(
            ("lifetime",),
            "`lifetime` is not above `rekey`: the SA would end before it is renewed",
            f"write more than {rekey:g} seconds, or leave it out",
        )
