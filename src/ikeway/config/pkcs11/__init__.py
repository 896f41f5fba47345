"""Keys that stay in a token: a smart card, a hardware module, or softhsm (PKCS#11). An extra: `ikeway[pkcs11]`."""
