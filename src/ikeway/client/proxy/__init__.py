"""Proxies on the host's loopback whose traffic goes through a tunnel (`ikeway proxy`): SOCKS5 and HTTP.

They are asyncio servers that know nothing of tunnels: a `WayOut` makes their sockets and looks their names up, which an
enclave does (`ikeway.client.enclave`). What a client may cost is bounded in one place, `server`: connections, the time
until a request is complete, octets of a request, octets that wait for a slow reader.
"""
