/* One direction of an ESP SA: its algorithms are libcrypto's (EVP), taken from the process at run time, or gcm.c's. */
#include "core.h"

#include <dlfcn.h>
#include <limits.h>
#include <stdlib.h>

/* OpenSSL 3's own prototypes; its ABI is stable. */
typedef struct evp_cipher_st EVP_CIPHER;
typedef struct evp_cipher_ctx_st EVP_CIPHER_CTX;
typedef struct evp_mac_st EVP_MAC;
typedef struct evp_mac_ctx_st EVP_MAC_CTX;
typedef struct {
    const char *key;
    unsigned int data_type;
    void *data;
    size_t data_size, return_size;
} OSSL_PARAM;

enum { SET_IV_LENGTH = 0x9, SET_TAG = 0x11, UTF8_STRING = 4, OCTET_STRING = 5 };

static struct {
    EVP_CIPHER *(*cipher_fetch)(void *, const char *, const char *);
    void (*cipher_free)(EVP_CIPHER *);
    EVP_CIPHER_CTX *(*new)(void);
    void (*free)(EVP_CIPHER_CTX *);
    int (*init)(EVP_CIPHER_CTX *, const EVP_CIPHER *, void *, const uint8_t *, const uint8_t *, int);
    int (*update)(EVP_CIPHER_CTX *, uint8_t *, int *, const uint8_t *, int);
    int (*final)(EVP_CIPHER_CTX *, uint8_t *, int *);
    int (*ctrl)(EVP_CIPHER_CTX *, int, int, void *);
    int (*get_params)(EVP_CIPHER_CTX *, OSSL_PARAM *);
    int (*set_params)(EVP_CIPHER_CTX *, const OSSL_PARAM *);
    int (*set_padding)(EVP_CIPHER_CTX *, int);
    EVP_MAC *(*mac_fetch)(void *, const char *, const char *);
    void (*mac_release)(EVP_MAC *);
    EVP_MAC_CTX *(*mac_new)(EVP_MAC *);
    void (*mac_free)(EVP_MAC_CTX *);
    int (*mac_init)(EVP_MAC_CTX *, const uint8_t *, size_t, const OSSL_PARAM *);
    int (*mac_update)(EVP_MAC_CTX *, const uint8_t *, size_t);
    int (*mac_final)(EVP_MAC_CTX *, uint8_t *, size_t *, size_t);
    int (*random)(uint8_t *, int);
    int (*compare)(const void *, const void *, size_t);
    void (*cleanse)(void *, size_t);
} ossl;

static const struct {
    const char *name;
    void *place;
} symbols[] = {
    {"EVP_CIPHER_fetch", &ossl.cipher_fetch},
    {"EVP_CIPHER_free", &ossl.cipher_free},
    {"EVP_CIPHER_CTX_new", &ossl.new},
    {"EVP_CIPHER_CTX_free", &ossl.free},
    {"EVP_CipherInit_ex", &ossl.init},
    {"EVP_CipherUpdate", &ossl.update},
    {"EVP_CipherFinal_ex", &ossl.final},
    {"EVP_CIPHER_CTX_ctrl", &ossl.ctrl},
    {"EVP_CIPHER_CTX_get_params", &ossl.get_params},
    {"EVP_CIPHER_CTX_set_params", &ossl.set_params},
    {"EVP_CIPHER_CTX_set_padding", &ossl.set_padding},
    {"EVP_MAC_fetch", &ossl.mac_fetch},
    {"EVP_MAC_free", &ossl.mac_release},
    {"EVP_MAC_CTX_new", &ossl.mac_new},
    {"EVP_MAC_CTX_free", &ossl.mac_free},
    {"EVP_MAC_init", &ossl.mac_init},
    {"EVP_MAC_update", &ossl.mac_update},
    {"EVP_MAC_final", &ossl.mac_final},
    {"RAND_bytes", &ossl.random},
    {"CRYPTO_memcmp", &ossl.compare},
    {"OPENSSL_cleanse", &ossl.cleanse},
};

IKW_EXPORT uint32_t ikw_layout(void) { return IKW_LAYOUT; }

/* Whether the CPU has what gcm.c takes. */
IKW_EXPORT int ikw_vaes(void) { return gcm_supported(); }

