"""Answers what the engine asks on behalf of a gateway: connections, secrets, addresses."""

from __future__ import annotations

import ipaddress
from collections.abc import Awaitable, Callable, Iterable, Sequence

from ikeway.address import Address
from ikeway.auth.identity import IdentityPattern
from ikeway.auth.questions import PskQuestion, SignQuestion
from ikeway.config.fields import IpAddress
from ikeway.daemon.loop import Driver
from ikeway.daemon.signing import sign
from ikeway.eap.questions import NewPassword, PasswordCheck, ResumptionQuestion, SecretQuestion
from ikeway.eap.sim_questions import GsmTripletsQuestion, SubscriberQuestion, UmtsVectorQuestion
from ikeway.errors import AuthenticationFailed, NegotiationFailed, Side
from ikeway.gateway.config import ClientSettings, GatewayConfig
from ikeway.gateway.passwords import PasswordDesk
from ikeway.gateway.placement import Placement
from ikeway.gateway.pools import AddressPools, Family
from ikeway.gateway.radius.grant import Grant
from ikeway.gateway.select import select_connection, settle_connection, user_matches
from ikeway.gateway.subscribers import SubscriberDesk
from ikeway.gateway.users import EVERYONE, User
from ikeway.ike.questions import AssignAddresses, SelectConnection, SettleConnection, Settled
from ikeway.ike.selectors import networks
from ikeway.ike.settings import Connection
from ikeway.wire.payloads import ConfigurationAttribute
from ikeway.wire.registry import ConfigurationAttributeType as Attribute
from ikeway.wire.registry import NotifyType


