"""IKE messages: octets <-> immutable values; the IANA registries (RFC 7296 section 3)."""