/* Take libcrypto by its file name. 0: it is there; else a text that says what is wrong. */
IKW_EXPORT const char *ikw_load(const char *file) {
    void *library = dlopen(file, RTLD_NOW | RTLD_LOCAL);
    if (!library)
        return "cannot be loaded";
    for (size_t i = 0; i < sizeof symbols / sizeof *symbols; i++) {
        void *symbol = dlsym(library, symbols[i].name);
        if (!symbol) {
            dlclose(library);
            return symbols[i].name;
        }
        memcpy(symbols[i].place, &symbol, sizeof symbol);
    }
    return NULL;
}

enum { MODE_AEAD, MODE_CCM, MODE_CBC, MODE_CTR };

/* What `ikw_sa_new` is told. `digest` is NULL with an AEAD. */
struct ikw_suite {
    const char *cipher, *digest;
    const uint8_t *key, *integrity_key, *salt;
    uint32_t integrity_octets;
    uint8_t salt_octets, iv_octets, icv_octets, align, mode, extended, sealing, openssl_only;
};

struct ikw_sa {
    EVP_CIPHER_CTX *cipher;
    EVP_MAC_CTX *mac;
    struct gcm *gcm; /* instead of cipher, where the CPU has what it takes */
    size_t salt_octets, iv, icv, align;
    int mode, extended, sealing;
    uint8_t salt[4];
};

void wipe(void *octets, size_t length) { ossl.cleanse(octets, length); }

static void new_gcm(struct ikw_sa *sa, const struct ikw_suite *suite);

static void free_gcm(struct ikw_sa *sa) {
    if (sa->gcm)
        ossl.cleanse(sa->gcm, gcm_octets());
    free(sa->gcm);
    sa->gcm = NULL;
}

IKW_EXPORT void ikw_sa_free(struct ikw_sa *sa) {
    if (!sa)
        return;
    ossl.free(sa->cipher); /* wipes its key schedule */
    if (sa->mac)
        ossl.mac_free(sa->mac);
    free_gcm(sa);
    ossl.cleanse(sa, sizeof *sa);
    free(sa);
}

static int new_mac(struct ikw_sa *sa, const struct ikw_suite *suite) {
    EVP_MAC *mac = ossl.mac_fetch(NULL, "HMAC", NULL);
    if (!mac)
        return 0;
    sa->mac = ossl.mac_new(mac);
    ossl.mac_release(mac);
    char digest[16] = {0};
    strncpy(digest, suite->digest, sizeof digest - 1);
    const OSSL_PARAM parameters[] = {{"digest", UTF8_STRING, digest, strlen(digest), 0}, {0}};
    return sa->mac && ossl.mac_init(sa->mac, suite->integrity_key, suite->integrity_octets, parameters) == 1;
}

static int new_cipher(struct ikw_sa *sa, const struct ikw_suite *suite) {
    EVP_CIPHER *cipher = ossl.cipher_fetch(NULL, suite->cipher, NULL);
    if (!cipher)
        return 0;
    sa->cipher = ossl.new();
    int good = sa->cipher && ossl.init(sa->cipher, cipher, NULL, NULL, NULL, sa->sealing) == 1;
    if (good && sa->mode == MODE_CCM) { /* wants to know both lengths before the key */
        good = ossl.ctrl(sa->cipher, SET_IV_LENGTH, (int)(sa->salt_octets + sa->iv), NULL) == 1 &&
               ossl.ctrl(sa->cipher, SET_TAG, (int)sa->icv, NULL) == 1;
    }
    good = good && ossl.init(sa->cipher, NULL, NULL, suite->key, NULL, sa->sealing) == 1;
    ossl.cipher_free(cipher);
    return good && ossl.set_padding(sa->cipher, 0) == 1;
}

/* One direction of an SA; NULL when this libcrypto does not have the algorithms. */
IKW_EXPORT struct ikw_sa *ikw_sa_new(const struct ikw_suite *suite) {
    if (suite->salt_octets > 4 || suite->iv_octets > 16 || suite->icv_octets > 32 || suite->align < 4)
        return NULL;
    struct ikw_sa *sa = calloc(1, sizeof *sa);
    if (!sa)
        return NULL;
    sa->mode = suite->mode;
    sa->iv = suite->iv_octets;
    sa->icv = suite->icv_octets;
    sa->align = suite->align;
    sa->extended = suite->extended;
    sa->sealing = suite->sealing;
    sa->salt_octets = suite->salt_octets;
    memcpy(sa->salt, suite->salt, sa->salt_octets);
    if (!new_cipher(sa, suite) || (suite->digest && !new_mac(sa, suite))) {
        ikw_sa_free(sa);
        return NULL;
    }
    if (!suite->openssl_only)
        new_gcm(sa, suite);
    return sa;
}