class GatewayAnswers:
    """What a gateway knows, as answers to questions. `pools` and `placement` outlive reloads of the configuration."""

    def __init__(self, config: GatewayConfig) -> None:
        self._config = config
        self.passwords = PasswordDesk(config.users)
        self.subscribers = SubscriberDesk(config.users)
        self.pools = AddressPools(config.pools, reserved=config.reserved)
        self.placement = Placement(config)
        self.on_routes_changed: Callable[[], Awaitable[None]] | None = None  # before the client hears of its address
        self.granted: Callable[[int], Grant | None] = lambda connection_id: None  # what RADIUS says of a client

    def serve_by(self, workers: int) -> None:
        """So many workers carry ESP. To be said before the first client comes."""
        self.pools.reconfigure(self._config.pools, reserved=self._config.reserved, workers=workers)
        self.placement.begin(self._config, workers)

    def reload(self, config: GatewayConfig) -> None:
        """Go on with another configuration; what clients hold stays theirs."""
        self._config = config
        self.passwords.reload(config.users)
        self.subscribers.reload(config.users)
        self.pools.reconfigure(config.pools, reserved=config.reserved)
        self.placement.reload(config, self.pools.held())

    def attach(self, driver: Driver) -> None:
        """Answer a driver's questions, all that can be answered out of the configuration and the users."""
        driver.answer_with(SelectConnection, self.select)
        driver.answer_with(SettleConnection, self.settled)
        driver.answer_with(SecretQuestion, self.passwords.secret)
        driver.answer_with(PasswordCheck, self.passwords.check)
        driver.answer_with(NewPassword, self.passwords.change)
        driver.answer_with(ResumptionQuestion, self.passwords.resumption)
        driver.answer_with(PskQuestion, self.psk)
        driver.answer_with(SignQuestion, sign)
        driver.answer_with(SubscriberQuestion, self.subscribers.known)
        driver.answer_with(UmtsVectorQuestion, self.subscribers.vector)
        driver.answer_with(GsmTripletsQuestion, self.subscribers.triplets)
        driver.answer_with(AssignAddresses, self.assign)

    async def settled(self, question: SettleConnection) -> Settled:
        """Whom the connection is for, as the users file says."""
        await self.refuse_disabled(question.identity.decode("utf-8", "replace"))
        self.admit(question)
        return Settled(question.connection)

    def release(self, connection_id: int) -> None:
        """A connection is gone."""
        self.pools.release(connection_id)
        self.placement.release(connection_id)

    def move(self, connection_id: int, remote: Address) -> None:
        """A connection goes on from another outer address."""
        self.pools.move(connection_id, remote)
        self.placement.move(connection_id, remote)

    async def select(self, question: SelectConnection) -> Connection:
        """Which agreement holds with this client."""
        connection = select_connection(self._config.candidates, question)
        if question.method is not None:  # who logs in by EAP is known later, and must not learn whom we know
            for identity in (question.initiator_identity, *question.claimed):  # no other name of a certificate helps
                await self.refuse_disabled(str(identity))
        return connection

    def admit(self, question: SettleConnection) -> None:
        """Whether the connection is for somebody who has passed EAP. Secrets are looked up for those only whom it is for;
        certificates prove who it is first. Raises `AuthenticationFailed`."""
        name = question.identity.decode("utf-8", "backslashreplace")
        candidate = next((each for each in self._config.candidates if each.name == question.connection.name), None)
        if candidate is None:
            raise _gone(question.connection)
        if candidate.login != "eap" or candidate.patterns == (IdentityPattern.ANY,):
            return
        if not user_matches(candidate.patterns, question.identity):
            raise AuthenticationFailed(
                f"{name!r} has logged in rightly, and the connection {candidate.name} is not for this user",
                notify=NotifyType.AUTHENTICATION_FAILED,
                expected=", ".join(map(str, candidate.patterns)),
                got=name,
                side=Side.LOCAL,
                remedy=f"add the user to `identities` of [connections.{candidate.name}]",
            )

    async def refuse_disabled(self, name: str) -> None:
        """Raise `AuthenticationFailed` for a user whom the users file does not let in."""
        user = await self._config.users.find(name)
        if user is not None and user.disabled:
            raise AuthenticationFailed(
                f"the user {user.name} is disabled",
                notify=NotifyType.AUTHENTICATION_FAILED,
                side=Side.LOCAL,
                remedy="remove `disabled` from the users file to let this user in",
            )

    async def psk(self, question: PskQuestion) -> bytes | None:
        """The pre-shared key of a client."""
        user = await self._config.users.find(str(question.remote_identity))
        if user is not None and user.disabled:
            return None
        if user is None or user.psk is None:
            user = await self._config.users.find(EVERYONE)
        return user.psk if user is not None and not user.disabled else None

    async def assign(self, question: AssignAddresses) -> tuple[ConfigurationAttribute, ...]:
        """The CFG_REPLY: addresses, name servers, what may be reached. Raises `NegotiationFailed`."""
        client = self._config.clients.get(question.connection.name)
        if client is None:
            raise _gone(question.connection)
        user = await self._config.users.find(question.name)
        grant = self.granted(question.connection_id)
        own = (grant.addresses if grant is not None else ()) or _own_addresses(user)
        reply = self._addresses(question, client, own)
        if self.placement.routes_have_changed and self.on_routes_changed is not None:
            await self.on_routes_changed()
        asked = {attribute.type for attribute in question.requested}
        reply += [
            ConfigurationAttribute(kind, server.packed)
            for server in (grant.dns if grant is not None else ()) or client.dns
            if (kind := _DNS[server.version]) in asked
        ]
        if Attribute.INTERNAL_DNS_DOMAIN in asked:
            reply += [ConfigurationAttribute(Attribute.INTERNAL_DNS_DOMAIN, name.encode()) for name in client.domains]
        reply += [attribute for attribute in _subnets(client) if attribute.type in asked]
        if Attribute.APPLICATION_VERSION in asked and self._config.application_version:
            version = self._config.application_version.encode()
            reply.append(ConfigurationAttribute(Attribute.APPLICATION_VERSION, version))
        return tuple(reply)

    def settle(self, selected: Connection, grant: Grant) -> Connection:
        """Which agreement holds with a client that RADIUS let in. Raises `AuthenticationFailed`."""
        groups = {name.casefold() for name in grant.groups}
        before = self._config.clients.get(selected.name)
        if before is None:
            raise _gone(selected)
        # Behind the first log-in, whatever another connection demands further is demanded then; behind a later one, that
        # has to be what was demanded already.
        proven = slice(1) if before.radius in before.logins[0] else slice(None)

        def suits(name: str) -> bool:
            """For such a group, and behind the same log-ins."""
            client = self._config.clients[name]
            wanted = {group.casefold() for group in client.groups}
            return (
                client.radius == grant.server
                and client.logins[proven] == before.logins[proven]
                and (not wanted or bool(wanted & groups))
            )

        return settle_connection(self._config.candidates, selected, grant.user.encode(), suits)

    def _addresses(
        self, question: AssignAddresses, client: ClientSettings, owned: Sequence[IpAddress]
    ) -> list[ConfigurationAttribute]:
        """One address of each family that is asked for and that there is; INTERNAL_ADDRESS_FAILURE when none is.

        The first one settles which worker serves the client; the second is one that leads there too.
        """
        reply: list[ConfigurationAttribute] = []
        refusal: NegotiationFailed | None = None
        workers = self.placement.preferred(question.connection.name, question.remote, owned)
        for family, kind in _ADDRESSES:
            wishes = [attribute for attribute in question.requested if attribute.type == kind]
            own = next((each for each in owned if each.version == family), None)
            if not wishes or not (own is not None or self.pools.has_family(client.pools, family)):
                continue
            try:
                lease = self.pools.lease(
                    client.pools,
                    family,
                    question.name.casefold(),
                    question.remote,
                    question.connection_id,
                    wanted=_wish(wishes[0].value, family),
                    own=own,
                    workers=workers,
                )
            except NegotiationFailed as error:
                refusal = error
                continue
            if not reply:
                workers = self.placement.settle(question.connection_id, workers, lease.address, question.remote)
            self.placement.lead(lease.address, workers[0])
            prefix = b"" if family == 4 else b"\x80"
            reply.append(ConfigurationAttribute(kind, lease.address.packed + prefix))
        if not reply and refusal is not None:
            raise refusal
        return reply


