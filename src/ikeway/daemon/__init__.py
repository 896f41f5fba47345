"""Where the pure engine meets the world: sockets, timers, credentials, logs and the control socket."""