size_t sa_overhead_head(const struct ikw_sa *sa) { return 8 + sa->iv; }
size_t sa_icv(const struct ikw_sa *sa) { return sa->icv; }
size_t sa_align(const struct ikw_sa *sa) { return sa->align; }
int sa_extended(const struct ikw_sa *sa) { return sa->extended; }
size_t sa_padding(const struct ikw_sa *sa, size_t payload) { return (sa->align - (payload + 2) % sa->align) % sa->align; }
size_t sa_random_iv(const struct ikw_sa *sa) { return sa->mode == MODE_CBC ? sa->iv : 0; }
int random_octets(uint8_t *out, size_t length) { return length <= INT_MAX && ossl.random(out, (int)length) == 1 ? 0 : -1; }

/* Nonce or counter block: salt, IV, and for CTR a block counter that begins at 1 (RFC 3686 section 4). */
static void make_nonce(const struct ikw_sa *sa, const uint8_t *iv, uint8_t nonce[16]) {
    memcpy(nonce, sa->salt, sa->salt_octets);
    memcpy(nonce + sa->salt_octets, iv, sa->iv);
    if (sa->mode == MODE_CTR)
        store32(nonce + 12, 1);
}

/* SPI and sequence number as they are authenticated (RFC 4106 section 5). */
static int make_associated(const struct ikw_sa *sa, const uint8_t *frame, uint32_t high, uint8_t associated[12]) {
    memcpy(associated, frame, 4);
    if (!sa->extended) {
        memcpy(associated + 4, frame + 4, 4);
        return 8;
    }
    store32(associated + 4, high);
    memcpy(associated + 8, frame + 4, 4);
    return 12;
}

static int authenticate(struct ikw_sa *sa, const uint8_t *frame, size_t length, uint32_t high, uint8_t icv[64]) {
    uint8_t suffix[4];
    size_t written;
    store32(suffix, high);
    return ossl.mac_init(sa->mac, NULL, 0, NULL) == 1 && ossl.mac_update(sa->mac, frame, length) == 1 &&
           (!sa->extended || ossl.mac_update(sa->mac, suffix, 4) == 1) &&
           ossl.mac_final(sa->mac, icv, &written, 64) == 1 && written >= sa->icv;
}

/* Encrypt or decrypt in place, all of AEAD but the tag. */
static int run_cipher(struct ikw_sa *sa, uint8_t *frame, int length, uint32_t high) {
    uint8_t nonce[16], associated[12], *text = frame + 8 + sa->iv;
    int done = 0;
    make_nonce(sa, frame + 8, nonce);
    if (ossl.init(sa->cipher, NULL, NULL, NULL, nonce, -1) != 1)
        return 0;
    if (sa->mode == MODE_CCM && ossl.update(sa->cipher, NULL, &done, NULL, length) != 1)
        return 0;
    if (sa->mode == MODE_AEAD || sa->mode == MODE_CCM) {
        int octets = make_associated(sa, frame, high, associated);
        if (ossl.update(sa->cipher, NULL, &done, associated, octets) != 1)
            return 0;
    }
    return ossl.update(sa->cipher, text, &done, text, length) == 1 && done == length;
}

/* Encrypt or decrypt in place by gcm.c. */
static void run_gcm(const struct ikw_sa *sa, const struct gcm *gcm, uint8_t *frame, size_t length, uint32_t high, int sealing,
                    uint8_t tag[16]) {
    uint8_t nonce[16], associated[12];
    make_nonce(sa, frame + 8, nonce);
    int octets = make_associated(sa, frame, high, associated);
    gcm_crypt(gcm, nonce, associated, (size_t)octets, frame + 8 + sa->iv, length, sealing, tag);
}

enum { TRIAL_OCTETS = 700 };

