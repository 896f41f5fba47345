"""ESP (RFC 4303): packets, sequence numbers, replay windows. Pure: octets in, octets out."""
