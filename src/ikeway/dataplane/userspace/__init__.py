"""ESP in a process of its own between a TUN device and UDP (or raw) sockets.

- `sharded`: `ShardedDataPlane`, what the daemon holds: one worker or several; `steering`: which packets are whose
- `plane`: a worker as the daemon sees it, kept going; `process`, `launch`: its process of now; `book`, `ledger`: what the
  next one has to know of its SAs
- `messages`, `codec`: what they say to each other
- `worker`: the process; `associations`: its SAs; `outgoing`, `incoming`: the two directions
- `sockets`: datagrams with chosen local addresses (the daemon uses them for port 500 too); `paths`: where ESP goes
- `tun_io`: the TUN device; `segments`, `merging`: its super-packets, cut and put together in batches
- `clamp`, `too_big`: what keeps packets small enough; `privileges`: what the worker gives up

Nothing is imported here: the worker is to start without asyncio.
"""
