"""The gateway: users, address pools, sessions, what an operator sees."""
