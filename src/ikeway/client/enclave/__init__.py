"""Enclaves: a user, network and mount namespace in which the VPN is the only way out (`ikeway run`, `ikeway proxy`).

Theory of operation. Two processes share the work. The **engine** stays in the host's network, where it has the UDP
sockets of IKE and ESP; it is the client as `ikeway up` has it. The **keeper** goes inside. It makes there what can only
be made inside, and hands it out as descriptors: the TUN device, which the engine's data plane then reads and writes,
and sockets, which keep belonging to the namespace that they were made in, whoever uses them. So port forwarding and
proxies are ordinary asyncio code in the engine, and the keeper is small: one thread, one loop, no packets.

The keeper also starts the command and is its parent. It is a subreaper: what the command leaves behind becomes the
keeper's child and is ended with it. A PID namespace would do the same, but the command would see other process numbers
than the rest of the session (`kill`, `gdb -p`, lock files with numbers in them), and /proc could not be mounted anew
in containers.

In the enclave is no interface but loopback and the TUN device. Without the tunnel there is nowhere to send to: no rule
has to hold for that. When the engine dies the device goes with it, and the keeper ends what runs inside.

With `ikeway run`, the process that the shell has started is the keeper, and the engine its child. So the shell's job is
the command's: both are in the same process group, the kernel sends the terminal's signals to the command itself, and
Ctrl-Z stops the command but not the engine, which goes on answering the gateway.
"""