def _gone(connection: Connection) -> AuthenticationFailed:
    """A log-in that began under a configuration which had this connection."""
    return AuthenticationFailed(
        f"there is no connection {connection.name} any more",
        notify=NotifyType.AUTHENTICATION_FAILED,
        side=Side.LOCAL,
        remedy="log in again",
    )


_DNS = {4: Attribute.INTERNAL_IP4_DNS, 6: Attribute.INTERNAL_IP6_DNS}
_ADDRESSES: tuple[tuple[Family, Attribute], ...] = (
    (4, Attribute.INTERNAL_IP4_ADDRESS),
    (6, Attribute.INTERNAL_IP6_ADDRESS),
)


def _own_addresses(user: User | None) -> tuple[IpAddress, ...]:
    return tuple(each for each in (user.ipv4, user.ipv6) if each is not None) if user is not None else ()


def _wish(value: bytes, family: Family) -> IpAddress | None:
    """The address that a request names; None when it names none (or 0.0.0.0, as some clients write that)."""
    octets = value[: 4 if family == 4 else 16]
    if len(octets) != (4 if family == 4 else 16) or not any(octets):
        return None
    return ipaddress.ip_address(octets)


def _subnets(client: ClientSettings) -> Iterable[ConfigurationAttribute]:
    """INTERNAL_IP4_SUBNET (address and mask) and INTERNAL_IP6_SUBNET (address and prefix length)."""
    for network in networks(client.subnets):
        if isinstance(network, ipaddress.IPv4Network):
            yield ConfigurationAttribute(
                Attribute.INTERNAL_IP4_SUBNET, network.network_address.packed + network.netmask.packed
            )
        else:
            yield ConfigurationAttribute(
                Attribute.INTERNAL_IP6_SUBNET, network.network_address.packed + bytes([network.prefixlen])
            )
