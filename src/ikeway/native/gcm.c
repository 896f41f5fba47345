/* AES-GCM (NIST SP 800-38D) for packets, with the vector instructions for it (VAES, VPCLMULQDQ).
 *
 * Why here, where all else is libcrypto's: its EVP interface costs as much for each packet as the packet's octets do, see
 * ARCHITECTURE.md. What is here has no tables and no branch that depends on keys or text. A CPU without these
 * instructions has libcrypto do it; crypto.c compares both for every key before this is used.
 *
 * 16 blocks at a time: their key stream side by side, and GHASH with the powers H^16 ... H^1 and one reduction. What is
 * left at the end lies, with the block of lengths, at the end of 16 blocks that begin with zeros, which add nothing. */
#include "core.h"

#if defined(__x86_64__) && (defined(__clang__) || __GNUC__ >= 9)

#include <cpuid.h>
#include <immintrin.h>
#include <stdlib.h>

#define VECTOR __attribute__((target("avx2,aes,pclmul,vaes,vpclmulqdq")))
#define INLINE VECTOR __attribute__((always_inline)) static inline

enum { BATCH = 16, BATCH_OCTETS = BATCH * 16, MOST_ROUND_KEYS = 15 };

struct gcm {
    _Alignas(64) __m256i powers[BATCH / 2]; /* (H^16, H^15), ... (H^2, H^1), each times x for the reduction */
    _Alignas(64) __m256i round_keys[MOST_ROUND_KEYS]; /* each twice */
    _Alignas(64) __m128i hash_key;
    int rounds;
};

int gcm_supported(void) {
    unsigned a, b, c, d, flags;
    if (!__builtin_cpu_supports("avx2") || !__get_cpuid(1, &a, &b, &flags, &d) || !__get_cpuid_count(7, 0, &a, &b, &c, &d))
        return 0;
    return (flags >> 25 & 1) && (flags >> 1 & 1) && (c >> 9 & 1) && (c >> 10 & 1); /* AES, PCLMUL, VAES, VPCLMULQDQ */
}

size_t gcm_octets(void) { return sizeof(struct gcm); }
size_t gcm_alignment(void) { return _Alignof(struct gcm); }

INLINE __m128i swap(__m128i x) {
    return _mm_shuffle_epi8(x, _mm_set_epi8(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15));
}

INLINE __m256i swap_both(__m256i x) {
    return _mm256_shuffle_epi8(
        x, _mm256_broadcastsi128_si256(_mm_set_epi8(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15)));
}

/* Reduce a product of 256 bits, given as low, middle and high part, by x^128 + x^7 + x^2 + x + 1 (bits reflected). */
INLINE __m128i reduce(__m128i low, __m128i middle, __m128i high) {
    const __m128i polynomial = _mm_set_epi64x((long long)0xC200000000000000u, 1);
    middle = _mm_xor_si128(middle, _mm_clmulepi64_si128(polynomial, low, 0x01));
    middle = _mm_xor_si128(middle, _mm_shuffle_epi32(low, 0x4E));
    high = _mm_xor_si128(high, _mm_clmulepi64_si128(polynomial, middle, 0x01));
    return _mm_xor_si128(high, _mm_shuffle_epi32(middle, 0x4E));
}

INLINE __m128i multiply(__m128i a, __m128i b) {
    __m128i middle = _mm_xor_si128(_mm_clmulepi64_si128(a, b, 0x01), _mm_clmulepi64_si128(a, b, 0x10));
    return reduce(_mm_clmulepi64_si128(a, b, 0x00), middle, _mm_clmulepi64_si128(a, b, 0x11));
}

INLINE __m128i sum_halves(__m256i x) { return _mm_xor_si128(_mm256_castsi256_si128(x), _mm256_extracti128_si256(x, 1)); }

