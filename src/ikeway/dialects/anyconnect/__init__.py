"""Cisco AnyConnect-EAP over IKEv2, client and gateway. What is known of it, and from where: docs/anyconnect.md.

Nothing here was tried against Cisco's products: their octets are known from one other implementation and from the SSL
variant of the protocol. `options` has a setting for each thing that is not certain.
"""
