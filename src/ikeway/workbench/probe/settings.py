"""How a gateway is asked, and which one: a single host, never a range."""

from __future__ import annotations

import ipaddress
import re
import socket
from dataclasses import dataclass

from ikeway.errors import ConfigError, HostError

MAX_RATE = 50.0
_RANGE = re.compile(r"[\d.*]*[-*][\d.*]*|[0-9a-fA-F:]*:[0-9a-fA-F:]*[-*][0-9a-fA-F:*]*")


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbeSettings:
    """`rate` is questions a second at the most, `patience` the seconds to wait for an answer before the round-trip time
    is known. `identity` is who we say we are when the gateway is asked for its certificate; `transforms` and
    `authentication` say whether those questions are asked at all."""

    port: int = 500
    nat_port: int = 4500
    rate: float = 10.0
    patience: float = 2.0
    identity: str = "probe@ikeway.invalid"
    transforms: bool = True
    authentication: bool = True

    def __post_init__(self) -> None:
        """Refuse what would be a flood, or no question at all."""
        if not 0 < self.rate <= MAX_RATE:
            raise ConfigError(
                f"{self.rate:g} questions a second",
                expected=f"more than 0, at most {MAX_RATE:g}",
                remedy="a probe is for looking, not for load: `ikeway bench` measures",
            )
        if not 0 < self.patience <= 60:
            raise ConfigError(f"a patience of {self.patience:g} s", expected="more than 0, at most 60")


def one_host(text: str) -> str:
    """The host that `text` names. Raises `ConfigError` for networks, ranges, several hosts and no single machine."""
    word = text.strip()
    if "/" in word:
        raise _refusal(text, "a network")
    if "," in word or len(word.split()) > 1:
        raise _refusal(text, "several hosts")
    if _RANGE.fullmatch(word):
        raise _refusal(text, "a range of addresses")
    if not word:
        raise _refusal(text, "no host")
    try:
        address = ipaddress.ip_address(word.removeprefix("[").removesuffix("]").partition("%")[0])
    except ValueError:
        return word
    if address.is_multicast or address.is_unspecified or str(address) == "255.255.255.255":
        raise _refusal(text, "not the address of one machine")
    return str(address)


def resolve(host: str) -> tuple[str, ...]:
    """The addresses of a host, the first is the one to ask. Raises `HostError` when it has none."""
    try:
        found = socket.getaddrinfo(host, 500, type=socket.SOCK_DGRAM)
    except (OSError, UnicodeError) as error:
        raise HostError(
            f"{host} has no address: {getattr(error, 'strerror', None) or error}",
            remedy="check the spelling, and the name server of this host",
        ) from None
    return tuple(dict.fromkeys(one_host(str(entry[4][0])) for entry in found))


def _refusal(text: str, what: str) -> ConfigError:
    return ConfigError(
        f"{text!r} is {what}",
        expected="one host, by name or address",
        remedy="probe each gateway that you are responsible for by itself; Ikeway does not scan",
    )
