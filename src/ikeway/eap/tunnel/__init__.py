"""What the methods that are built on TLS share: TLS on octets, its framing in EAP, whom it trusts, and its keys."""