/* GHASH of 16 blocks, on top of a hash. */
INLINE __m128i hash_batch(const struct gcm *gcm, __m128i hash, const uint8_t *blocks) {
    __m256i low = _mm256_setzero_si256(), middle = low, high = low;
    __m256i before = _mm256_zextsi128_si256(hash);
    for (size_t i = 0; i < BATCH / 2; i++) {
        __m256i x = swap_both(_mm256_loadu_si256((const __m256i *)(const void *)(blocks + 32 * i))), h = gcm->powers[i];
        x = _mm256_xor_si256(x, before);
        before = _mm256_setzero_si256();
        low = _mm256_xor_si256(low, _mm256_clmulepi64_epi128(x, h, 0x00));
        high = _mm256_xor_si256(high, _mm256_clmulepi64_epi128(x, h, 0x11));
        middle = _mm256_xor_si256(middle, _mm256_clmulepi64_epi128(x, h, 0x01));
        middle = _mm256_xor_si256(middle, _mm256_clmulepi64_epi128(x, h, 0x10));
    }
    return reduce(sum_halves(low), sum_halves(middle), sum_halves(high));
}

/* XOR 16 blocks with the key stream. `counter`: the first two counter blocks, octets swapped; moved on. */
INLINE void crypt_batch(const struct gcm *gcm, __m256i *counter, uint8_t *blocks) {
    const __m256i two = _mm256_set_epi32(0, 0, 0, 2, 0, 0, 0, 2);
    __m256i stream[BATCH / 2];
    for (size_t i = 0; i < BATCH / 2; i++) {
        stream[i] = _mm256_xor_si256(swap_both(*counter), gcm->round_keys[0]);
        *counter = _mm256_add_epi32(*counter, two);
    }
    for (int round = 1; round < gcm->rounds; round++) {
        __m256i key = gcm->round_keys[round];
        for (size_t i = 0; i < BATCH / 2; i++)
            stream[i] = _mm256_aesenc_epi128(stream[i], key);
    }
    __m256i last = gcm->round_keys[gcm->rounds];
    for (size_t i = 0; i < BATCH / 2; i++) {
        __m256i *place = (__m256i *)(void *)(blocks + 32 * i);
        _mm256_storeu_si256(
            place, _mm256_xor_si256(_mm256_aesenclast_epi128(stream[i], last), _mm256_loadu_si256(place)));
    }
}

INLINE __m128i encrypt_block(const struct gcm *gcm, __m128i block) {
    block = _mm_xor_si128(block, _mm256_castsi256_si128(gcm->round_keys[0]));
    for (int round = 1; round < gcm->rounds; round++)
        block = _mm_aesenc_si128(block, _mm256_castsi256_si128(gcm->round_keys[round]));
    return _mm_aesenclast_si128(block, _mm256_castsi256_si128(gcm->round_keys[gcm->rounds]));
}

INLINE uint32_t substitute(uint32_t word) {
    return (uint32_t)_mm_cvtsi128_si32(_mm_aeskeygenassist_si128(_mm_set1_epi32((int)word), 0));
}

/* The key schedule (FIPS 197 section 5.2) and the powers of the hash key. `octets`: 16, 24 or 32. */
VECTOR void gcm_set_key(struct gcm *gcm, const uint8_t *key, size_t octets) {
    uint32_t words[4 * MOST_ROUND_KEYS], constant = 1;
    size_t given = octets / 4, count = 4 * (given + 7);
    memcpy(words, key, octets);
    for (size_t i = given; i < count; i++) {
        uint32_t word = words[i - 1];
        if (i % given == 0) {
            word = substitute(word);
            word = (word >> 8 | word << 24) ^ constant;
            constant = constant << 1 ^ (constant & 0x80 ? 0x11B : 0);
        } else if (given == 8 && i % given == 4) {
            word = substitute(word);
        }
        words[i] = words[i - given] ^ word;
    }
    gcm->rounds = (int)given + 6;
    for (int round = 0; round <= gcm->rounds; round++)
        gcm->round_keys[round] =
            _mm256_broadcastsi128_si256(_mm_loadu_si128((const __m128i *)(const void *)(words + 4 * round)));
    wipe(words, sizeof words);
    uint64_t halves[2];
    _mm_storeu_si128((__m128i *)(void *)halves, swap(encrypt_block(gcm, _mm_setzero_si128())));
    uint64_t carry = 0 - (halves[1] >> 63); /* times x, as `reduce` wants it */
    halves[1] = (halves[1] << 1 | halves[0] >> 63) ^ (carry & 0xC200000000000000u);
    halves[0] = halves[0] << 1 ^ (carry & 1);
    __m128i power[BATCH + 1];
    gcm->hash_key = power[1] = _mm_loadu_si128((const __m128i *)(const void *)halves);
    for (size_t i = 2; i <= BATCH; i++)
        power[i] = multiply(power[i - 1], power[1]);
    for (size_t i = 0; i < BATCH / 2; i++)
        gcm->powers[i] = _mm256_set_m128i(power[BATCH - 1 - 2 * i], power[BATCH - 2 * i]);
    wipe(halves, sizeof halves);
    wipe(power, sizeof power);
}

