/* XXH3, 64 bits, seeded, for texts of up to 240 bytes: what identities are named by, the same everywhere for ever.
   After the specification of xxHash by Yann Collet; tests compare it with the library. */
#include "kernels.h"

#define PRIME64_1 0x9E3779B185EBCA87ULL
#define PRIME64_2 0xC2B2AE3D27D4EB4FULL
#define PRIME64_3 0x165667B19E3779F9ULL
#define PRIME_MX1 0x165667919E3779F9ULL
#define PRIME_MX2 0x9FB21C651E98DF25ULL

static const uint8_t SECRET[192] = {
    0xb8, 0xfe, 0x6c, 0x39, 0x23, 0xa4, 0x4b, 0xbe, 0x7c, 0x01, 0x81, 0x2c, 0xf7, 0x21, 0xad, 0x1c,
    0xde, 0xd4, 0x6d, 0xe9, 0x83, 0x90, 0x97, 0xdb, 0x72, 0x40, 0xa4, 0xa4, 0xb7, 0xb3, 0x67, 0x1f,
    0xcb, 0x79, 0xe6, 0x4e, 0xcc, 0xc0, 0xe5, 0x78, 0x82, 0x5a, 0xd0, 0x7d, 0xcc, 0xff, 0x72, 0x21,
    0xb8, 0x08, 0x46, 0x74, 0xf7, 0x43, 0x24, 0x8e, 0xe0, 0x35, 0x90, 0xe6, 0x81, 0x3a, 0x26, 0x4c,
    0x3c, 0x28, 0x52, 0xbb, 0x91, 0xc3, 0x00, 0xcb, 0x88, 0xd0, 0x65, 0x8b, 0x1b, 0x53, 0x2e, 0xa3,
    0x71, 0x64, 0x48, 0x97, 0xa2, 0x0d, 0xf9, 0x4e, 0x38, 0x19, 0xef, 0x46, 0xa9, 0xde, 0xac, 0xd8,
    0xa8, 0xfa, 0x76, 0x3f, 0xe3, 0x9c, 0x34, 0x3f, 0xf9, 0xdc, 0xbb, 0xc7, 0xc7, 0x0b, 0x4f, 0x1d,
    0x8a, 0x51, 0xe0, 0x4b, 0xcd, 0xb4, 0x59, 0x31, 0xc8, 0x9f, 0x7e, 0xc9, 0xd9, 0x78, 0x73, 0x64,
    0xea, 0xc5, 0xac, 0x83, 0x34, 0xd3, 0xeb, 0xc3, 0xc5, 0x81, 0xa0, 0xff, 0xfa, 0x13, 0x63, 0xeb,
    0x17, 0x0d, 0xdd, 0x51, 0xb7, 0xf0, 0xda, 0x49, 0xd3, 0x16, 0x55, 0x26, 0x29, 0xd4, 0x68, 0x9e,
    0x2b, 0x16, 0xbe, 0x58, 0x7d, 0x47, 0xa1, 0xfc, 0x8f, 0xf8, 0xb8, 0xd1, 0x7a, 0xd0, 0x31, 0xce,
    0x45, 0xcb, 0x3a, 0x8f, 0x95, 0x16, 0x04, 0x28, 0xaf, 0xd7, 0xfb, 0xca, 0xbb, 0x4b, 0x40, 0x7e,
};

static inline uint64_t rotate(uint64_t x, int by) { return (x << by) | (x >> (64 - by)); }

static inline uint64_t avalanche(uint64_t h) {
    h = (h ^ (h >> 37)) * PRIME_MX1;
    return h ^ (h >> 32);
}

static inline uint64_t avalanche_short(uint64_t h) {
    h = (h ^ (h >> 33)) * PRIME64_2;
    h = (h ^ (h >> 29)) * PRIME64_3;
    return h ^ (h >> 32);
}

static inline uint64_t fold(uint64_t a, uint64_t b) {
    unsigned __int128 product = (unsigned __int128)a * b;
    return (uint64_t)product ^ (uint64_t)(product >> 64);
}

static inline uint64_t mix(const uint8_t *text, const uint8_t *secret, uint64_t seed) {
    return fold(read64(text) ^ (read64(secret) + seed), read64(text + 8) ^ (read64(secret + 8) - seed));
}

static inline uint64_t hash_up_to_16(const uint8_t *text, size_t length, uint64_t seed) {
    if (length > 8) {
        uint64_t low = read64(text) ^ ((read64(SECRET + 24) ^ read64(SECRET + 32)) + seed);
        uint64_t high = read64(text + length - 8) ^ ((read64(SECRET + 40) ^ read64(SECRET + 48)) - seed);
        return avalanche(length + __builtin_bswap64(low) + high + fold(low, high));
    }
    if (length >= 4) {
        seed ^= (uint64_t)__builtin_bswap32((uint32_t)seed) << 32;
        uint64_t both = read32(text + length - 4) + ((uint64_t)read32(text) << 32);
        uint64_t h = both ^ ((read64(SECRET + 8) ^ read64(SECRET + 16)) - seed);
        h ^= rotate(h, 49) ^ rotate(h, 24);
        h *= PRIME_MX2;
        h ^= (h >> 35) + length;
        h *= PRIME_MX2;
        return h ^ (h >> 28);
    }
    if (length > 0) {
        uint32_t first = text[0], middle = text[length >> 1], last = text[length - 1];
        uint32_t all = (first << 16) | (middle << 24) | last | ((uint32_t)length << 8);
        return avalanche_short(all ^ ((read32(SECRET) ^ read32(SECRET + 4)) + seed));
    }
    return avalanche_short(seed ^ read64(SECRET + 56) ^ read64(SECRET + 64));
}

uint64_t hash_text(const uint8_t *text, size_t length, uint64_t seed) {
    if (length <= 16) return hash_up_to_16(text, length, seed);
    uint64_t sum = length * PRIME64_1;
    if (length <= 128) {
        if (length > 96) sum += mix(text + 48, SECRET + 96, seed) + mix(text + length - 64, SECRET + 112, seed);
        if (length > 64) sum += mix(text + 32, SECRET + 64, seed) + mix(text + length - 48, SECRET + 80, seed);
        if (length > 32) sum += mix(text + 16, SECRET + 32, seed) + mix(text + length - 32, SECRET + 48, seed);
        sum += mix(text, SECRET, seed) + mix(text + length - 16, SECRET + 16, seed);
        return avalanche(sum);
    }
    for (size_t i = 0; i < 8; i++) sum += mix(text + 16 * i, SECRET + 16 * i, seed);
    sum = avalanche(sum);
    for (size_t i = 8; i < length / 16; i++) sum += mix(text + 16 * i, SECRET + 16 * (i - 8) + 3, seed);
    return avalanche(sum + mix(text + length - 16, SECRET + 136 - 17, seed));
}

/* Texts that are null or too long get 0: the caller sees to them. */
EXPORT void hash_texts(const uint8_t *buffer, const int64_t *start, const int32_t *length, int64_t n,
                       const uint64_t *seeds, uint64_t *out) {
    for (int64_t i = 0; i < n; i++) {
        int32_t size = length[i];
        out[i] = size < 0 || size > HASHED_LENGTH_MAX ? 0 : hash_text(buffer + start[i], (size_t)size, seeds[i]);
    }
}

#ifndef SOURCES_HASH
#define SOURCES_HASH "unknown"
#endif

EXPORT const char *sources_hash(void) { return SOURCES_HASH; }
