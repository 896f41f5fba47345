"""The IANA registries "Internet Key Exchange Version 2 (IKEv2) Parameters", by the registry's names.

Every registry is open: a number that has no name here gives a value of the same class, equal to its integer, whose
name is `UNKNOWN_<number>`. Such values are made anew each time, so a peer cannot fill a cache with them; compare with
`==`, never with `is`.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Self, TypeVar

LARGEST_NUMBER = 0xFFFF  # no registry of IKEv2 has wider numbers


class Registry(IntEnum):
    """An open registry of numbers."""

    @classmethod
    def _missing_(cls, value: object) -> Self | None:
        if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= LARGEST_NUMBER:
            return None
        number = int(value)  # of another registry, maybe
        unknown = int.__new__(cls, number)
        unknown._name_ = f"UNKNOWN_{number}"
        unknown._value_ = number
        return unknown

    @property
    def is_known(self) -> bool:
        """True when the number has a name in this table."""
        return self._value_ in type(self)._value2member_map_

    def __str__(self) -> str:
        """Return the name."""
        return self._name_

    def __format__(self, spec: str) -> str:
        """Format the name, or the number where the specification is one of an integer (`:d`, `:04x`)."""
        return int.__format__(self, spec) if spec[-1:] in "bcdnoxX" and spec else format(self._name_, spec)


Member = TypeVar("Member", bound=Registry)


class Numbers(dict[int, Member]):
    """Number -> member of one registry, faster than calling the class. Unknown numbers are made, not kept."""

    def __init__(self, registry: type[Member]) -> None:
        super().__init__((int(member), member) for member in registry)
        self.registry = registry

    def __missing__(self, number: int) -> Member:
        """Make a value without a name."""
        return self.registry(number)


class ExchangeType(Registry):
    """IKEv2 exchange types (RFC 7296 section 3.1)."""

    IKE_SA_INIT = 34
    IKE_AUTH = 35
    CREATE_CHILD_SA = 36
    INFORMATIONAL = 37
    IKE_SESSION_RESUME = 38  # RFC 5723
    GSA_AUTH = 39  # 39 to 42: RFC 9838
    GSA_REGISTRATION = 40
    GSA_REKEY = 41
    GSA_INBAND_REKEY = 42
    IKE_INTERMEDIATE = 43  # RFC 9242
    IKE_FOLLOWUP_KE = 44  # RFC 9370


class PayloadType(Registry):
    """IKEv2 payload types (RFC 7296 section 3.2), by their notation."""

    NONE = 0
    SA = 33
    KE = 34
    IDI = 35
    IDR = 36
    CERT = 37
    CERTREQ = 38
    AUTH = 39
    NONCE = 40
    NOTIFY = 41
    DELETE = 42
    VENDOR_ID = 43
    TSI = 44
    TSR = 45
    SK = 46
    CP = 47
    EAP = 48
    GSPM = 49  # RFC 6467
    IDG = 50  # 50 to 52: RFC 9838
    GSA = 51
    KD = 52
    SKF = 53  # RFC 7383
    PS = 54  # RFC 8019


class ProtocolId(Registry):
    """Security protocol identifiers (RFC 7296 section 3.3.1). NONE stands where a Notify names no SA."""

    NONE = 0
    IKE = 1
    AH = 2
    ESP = 3
    FC_ESP_HEADER = 4  # RFC 4595
    FC_CT_AUTHENTICATION = 5  # RFC 4595
    GIKE_UPDATE = 6  # RFC 9838


class TransformType(Registry):
    """Transform types (RFC 7296 section 3.3.2)."""

    ENCR = 1
    PRF = 2
    INTEG = 3
    KE = 4  # "D-H" before RFC 9370
    ESN = 5  # "Sequence Numbers (SN)" since RFC 9827
    ADDKE1 = 6  # 6 to 12: RFC 9370
    ADDKE2 = 7
    ADDKE3 = 8
    ADDKE4 = 9
    ADDKE5 = 10
    ADDKE6 = 11
    ADDKE7 = 12
    KWA = 13  # 13, 14: RFC 9838
    GCAUTH = 14


class EncryptionAlgorithm(Registry):
    """Transform type 1."""

    ENCR_DES_IV64 = 1
    ENCR_DES = 2
    ENCR_3DES = 3
    ENCR_RC5 = 4
    ENCR_IDEA = 5
    ENCR_CAST = 6
    ENCR_BLOWFISH = 7
    ENCR_3IDEA = 8
    ENCR_DES_IV32 = 9
    ENCR_NULL = 11
    ENCR_AES_CBC = 12
    ENCR_AES_CTR = 13
    ENCR_AES_CCM_8 = 14
    ENCR_AES_CCM_12 = 15
    ENCR_AES_CCM_16 = 16
    ENCR_AES_GCM_8 = 18
    ENCR_AES_GCM_12 = 19
    ENCR_AES_GCM_16 = 20
    ENCR_NULL_AUTH_AES_GMAC = 21
    ENCR_CAMELLIA_CBC = 23
    ENCR_CAMELLIA_CTR = 24
    ENCR_CAMELLIA_CCM_8 = 25
    ENCR_CAMELLIA_CCM_12 = 26
    ENCR_CAMELLIA_CCM_16 = 27
    ENCR_CHACHA20_POLY1305 = 28
    ENCR_AES_CCM_8_IIV = 29  # 29 to 31: RFC 8750
    ENCR_AES_GCM_16_IIV = 30
    ENCR_CHACHA20_POLY1305_IIV = 31
    ENCR_KUZNYECHIK_MGM_KTREE = 32  # 32 to 35: RFC 9227
    ENCR_MAGMA_MGM_KTREE = 33
    ENCR_KUZNYECHIK_MGM_MAC_KTREE = 34
    ENCR_MAGMA_MGM_MAC_KTREE = 35


class PseudorandomFunction(Registry):
    """Transform type 2."""

    PRF_HMAC_MD5 = 1
    PRF_HMAC_SHA1 = 2
    PRF_HMAC_TIGER = 3
    PRF_AES128_XCBC = 4
    PRF_HMAC_SHA2_256 = 5
    PRF_HMAC_SHA2_384 = 6
    PRF_HMAC_SHA2_512 = 7
    PRF_AES128_CMAC = 8
    PRF_HMAC_STREEBOG_512 = 9


class IntegrityAlgorithm(Registry):
    """Transform type 3."""

    NONE = 0
    AUTH_HMAC_MD5_96 = 1
    AUTH_HMAC_SHA1_96 = 2
    AUTH_DES_MAC = 3
    AUTH_KPDK_MD5 = 4
    AUTH_AES_XCBC_96 = 5
    AUTH_HMAC_MD5_128 = 6
    AUTH_HMAC_SHA1_160 = 7
    AUTH_AES_CMAC_96 = 8
    AUTH_AES_128_GMAC = 9
    AUTH_AES_192_GMAC = 10
    AUTH_AES_256_GMAC = 11
    AUTH_HMAC_SHA2_256_128 = 12
    AUTH_HMAC_SHA2_384_192 = 13
    AUTH_HMAC_SHA2_512_256 = 14


class KeyExchangeMethod(Registry):
    """Transform type 4, and 6 to 12 (RFC 9370)."""

    NONE = 0
    MODP_768 = 1
    MODP_1024 = 2
    MODP_1536 = 5
    MODP_2048 = 14
    MODP_3072 = 15
    MODP_4096 = 16
    MODP_6144 = 17
    MODP_8192 = 18
    ECP_256 = 19
    ECP_384 = 20
    ECP_521 = 21
    MODP_1024_160 = 22  # 22 to 24: with a prime order subgroup of so many bits, RFC 5114
    MODP_2048_224 = 23
    MODP_2048_256 = 24
    ECP_192 = 25
    ECP_224 = 26
    BRAINPOOL_P224R1 = 27  # 27 to 30: RFC 6954
    BRAINPOOL_P256R1 = 28
    BRAINPOOL_P384R1 = 29
    BRAINPOOL_P512R1 = 30
    CURVE25519 = 31  # RFC 8031
    CURVE448 = 32  # RFC 8031
    GOST3410_2012_256 = 33  # RFC 9385
    GOST3410_2012_512 = 34  # RFC 9385
    ML_KEM_512 = 35
    ML_KEM_768 = 36
    ML_KEM_1024 = 37


class ExtendedSequenceNumbers(Registry):
    """Transform type 5."""

    NO = 0
    YES = 1
    UNSPECIFIED_32_BIT = 2  # RFC 9827


class TransformAttributeType(Registry):
    """Transform attribute types (RFC 7296 section 3.3.5)."""

    KEY_LENGTH = 14
    SIGNATURE_ALGORITHM_IDENTIFIER = 18  # RFC 9838


class IdentificationType(Registry):
    """Identification payload ID types (RFC 7296 section 3.5)."""

    ID_IPV4_ADDR = 1
    ID_FQDN = 2
    ID_RFC822_ADDR = 3
    ID_IPV6_ADDR = 5
    ID_DER_ASN1_DN = 9
    ID_DER_ASN1_GN = 10
    ID_KEY_ID = 11
    ID_FC_NAME = 12  # RFC 4595
    ID_NULL = 13  # RFC 7619


class CertificateEncoding(Registry):
    """Certificate encodings (RFC 7296 section 3.6)."""

    PKCS7_WRAPPED_X509 = 1
    PGP = 2
    DNS_SIGNED_KEY = 3
    X509_SIGNATURE = 4
    KERBEROS_TOKEN = 6
    CRL = 7
    ARL = 8
    SPKI = 9
    X509_ATTRIBUTE = 10
    RAW_RSA_KEY = 11  # deprecated by RFC 7670
    HASH_AND_URL_X509 = 12
    HASH_AND_URL_BUNDLE = 13
    OCSP_CONTENT = 14  # RFC 4806
    RAW_PUBLIC_KEY = 15  # RFC 7670


class AuthenticationMethod(Registry):
    """Authentication methods (RFC 7296 section 3.8)."""

    RSA_DIGITAL_SIGNATURE = 1
    SHARED_KEY_MIC = 2
    DSS = 3
    ECDSA_SHA256_P256 = 9  # 9 to 11: RFC 4754
    ECDSA_SHA384_P384 = 10
    ECDSA_SHA512_P521 = 11
    GENERIC_SECURE_PASSWORD = 12  # RFC 6467
    NULL = 13  # RFC 7619
    DIGITAL_SIGNATURE = 14  # RFC 7427


class HashAlgorithm(Registry):
    """Hash algorithms of SIGNATURE_HASH_ALGORITHMS (RFC 7427 section 7)."""

    SHA1 = 1
    SHA2_256 = 2
    SHA2_384 = 3
    SHA2_512 = 4
    IDENTITY = 5  # RFC 8420
    STREEBOG_256 = 6  # 6, 7: RFC 9385
    STREEBOG_512 = 7


class IpcompTransform(Registry):
    """IPCOMP transform identifiers of IPCOMP_SUPPORTED (RFC 7296 section 3.10.1)."""

    IPCOMP_OUI = 1
    IPCOMP_DEFLATE = 2
    IPCOMP_LZS = 3
    IPCOMP_LZJH = 4


class GatewayIdentityType(Registry):
    """Identity types of REDIRECT and REDIRECTED_FROM (RFC 5685 section 6)."""

    IPV4 = 1
    IPV6 = 2
    FQDN = 3


class PpkIdentityType(Registry):
    """Post-quantum preshared key ID types of PPK_IDENTITY (RFC 8784 section 5.1)."""

    PPK_ID_OPAQUE = 1
    PPK_ID_FIXED = 2


class SecurePasswordMethod(Registry):
    """Methods of SECURE_PASSWORD_METHODS (RFC 6467 section 4)."""

    PACE = 1
    AUGPAKE = 2
    SECURE_PSK_AUTHENTICATION = 3


class ConfigurationType(Registry):
    """CFG types of the Configuration payload (RFC 7296 section 3.15)."""

    CFG_REQUEST = 1
    CFG_REPLY = 2
    CFG_SET = 3
    CFG_ACK = 4


class ConfigurationAttributeType(Registry):
    """Configuration attribute types (RFC 7296 section 3.15.1). What vendors use privately is data for others."""

    INTERNAL_IP4_ADDRESS = 1
    INTERNAL_IP4_NETMASK = 2
    INTERNAL_IP4_DNS = 3
    INTERNAL_IP4_NBNS = 4
    INTERNAL_IP4_DHCP = 6
    APPLICATION_VERSION = 7
    INTERNAL_IP6_ADDRESS = 8
    INTERNAL_IP6_DNS = 10
    INTERNAL_IP6_DHCP = 12
    INTERNAL_IP4_SUBNET = 13
    SUPPORTED_ATTRIBUTES = 14
    INTERNAL_IP6_SUBNET = 15
    MIP6_HOME_PREFIX = 16  # RFC 5026
    INTERNAL_IP6_LINK = 17  # 17, 18: RFC 5739
    INTERNAL_IP6_PREFIX = 18
    HOME_AGENT_ADDRESS = 19  # 3GPP TS 24.302
    P_CSCF_IP4_ADDRESS = 20  # 20, 21: RFC 7651
    P_CSCF_IP6_ADDRESS = 21
    FTT_KAT = 22  # 3GPP
    EXTERNAL_SOURCE_IP4_NAT_INFO = 23  # 3GPP
    TIMEOUT_PERIOD_FOR_LIVENESS_CHECK = 24  # 3GPP
    INTERNAL_DNS_DOMAIN = 25  # 25, 26: RFC 8598
    INTERNAL_DNSSEC_TA = 26
    ENCDNS_IP4 = 27  # 27 to 29: RFC 9464
    ENCDNS_IP6 = 28
    ENCDNS_DIGEST_INFO = 29


class TrafficSelectorType(Registry):
    """Traffic selector types (RFC 7296 section 3.13.1)."""

    TS_IPV4_ADDR_RANGE = 7
    TS_IPV6_ADDR_RANGE = 8
    TS_FC_ADDR_RANGE = 9  # RFC 4595
    TS_SECLABEL = 10  # RFC 9478


class NotifyType(Registry):
    """Notify message types: errors below 16384, status from there on (RFC 7296 section 3.10.1)."""

    UNSUPPORTED_CRITICAL_PAYLOAD = 1
    INVALID_IKE_SPI = 4
    INVALID_MAJOR_VERSION = 5
    INVALID_SYNTAX = 7
    INVALID_MESSAGE_ID = 9
    INVALID_SPI = 11
    NO_PROPOSAL_CHOSEN = 14
    INVALID_KE_PAYLOAD = 17
    AUTHENTICATION_FAILED = 24
    SINGLE_PAIR_REQUIRED = 34
    NO_ADDITIONAL_SAS = 35
    INTERNAL_ADDRESS_FAILURE = 36
    FAILED_CP_REQUIRED = 37
    TS_UNACCEPTABLE = 38
    INVALID_SELECTORS = 39
    UNACCEPTABLE_ADDRESSES = 40  # RFC 4555
    UNEXPECTED_NAT_DETECTED = 41  # RFC 4555
    USE_ASSIGNED_HoA = 42  # RFC 5026
    TEMPORARY_FAILURE = 43
    CHILD_SA_NOT_FOUND = 44
    INVALID_GROUP_ID = 45  # RFC 9838
    AUTHORIZATION_FAILED = 46  # RFC 9838
    STATE_NOT_FOUND = 47  # RFC 9370
    TS_MAX_QUEUE = 48  # RFC 9611
    REGISTRATION_FAILED = 49  # RFC 9838

    INITIAL_CONTACT = 16384
    SET_WINDOW_SIZE = 16385
    ADDITIONAL_TS_POSSIBLE = 16386
    IPCOMP_SUPPORTED = 16387
    NAT_DETECTION_SOURCE_IP = 16388
    NAT_DETECTION_DESTINATION_IP = 16389
    COOKIE = 16390
    USE_TRANSPORT_MODE = 16391
    HTTP_CERT_LOOKUP_SUPPORTED = 16392
    REKEY_SA = 16393
    ESP_TFC_PADDING_NOT_SUPPORTED = 16394
    NON_FIRST_FRAGMENTS_ALSO = 16395
    MOBIKE_SUPPORTED = 16396  # 16396 to 16402: RFC 4555
    ADDITIONAL_IP4_ADDRESS = 16397
    ADDITIONAL_IP6_ADDRESS = 16398
    NO_ADDITIONAL_ADDRESSES = 16399
    UPDATE_SA_ADDRESSES = 16400
    COOKIE2 = 16401
    NO_NATS_ALLOWED = 16402
    AUTH_LIFETIME = 16403  # RFC 4478
    MULTIPLE_AUTH_SUPPORTED = 16404  # 16404, 16405: RFC 4739
    ANOTHER_AUTH_FOLLOWS = 16405
    REDIRECT_SUPPORTED = 16406  # 16406 to 16408: RFC 5685
    REDIRECT = 16407
    REDIRECTED_FROM = 16408
    TICKET_LT_OPAQUE = 16409  # 16409 to 16413: RFC 5723
    TICKET_REQUEST = 16410
    TICKET_ACK = 16411
    TICKET_NACK = 16412
    TICKET_OPAQUE = 16413
    LINK_ID = 16414  # RFC 5739
    USE_WESP_MODE = 16415  # RFC 5840
    ROHC_SUPPORTED = 16416  # RFC 5857
    EAP_ONLY_AUTHENTICATION = 16417  # RFC 5998
    CHILDLESS_IKEV2_SUPPORTED = 16418  # RFC 6023
    QUICK_CRASH_DETECTION = 16419  # RFC 6290
    IKEV2_MESSAGE_ID_SYNC_SUPPORTED = 16420  # 16420 to 16423: RFC 6311
    IPSEC_REPLAY_COUNTER_SYNC_SUPPORTED = 16421
    IKEV2_MESSAGE_ID_SYNC = 16422
    IPSEC_REPLAY_COUNTER_SYNC = 16423
    SECURE_PASSWORD_METHODS = 16424  # RFC 6467
    PSK_PERSIST = 16425  # 16425, 16426: RFC 6631
    PSK_CONFIRM = 16426
    ERX_SUPPORTED = 16427  # RFC 6867
    IFOM_CAPABILITY = 16428  # 3GPP TS 24.303
    GROUP_SENDER = 16429  # RFC 9838
    IKEV2_FRAGMENTATION_SUPPORTED = 16430  # RFC 7383
    SIGNATURE_HASH_ALGORITHMS = 16431  # RFC 7427
    CLONE_IKE_SA_SUPPORTED = 16432  # 16432, 16433: RFC 7791
    CLONE_IKE_SA = 16433
    PUZZLE = 16434  # RFC 8019
    USE_PPK = 16435  # 16435 to 16437: RFC 8784
    PPK_IDENTITY = 16436
    NO_PPK_AUTH = 16437
    INTERMEDIATE_EXCHANGE_SUPPORTED = 16438  # RFC 9242
    IP4_ALLOWED = 16439  # 16439, 16440: RFC 8983
    IP6_ALLOWED = 16440
    ADDITIONAL_KEY_EXCHANGE = 16441  # RFC 9370
    USE_AGGFRAG = 16442  # RFC 9347
    SUPPORTED_AUTH_METHODS = 16443  # RFC 9593
    SA_RESOURCE_INFO = 16444  # RFC 9611
    USE_PPK_INT = 16445  # 16445, 16446: RFC 9867
    PPK_IDENTITY_KEY = 16446
    IKE_SA_INIT_FULL_TRANSCRIPT_AUTH = 16447  # draft-ietf-ipsecme-ikev2-downgrade-prevention

    @property
    def is_error(self) -> bool:
        """True for error types; an unknown error in a response means that the request failed."""
        return self < 16384


TRANSFORM_IDS: dict[int, type[Registry]] = {
    TransformType.ENCR: EncryptionAlgorithm,
    TransformType.PRF: PseudorandomFunction,
    TransformType.INTEG: IntegrityAlgorithm,
    TransformType.KE: KeyExchangeMethod,
    TransformType.ESN: ExtendedSequenceNumbers,
    **dict.fromkeys(range(TransformType.ADDKE1, TransformType.ADDKE7 + 1), KeyExchangeMethod),
}
"""The registry of transform IDs for each transform type that has one here."""