/* Encrypt or decrypt in place, and make the tag. `associated` has at most 16 octets, the nonce 12. */
VECTOR void gcm_crypt(const struct gcm *gcm, const uint8_t *nonce, const uint8_t *associated, size_t associated_octets,
                      uint8_t *text, size_t length, int sealing, uint8_t tag[16]) {
    _Alignas(32) uint8_t block[16] = {0}, end[BATCH_OCTETS];
    memcpy(block, nonce, 12);
    block[15] = 1;
    __m128i first = _mm_load_si128((const __m128i *)(const void *)block), counted = swap(first);
    __m256i counter = _mm256_set_m128i(_mm_add_epi32(counted, _mm_set_epi32(0, 0, 0, 2)),
                                       _mm_add_epi32(counted, _mm_set_epi32(0, 0, 0, 1)));
    memset(block, 0, sizeof block);
    memcpy(block, associated, associated_octets);
    __m128i hash = multiply(swap(_mm_load_si128((const __m128i *)(const void *)block)), gcm->hash_key);
    size_t at = 0;
    for (; length - at >= BATCH_OCTETS; at += BATCH_OCTETS) {
        if (!sealing)
            hash = hash_batch(gcm, hash, text + at);
        crypt_batch(gcm, &counter, text + at);
        if (sealing)
            hash = hash_batch(gcm, hash, text + at);
    }
    size_t rest = length - at, blocks = (rest + 15) / 16;
    if (blocks == BATCH) { /* no room for the lengths beside it */
        memset(end, 0, sizeof end);
        memcpy(end, text + at, rest);
        if (!sealing)
            hash = hash_batch(gcm, hash, end);
        crypt_batch(gcm, &counter, end);
        memcpy(text + at, end, rest);
        memset(end + rest, 0, sizeof end - rest);
        if (sealing)
            hash = hash_batch(gcm, hash, end);
        rest = blocks = 0;
        at = length;
    }
    uint8_t stream[BATCH_OCTETS] = {0};
    size_t from = BATCH_OCTETS - 16 - 16 * blocks; /* where the rest begins, in front of the lengths */
    memset(end, 0, sizeof end);
    if (rest) {
        memcpy(stream, text + at, rest);
        if (!sealing)
            memcpy(end + from, stream, rest);
        crypt_batch(gcm, &counter, stream);
        memcpy(text + at, stream, rest);
        if (sealing)
            memcpy(end + from, stream, rest);
    }
    store64(end + BATCH_OCTETS - 16, (uint64_t)associated_octets * 8);
    store64(end + BATCH_OCTETS - 8, (uint64_t)length * 8);
    /* The hash so far belongs to the first real block, not to the zeros in front. */
    __m128i *real = (__m128i *)(void *)(end + from);
    _mm_storeu_si128(real, _mm_xor_si128(_mm_loadu_si128(real), swap(hash)));
    hash = hash_batch(gcm, _mm_setzero_si128(), end);
    _mm_storeu_si128((__m128i *)(void *)tag, _mm_xor_si128(swap(hash), encrypt_block(gcm, first)));
}

#else

int gcm_supported(void) { return 0; }
size_t gcm_octets(void) { return 1; }
size_t gcm_alignment(void) { return 1; }

void gcm_set_key(struct gcm *gcm, const uint8_t *key, size_t octets) {
    (void)gcm, (void)key, (void)octets;
}

void gcm_crypt(const struct gcm *gcm, const uint8_t *nonce, const uint8_t *associated, size_t associated_octets,
               uint8_t *text, size_t length, int sealing, uint8_t tag[16]) {
    (void)gcm, (void)nonce, (void)associated, (void)associated_octets, (void)text, (void)length, (void)sealing, (void)tag;
}

#endif
