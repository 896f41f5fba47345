"""Whose vendor ID is this (RFC 7296 section 3.12). For people only: no decision may rest on a vendor ID alone."""

from __future__ import annotations

import hashlib


def _md5(text: str) -> bytes:
    # Not for security: many vendor IDs are the MD5 of a phrase.
    return hashlib.md5(text.encode(), usedforsecurity=False).digest()


MICROSOFT = _md5("MS NT5 ISAKMPOAKLEY")
"""Followed by a version of four octets."""

_WINDOWS_VERSIONS = {
    2: "Windows 2000",
    3: "Windows XP SP1",
    4: "Windows Server 2003 or XP SP2",
    5: "Windows Vista",
    6: "Windows Server 2008",
    7: "Windows 7",
    8: "Windows Server 2008 R2",
    9: "Windows 8 or later",
}

# Prefixes: what follows is a version or an option. The first that fits counts.
_PREFIXES: tuple[tuple[bytes, str], ...] = (
    (_md5("strongSwan"), "strongSwan"),
    (_md5("FRAGMENTATION"), "IKE fragmentation (Cisco)"),
    (_md5("MS-Negotiation Discovery Capable"), "Microsoft: negotiation discovery"),
    (_md5("Vid-Initial-Contact"), "Microsoft: initial contact"),
    (_md5("IKE CGA version 1"), "Microsoft: IKE CGA version 1"),
    (_md5("MS-MamieExists"), "Microsoft: MS-MamieExists"),
    (_md5("GSSAPI"), "Microsoft: GSS-API"),
    (_md5("RFC 3947"), "NAT traversal (RFC 3947, IKEv1)"),
    (bytes.fromhex("12f5f28c457168a9702d9fe274cc"), "Cisco Unity"),
    (bytes.fromhex("afcad71368a1f1c96b8696fc7757"), "dead peer detection (RFC 3706, IKEv1)"),
    (bytes.fromhex("09002689dfd6b712"), "XAUTH (IKEv1)"),
    (bytes.fromhex("1f07f70eaa6514d3b0fa96542a50"), "Cisco VPN 3000"),
    (bytes.fromhex("f4ed19e0c114eb516faaac0ee37daf2807b4381f"), "Check Point"),
    (bytes.fromhex("01528bbbc00696121849ab9a1c5b2a51"), "Microsoft Windows (of unknown meaning)"),
    (bytes.fromhex("8299031757a36082c6a621de"), "Fortinet FortiGate"),
    (bytes.fromhex("4c53427b6d465d1b337bb755a37a7fef"), "FortiClient: connect license"),
    (_md5("Fortinet Endpoint Control"), "FortiClient: endpoint control"),
    (_md5("Forticlient EAP Extension"), "FortiClient: EAP extension"),
    (bytes.fromhex("1d6e178f6c2c0be284985465450fe9d4"), "Fortinet FortiGate"),
    (bytes.fromhex("5b362bc820f6"), "SonicWall"),
    (bytes.fromhex("404bf439522ca3f6"), "SonicWall"),
    (b"CISCO-DELETE-REASON", "Cisco: delete reason"),
    (b"CISCO(COPYRIGHT)", "Cisco"),
    (b"CISCO-GRE-MODE", "Cisco: GRE mode"),
    (b"CISCO-DYNAMIC-ROUTE", "Cisco: dynamic route"),
    (b"CISCOVPN-REV-02", "Cisco: VPN revision 2"),
    (b"FLEXVPN-SUPPORTED", "Cisco: FlexVPN"),
    (b"CISCO-ANYCONNECT-EAP", "Cisco: AnyConnect EAP"),
    (b"CISCO-ANYCONNECT-STRAP", "Cisco: AnyConnect STRAP"),
    (b"CISCO-NGE-LEVEL", "Cisco: next generation encryption"),
    (b"OpenIKED", "OpenIKED"),
    (b"Libreswan", "Libreswan"),
    (b"OE-Libreswan", "Libreswan"),
    (b"OE", "Openswan or Libreswan"),  # ten characters that stand for the build follow
)


def vendor_name(value: bytes) -> str | None:
    """The product or feature that sends this vendor ID; None when it is not in the table."""
    if value.startswith(MICROSOFT):
        version = int.from_bytes(value[16:20]) if len(value) >= 20 else 0
        return f"Microsoft {_WINDOWS_VERSIONS.get(version, 'Windows')}"
    for prefix, name in _PREFIXES:
        if value.startswith(prefix):
            return name
    return None


# Numbers of the private ranges (RFC 7296 sections 3.10.1 and 3.15.1): with these vendors they mean this.
_ATTRIBUTES = {
    28672: "Cisco Unity: banner",
    28673: "Cisco Unity: save password",
    28674: "Cisco Unity: default domain",
    28675: "Cisco Unity: split DNS",
    28676: "Cisco Unity: split include",
    28677: "Cisco Unity: NAT-T port",
    28678: "Cisco Unity: split exclude",
    28679: "Cisco Unity: PFS",
    28680: "Cisco Unity: firewall",
    28681: "Cisco Unity: backup servers",
    28682: "Cisco Unity: dynamic DNS name",
}
_NOTIFIES = {61520: "Fortinet: network id", 61696: "FortiClient: connect"}


def private_attribute(number: int) -> str | None:
    """What a configuration attribute of the private range means with the vendor that is known to use it."""
    return _ATTRIBUTES.get(number)


def private_notify(number: int) -> str | None:
    """What a notify of the private range means with the vendor that is known to use it."""
    return _NOTIFIES.get(number)
