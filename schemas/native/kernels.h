/* What all kernels share. Every function that Python calls is EXPORT; arrays are the caller's, and never null. */
#ifndef DRIFTLOOP_KERNELS_H
#define DRIFTLOOP_KERNELS_H

#include <stdint.h>
#include <stddef.h>
#include <string.h>

#define EXPORT __attribute__((visibility("default")))

#if defined(__BYTE_ORDER__) && __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "these kernels are written for little-endian machines"
#endif

static inline uint32_t read32(const uint8_t *p) { uint32_t v; memcpy(&v, p, 4); return v; }
static inline uint64_t read64(const uint8_t *p) { uint64_t v; memcpy(&v, p, 8); return v; }

/* A text that is null has this length. */
#define NULL_LENGTH (-1)

/* The longest text that hash_text takes. */
#define HASHED_LENGTH_MAX 240

/* XXH3 of a text of at most HASHED_LENGTH_MAX bytes. */
uint64_t hash_text(const uint8_t *text, size_t length, uint64_t seed);

#endif