/* Take gcm.c for AES-GCM, if it does to a packet what libcrypto does. */
static void new_gcm(struct ikw_sa *sa, const struct ikw_suite *suite) {
    size_t octets = !strcmp(suite->cipher, "AES-128-GCM")   ? 16
                    : !strcmp(suite->cipher, "AES-192-GCM") ? 24
                    : !strcmp(suite->cipher, "AES-256-GCM") ? 32
                                                            : 0;
    size_t alignment = gcm_alignment(), room = (gcm_octets() + alignment - 1) / alignment * alignment;
    uint8_t ours[TRIAL_OCTETS + 16] = {0}, theirs[TRIAL_OCTETS] = {0};
    size_t length = TRIAL_OCTETS - 8 - sa->iv - sa->icv;
    struct gcm *gcm = octets && gcm_supported() ? aligned_alloc(alignment, room) : NULL;
    if (!gcm)
        return;
    gcm_set_key(gcm, suite->key, octets);
    run_gcm(sa, gcm, ours, length, 0, 1, ours + TRIAL_OCTETS - sa->icv);
    int good;
    if (sa->sealing) {
        good = sa_seal(sa, theirs, TRIAL_OCTETS, 0, 0, 0, NULL) == 0 && !ossl.compare(ours, theirs, TRIAL_OCTETS);
    } else {
        good = sa_open(sa, ours, TRIAL_OCTETS, 0) == 0;
        memset(ours + TRIAL_OCTETS - sa->icv, 0, sa->icv);
        good = good && !ossl.compare(ours, theirs, TRIAL_OCTETS);
    }
    sa->gcm = gcm;
    if (!good)
        free_gcm(sa);
}

int sa_seal(struct ikw_sa *sa, uint8_t *frame, size_t size, uint32_t spi, uint64_t sequence, uint64_t iv,
            const uint8_t *random_iv) {
    uint8_t icv[64];
    uint32_t high = (uint32_t)(sequence >> 32);
    size_t end = size - sa->icv, length = end - 8 - sa->iv;
    int done = 0;
    store32(frame, spi);
    store32(frame + 4, (uint32_t)sequence);
    if (random_iv)
        memcpy(frame + 8, random_iv, sa->iv);
    else
        store64(frame + 8, iv);
    if (sa->gcm) {
        run_gcm(sa, sa->gcm, frame, length, high, 1, icv);
        memcpy(frame + end, icv, sa->icv);
        return 0;
    }
    if (length > INT_MAX || !run_cipher(sa, frame, (int)length, high))
        return -1;
    if (sa->mode == MODE_AEAD || sa->mode == MODE_CCM) {
        if (ossl.final(sa->cipher, frame + end, &done) != 1)
            return -1;
        OSSL_PARAM tag[] = {{"tag", OCTET_STRING, frame + end, sa->icv, 0}, {0}};
        return ossl.get_params(sa->cipher, tag) == 1 ? 0 : -1;
    }
    if (!authenticate(sa, frame, end, high, icv))
        return -1;
    memcpy(frame + end, icv, sa->icv);
    return 0;
}

int sa_open(struct ikw_sa *sa, uint8_t *frame, size_t size, uint32_t high) {
    uint8_t icv[64], rest[16];
    size_t end = size - sa->icv, length = end - 8 - sa->iv;
    int done = 0;
    if (sa->gcm) {
        run_gcm(sa, sa->gcm, frame, length, high, 0, icv);
        return ossl.compare(icv, frame + end, sa->icv) ? -1 : 0;
    }
    if (length > INT_MAX)
        return -1;
    if (sa->mode == MODE_CBC || sa->mode == MODE_CTR) {
        if (!authenticate(sa, frame, end, high, icv) || ossl.compare(icv, frame + end, sa->icv))
            return -1;
        return run_cipher(sa, frame, (int)length, high) ? 0 : -1;
    }
    const OSSL_PARAM tag[] = {{"tag", OCTET_STRING, frame + end, sa->icv, 0}, {0}}; /* ctrl() is slower */
    if (ossl.set_params(sa->cipher, tag) != 1)
        return -1;
    if (!run_cipher(sa, frame, (int)length, high)) /* CCM has verified in there */
        return -1;
    return sa->mode == MODE_CCM || ossl.final(sa->cipher, rest, &done) == 1 ? 0 : -1;
}
