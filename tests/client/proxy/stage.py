"""A proxy with loopback as the way out, and a server behind it."""

import asyncio
import os
import socket
import struct

from ikeway.client.proxy.http import HttpProxy
from ikeway.client.proxy.server import Limits, ProxyServer
from ikeway.client.proxy.socks import SocksProxy
from ikeway.client.proxy.users import ProxyUsers
from ikeway.errors import PeerUnreachable

HOST = "127.0.0.1"
USERS = ProxyUsers({b"ann": b"open sesame"})


class Loopback:
    """A way out that leads to this host; names are those it knows."""

    def __init__(self):
        self.names = {"db1.test": HOST}
        self.refusal = 0

    async def resolve(self, host):
        if host in (HOST, "::1"):
            return [host]
        if host not in self.names:
            raise PeerUnreachable("no such name")
        return [self.names[host]]

    async def new_socket(self, host="", *, datagrams=False):
        made = socket.socket(type=socket.SOCK_DGRAM if datagrams else socket.SOCK_STREAM)
        made.setblocking(False)
        return made

    async def connect(self, host, port):
        (address,) = await self.resolve(host)
        if self.refusal:
            raise PeerUnreachable("no") from OSError(self.refusal, os.strerror(self.refusal))
        made = await self.new_socket()
        try:
            await asyncio.get_running_loop().sock_connect(made, (address, port))
        except OSError as error:
            made.close()
            raise PeerUnreachable("no") from error
        return made


class Stage:
    """A proxy and a server that says what it is told."""

    def __init__(self, kind, users=None, **limits):
        self.way_out = Loopback()
        self.limits = Limits(**limits)
        proxy = {"socks": SocksProxy, "http": HttpProxy}[kind](self.way_out, users, self.limits)
        self.proxy = ProxyServer(kind, proxy.serve, self.limits)
        self.heard = []
        self.serve = self.echo

    async def __aenter__(self):
        self.port = await self.proxy.start(HOST, 0)
        self.server = await asyncio.start_server(lambda *streams: self.serve(*streams), HOST, 0)
        self.there = self.server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_):
        self.server.close()
        await self.proxy.close()

    async def echo(self, reader, writer):
        """Says everything again once all is said: shows that half-closed connections stay so."""
        whole = await reader.read()
        self.heard.append(whole)
        writer.write(whole)
        await writer.drain()
        writer.close()

    async def connect(self):
        return await asyncio.open_connection(HOST, self.port)

    async def asked(self, octets):
        """Everything that the proxy says to these octets, said at once, until it closes."""
        reader, writer = await self.connect()
        writer.write(octets)
        said = await reader.read()
        writer.close()
        return said


GREETING = b"\5\1\0"


def request(host, port, command=1):
    if isinstance(host, bytes):
        return struct.pack("!BBBBB", 5, command, 0, 3, len(host)) + host + struct.pack("!H", port)
    return struct.pack("!BBBB", 5, command, 0, 1) + socket.inet_aton(host) + struct.pack("!H", port)
