"""The IKEv2 engine (RFC 7296), both roles, pure: octets, time and answers in; octets, timers and events out.

`Engine` is what a user drives; `IkeSa` is what its events speak of; `settings` says what a connection may be.
"""
