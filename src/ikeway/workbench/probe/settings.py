"""How a gateway is asked, and which one: a single host, never a range."""

from __future__ import annotations

import ipaddress
import re
import socket
from dataclasses import dataclass
from typing import Any

from ikeway.auth.identity import Identity
from ikeway.errors import ConfigError, HostError

MAX_RATE = 50.0
_DASHES = "-\u2010\u2011\u2012\u2013\u2014\u2015\u2212~"
_RANGE = re.compile(
    rf"[\d.]+(?:[{_DASHES}]|\.\.)[\d.]+|[\d.]*\*[\d.*]*|[0-9a-fA-F:]*:[0-9a-fA-F:]*[*{_DASHES}][0-9a-fA-F:*]*"
)
_WITH_PORT = re.compile(r"(\[[^\]]*\]|[^:]*):(\d{1,5})")
_PATTERNS = "*?[]{}"
_SEPARATORS = ",;|"


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbeSettings:
    """`rate` is datagrams a second at the most, `patience` the seconds to wait for an answer before the round-trip time
    is known. `identity` is who we say we are when the gateway is asked for its certificate; `transforms`,
    `authentication` and `ikev1` say whether those questions are asked at all."""

    port: int = 500
    nat_port: int = 4500
    rate: float = 10.0
    patience: float = 2.0
    identity: str = "probe@ikeway.invalid"
    transforms: bool = True
    authentication: bool = True
    ikev1: bool = True

    def __post_init__(self) -> None:
        """Refuse what would be a flood, or no question at all."""
        if not 0 < self.rate <= MAX_RATE:
            raise ConfigError(
                f"{self.rate:g} datagrams a second",
                expected=f"more than 0, at most {MAX_RATE:g}",
                remedy="a probe is for looking, not for load: `ikeway bench` measures",
            )
        if not 0 < self.patience <= 60:
            raise ConfigError(f"a patience of {self.patience:g} s", expected="more than 0, at most 60")
        if self.port == self.nat_port:
            raise ConfigError(
                f"port {self.port} for both",
                expected="a port for IKE, and another for NAT traversal",
                remedy="leave them out for 500 and 4500, which are both asked",
            )
        Identity.parse(self.identity)

    @property
    def seconds_for_transforms(self) -> float:
        """After which no further transform is asked for: a gateway may take its time for each, and there are many."""
        return 300 + 200 / self.rate


def one_host(text: str) -> str:
    """The host that `text` names. Raises `ConfigError` for networks, ranges, several hosts and no single machine."""
    word = text.strip()
    if not word:
        raise _refusal(text, "no host")
    try:
        return _one_address(text, word.removeprefix("[").removesuffix("]"))
    except ValueError:
        pass
    if "/" in word:
        raise _refusal(text, "no host name" if "://" in word else "a network")
    if any(each in word for each in _SEPARATORS) or len(word.split()) > 1:
        raise _refusal(text, "several hosts")
    if (port := _WITH_PORT.fullmatch(word)) is not None:
        raise ConfigError(f"{text!r} has a port", expected="a host alone", remedy=f"say `--port {port[2]}`")
    if _RANGE.fullmatch(word):
        raise _refusal(text, "a range of addresses")
    if any(each in word for each in _PATTERNS) or ".." in word:
        raise _refusal(text, "a pattern for several hosts")
    if not all(each.isalnum() or each in "-._" for each in word):
        raise _refusal(text, "no host name")
    return word


def _one_address(text: str, word: str) -> str:
    """A single machine's address, with the zone of a link-local one. Raises `ValueError` for what is no address."""
    address = ipaddress.ip_address(word)
    plain = getattr(address, "ipv4_mapped", None) or address
    if plain.is_multicast or plain.is_unspecified or str(plain) == "255.255.255.255":
        raise _refusal(text, "not the address of one machine")
    if address.is_link_local and address.version == 6 and not getattr(address, "scope_id", None):
        raise ConfigError(f"{text!r} is on every link", expected="the interface behind it, as in fe80::1%eth0")
    return str(plain)


def resolve(host: str) -> tuple[str, ...]:
    """The addresses of a host, the first is the one to ask first. Raises `HostError` when it has none."""
    try:
        found = socket.getaddrinfo(host, 500, type=socket.SOCK_DGRAM)
    except (OSError, UnicodeError) as error:
        raise HostError(
            f"{host} has no address: {getattr(error, 'strerror', None) or error}",
            remedy="check the spelling, and the name server of this host",
        ) from None
    return tuple(dict.fromkeys(one_host(_with_zone(entry[4])) for entry in found))


def _with_zone(address: tuple[Any, ...]) -> str:
    """The host of a socket address; that of IPv6 has the index of a link-local one's interface last."""
    host, index = str(address[0]).partition("%")[0], address[3] if len(address) == 4 else 0
    return f"{host}%{socket.if_indextoname(index)}" if index else host


def _refusal(text: str, what: str) -> ConfigError:
    return ConfigError(
        f"{text!r} is {what}",
        expected="one host, by name or address",
        remedy="probe each gateway that you are responsible for by itself; Ikeway does not scan",
    )
