"""Addresses, routes and rules as changes that the journal keeps."""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import ip_address, ip_interface, ip_network

from ikeway.host.interface import IpInterface
from ikeway.host.journal import Change
from ikeway.host.linux.links import add_address, delete_address
from ikeway.host.linux.netlink import Netlink
from ikeway.host.linux.routes import Route, RouteKind, Rule, RuleAction, add_route, add_rule, delete_route, delete_rule


@dataclass(frozen=True, slots=True)
class AddressAdded(Change):
    """An address on an interface."""

    interface: str
    address: str

    @classmethod
    def of(cls, interface: str, address: IpInterface) -> AddressAdded:
        """Make the record."""
        return cls(interface, str(address))

    async def make(self, others: tuple[Change, ...]) -> None:
        """Add it."""
        with Netlink() as nl:
            add_address(nl, self.interface, ip_interface(self.address))

    async def undo(self, others: tuple[Change, ...]) -> None:
        """Remove it."""
        with Netlink() as nl:
            delete_address(nl, self.interface, ip_interface(self.address))

    def __str__(self) -> str:
        """Say what it does."""
        return f"add address {self.address} to {self.interface}"


@dataclass(frozen=True, slots=True)
class RouteAdded(Change):
    """A route. The fields are those of `Route`."""

    table: int
    destination: str
    route_kind: int
    interface: str
    source: str
    metric: int = 0

    @classmethod
    def of(cls, route: Route) -> RouteAdded:
        """Make the record (routes with a next hop are none of ours)."""
        source = str(route.source or "")
        return cls(route.table, str(route.destination), route.kind, route.interface, source, route.metric)

    async def make(self, others: tuple[Change, ...]) -> None:
        """Add it."""
        with Netlink() as nl:
            add_route(nl, self._route())

    async def undo(self, others: tuple[Change, ...]) -> None:
        """Remove it."""
        with Netlink() as nl:
            delete_route(nl, self._route())

    def _route(self) -> Route:
        return Route(
            table=self.table,
            destination=ip_network(self.destination),
            kind=RouteKind(self.route_kind),
            interface=self.interface,
            source=ip_address(self.source) if self.source else None,
            metric=self.metric,
        )

    def __str__(self) -> str:
        """Say what it does."""
        how = f"through {self.interface}" if self.interface else RouteKind(self.route_kind).name.lower()
        return f"route {self.destination} {how} (table {self.table})"


@dataclass(frozen=True, slots=True)
class RuleAdded(Change):
    """A routing rule. The fields are those of `Rule`."""

    family: int
    priority: int
    action: int
    target: int
    destination: str
    protocol: int
    port: int
    mark: int = 0

    @classmethod
    def of(cls, rule: Rule) -> RuleAdded:
        """Make the record."""
        destination = str(rule.destination or "")
        return cls(
            rule.family, rule.priority, rule.action, rule.target, destination, rule.protocol, rule.port, rule.mark
        )

    async def make(self, others: tuple[Change, ...]) -> None:
        """Add it."""
        with Netlink() as nl:
            add_rule(nl, self._rule())

    async def undo(self, others: tuple[Change, ...]) -> None:
        """Remove it."""
        with Netlink() as nl:
            delete_rule(nl, self._rule())

    def _rule(self) -> Rule:
        return Rule(
            family=self.family,
            priority=self.priority,
            action=RuleAction(self.action),
            target=self.target,
            destination=ip_network(self.destination) if self.destination else None,
            protocol=self.protocol,
            port=self.port,
            mark=self.mark,
        )

    def __str__(self) -> str:
        """Say what it does."""
        what = f"to {self.destination} " if self.destination else f"with mark {self.mark:#x} " if self.mark else ""
        return f"add IPv{self.family} rule {self.priority} {what}{RuleAction(self.action).name.lower()} {self.target}"
