"""Ikeway: an IKEv2/IPsec VPN suite."""

__version__ = "0.1.0"
