"""Every vector that strongSwan has is either used or named here, with the reason why not."""

from collections import Counter

import pytest

from tests.crypto import vector_files as files

USED = {
    *files.ENCRYPTION,
    *files.INTEGRITY,
    *files.PRF,
    *files.KEY_EXCHANGE,
    *files.KEM,
    *files.DERIVATION,
}

NOT_OURS = {
    "ENCR_AES_CFB": "no transform of IKEv2",
    "ENCR_AES_ECB": "no transform of IKEv2",
    "ENCR_BLOWFISH": "blocks of 64 bits, out of use",
    "ENCR_CAMELLIA_CBC": "out of use; nothing that AES does not give",
    "ENCR_CAMELLIA_CTR": "out of use; nothing that AES does not give",
    "ENCR_CAST": "blocks of 64 bits, out of use",
    "ENCR_DES": "keys of 56 bits",
    "ENCR_DES_ECB": "no transform of IKEv2",
    "ENCR_IDEA": "blocks of 64 bits, out of use",
    "ENCR_RC2_CBC": "no transform of IKEv2",
    "ENCR_RC5": "out of use",
    "ENCR_SERPENT_CBC": "no IANA number",
    "ENCR_TWOFISH_CBC": "no IANA number",
    "AUTH_CAMELLIA_XCBC_96": "no IANA number",
    "PRF_CAMELLIA128_XCBC": "no IANA number",
    "AUTH_HMAC_MD5_128": "for Fibre Channel (RFC 4595)",
    "AUTH_HMAC_SHA1_128": "no IANA number",
    "AUTH_HMAC_SHA1_160": "for Fibre Channel (RFC 4595)",
    "PRF_FIPS_SHA1_160": "no transform of IKEv2: EAP-SIM and EAP-AKA use it",
    "ECP_192_BIT": "80 bits of security (RFC 8247 forbids less than 112)",
    "ECP_224_BIT": "out of use",
    "ECP_224_BP": "out of use",
    "MODP_768_BIT": "broken",
    "MODP_1024_160": "RFC 8247 forbids it: primes of unknown origin (RFC 5114)",
    "MODP_2048_224": "RFC 8247 advises against it: primes of unknown origin (RFC 5114)",
    "MODP_2048_256": "RFC 8247 advises against it: primes of unknown origin (RFC 5114)",
    "ML_KEM_512": "`cryptography` has ML-KEM-768 and -1024 only",
    "HASH_MD4": "a hash, not a transform",
    "HASH_MD5": "a hash, not a transform",
    "HASH_SHA1": "a hash, not a transform",
    "HASH_SHA224": "a hash, not a transform",
    "HASH_SHA256": "a hash, not a transform",
    "HASH_SHA384": "a hash, not a transform",
    "HASH_SHA512": "a hash, not a transform",
    "HASH_SHA3_224": "a hash, not a transform",
    "HASH_SHA3_256": "a hash, not a transform",
    "HASH_SHA3_384": "a hash, not a transform",
    "HASH_SHA3_512": "a hash, not a transform",
    "XOF_CHACHA20": "a random generator, not a transform",
    "XOF_SHAKE_128": "a random generator, not a transform",
    "XOF_SHAKE_256": "a random generator, not a transform",
    "drbg_ctr": "a random generator, not a transform",
    "drbg_hmac": "a random generator, not a transform",
    "rng": "a random generator, not a transform",
}


def test_every_vector_is_used_or_named():
    found = {one.algorithm for one in files.ALL}
    assert found == USED | NOT_OURS.keys()
    assert not USED & NOT_OURS.keys()
    counts = Counter(one.algorithm in USED for one in files.ALL)
    assert (counts[True], counts[False]) == (159, 193)


@pytest.mark.parametrize("name", [name for name in NOT_OURS if name.startswith(("ENCR_", "AUTH_", "PRF_"))])
def test_what_is_named_is_really_not_there(name):
    from ikeway.crypto import encryption_algorithms, integrity_algorithms, pseudorandom_functions

    ours = {str(algorithm) for algorithm, _ in encryption_algorithms()}
    ours |= {str(algorithm) for algorithm in (*integrity_algorithms(), *pseudorandom_functions())}
    assert name not in ours
